"""Constants shared by several modules; imports nothing."""

from __future__ import annotations

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's red, green and blue on a scale of 0 to 1 (torchvision's documentation)."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the same."""
