"""EfficientNet-Lite0, with published weights that are part of a package."""
