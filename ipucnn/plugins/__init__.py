"""The built-in plugins. Each module is its own entry point and depends on no other plugin."""
