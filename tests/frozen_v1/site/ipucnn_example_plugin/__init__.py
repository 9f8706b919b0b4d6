"""An example of every kind of ipucnn plugin."""
