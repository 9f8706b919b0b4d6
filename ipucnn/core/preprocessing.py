"""The preprocessing of images for a network: size, crop, interpolation, and normalisation."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Dict, Mapping, Tuple

from ipucnn.core.errors import PluginError
from ipucnn.core.names import brief

Channels = Tuple[float, float, float]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
"""Mean of ImageNet's red, green and blue on a scale of 0 to 1 (torchvision's documentation)."""

IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
"""Standard deviation of the same."""

RESIZES = ("shortest", "squash")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")
CHANNEL_ORDERS = ("rgb", "bgr")

LARGEST_INPUT = 16384
"""Largest height and width of an input in pixels."""

LEAST_CROP = 0.01
LARGEST_NUMBER = 1e9
"""Limits of the other numbers; a file with larger ones is damaged."""

_HALF_SIZES = {224: 160, 380: 252}
"""Input sizes of half-resolution training in the old application."""


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of images for a network; validated on construction.

    The defaults are the usual evaluation of ImageNet models: the shorter side is resized to 256
    pixels for a central crop of 224, and pixels are normalised with ImageNet's mean and standard
    deviation.

    Attributes:
        input_size: height and width of the input in pixels.
        crop_fraction: the input size relative to the size that images are resized to, from 0.01
            to 1; the input is the centre of the resized image.
        resize: `shortest` resizes the shorter side and keeps the aspect ratio, `squash` both sides.
        interpolation: `bilinear`, `bicubic`, `lanczos` or `nearest`; all except `nearest` are
            antialiased.
        mean: subtracted from each channel, in the order and range of the network's input.
        std: divisor of each channel after the subtraction.
        channel_order: `rgb`, or `bgr` for networks converted from Caffe.
        value_range: the values of black and white before `mean` is subtracted.
        assumed: whether the values are the usual ones, because the publisher states none.

    Raises:
        PluginError: a value is out of range.
    """

    input_size: int = 224
    crop_fraction: float = 0.875
    resize: str = "shortest"
    interpolation: str = "bilinear"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    channel_order: str = "rgb"
    value_range: Tuple[float, float] = (0.0, 1.0)
    assumed: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std", "value_range"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple)):
                object.__setattr__(self, name, tuple(value))
        self._check("input_size", type(self.input_size) is int
                    and 0 < self.input_size <= LARGEST_INPUT,
                    f"a number of pixels from 1 to {LARGEST_INPUT}")
        self._check("crop_fraction",
                    _number(self.crop_fraction) and LEAST_CROP <= self.crop_fraction <= 1,
                    f"a number from {LEAST_CROP} to 1")
        for name, allowed in (("resize", RESIZES), ("interpolation", INTERPOLATIONS),
                              ("channel_order", CHANNEL_ORDERS)):
            self._check(name, getattr(self, name) in allowed, "one of " + ", ".join(allowed))
        self._check("mean", _numbers(self.mean, 3), "three numbers")
        self._check("std", _numbers(self.std, 3) and all(value > 0 for value in self.std),
                    "three positive numbers")
        self._check("value_range", _numbers(self.value_range, 2)
                    and self.value_range[0] < self.value_range[1], "two numbers, ascending")
        self._check("assumed", isinstance(self.assumed, bool), "true or false")

    def _check(self, name: str, ok: bool, wanted: str) -> None:
        if not ok:
            raise PluginError(f"bad preprocessing: {name} is {brief(getattr(self, name))}, "
                              f"expected {wanted}")

    @property
    def resize_size(self) -> int:
        """Pixels to which the image is resized before the crop."""
        return int(self.input_size / self.crop_fraction + 1e-6)  # 224 / (224/232) is 231.99...

    def sized(self, input_size: int) -> Preprocessing:
        """Return the preprocessing for another input size."""
        return self if input_size == self.input_size else replace(self, input_size=input_size)

    def without_normalisation(self) -> Preprocessing:
        """Return the preprocessing of a network with inputs from 0 to 255."""
        return replace(self, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), value_range=(0.0, 255.0))

    def summary(self) -> str:
        """Return a summary in one line."""
        crop = f"centre of {self.resize_size}" if self.crop_fraction < 1 else "whole"
        order = "" if self.channel_order == "rgb" else f", {self.channel_order}"
        return (f"{self.input_size} pixels ({crop}, {self.resize}, {self.interpolation}), "
                f"mean {_shown(self.mean)}, std {_shown(self.std)}{order}"
                + (" (assumed)" if self.assumed else ""))

    def as_plain(self) -> Dict[str, Any]:
        """Return the fields as plain types, for files."""
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing from `as_plain`; unknown fields of newer versions are ignored.

        Raises:
            PluginError: a value is out of range.
        """
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def half_size(input_size: int) -> int:
    """Return the input size of half-resolution training in pixels, a multiple of 4.

    Args:
        input_size: the full size in pixels.
    """
    return _HALF_SIZES.get(input_size, max(8, round(input_size * 5 / 7 / 4) * 4))


def _number(value: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and -LARGEST_NUMBER <= value <= LARGEST_NUMBER)


def _numbers(value: Any, count: int) -> bool:
    return isinstance(value, tuple) and len(value) == count and all(map(_number, value))


def _shown(values: Channels) -> str:
    return " ".join(f"{value:.4g}" for value in values)
