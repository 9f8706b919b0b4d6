"""The built-in plugins. Each module is its own entry point and knows no other plugin."""
