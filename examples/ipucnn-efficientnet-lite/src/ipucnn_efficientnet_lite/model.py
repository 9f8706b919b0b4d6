"""The network; imported when it is built."""

from efficientnet_lite_pytorch import EfficientNet


def build(num_classes):
    """Return EfficientNet-Lite0 with random weights.

    Args:
        num_classes: outputs of the last layer.
    """
    return EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes)
