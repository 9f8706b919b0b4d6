"""EfficientNet-Lite0, with the published weights of a package of the index."""
