"""How fast the host prepares images, and whether that is fast enough for a model."""
