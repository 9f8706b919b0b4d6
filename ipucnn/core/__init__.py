"""The core of ipucnn: registry, options, execution model and jobs. It knows no plugin by name."""
