"""The model; imported when it is built."""

from torch import nn


def build(num_classes, options):
    """Return a network with random weights that maps `(n, 3, h, w)` to `(n, num_classes)`.

    Args:
        num_classes: outputs of the last layer.
        options: the width (`options.TinyNetOptions`).
    """
    a, b, c = (channels * options.tiny_width for channels in (16, 32, 64))
    return nn.Sequential(
        *_block(3, a, stride=2), *_block(a, b, stride=2), *_block(b, c, stride=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, num_classes))


def _block(channels, outputs, stride):
    # `--normlayer` replaces batch norm by the selected layer.
    return [nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
