"""The hooks: what this distribution offers. Imports nothing but ipucnn."""

import ipucnn

HERE = "ipucnn_example_plugin"


@ipucnn.hookimpl
def ipucnn_models():
    """Offer one model."""
    return [ipucnn.ModelSpec(
        name="tinynet", summary="three convolutions, for small images",
        target=HERE + ".model:build", family="tinynet", input_size=64, num_classes=10,
        options=HERE + ".options:TinyNetOptions")]


@ipucnn.hookimpl
def ipucnn_datasets():
    """Offer one dataset."""
    return [ipucnn.DatasetSpec(
        name="stripes", summary="drawn stripes: horizontal, vertical or diagonal",
        target=HERE + ".dataset:Stripes", labelled=True,
        options=HERE + ".options:StripesOptions")]


@ipucnn.hookimpl
def ipucnn_norm_layers():
    """Offer one norm layer."""
    return [ipucnn.NormLayerSpec(
        name="instance", summary="each channel of each image by itself",
        target=HERE + ".norm_layer:build", options=HERE + ".options:InstanceNormOptions")]


@ipucnn.hookimpl
def ipucnn_optimizers():
    """Offer one optimizer."""
    return [ipucnn.OptimizerSpec(
        name="signsgd", summary="steps of a fixed size against the sign of the gradient",
        target=HERE + ".optimizer:build", options=HERE + ".options:SignSGDOptions")]


@ipucnn.hookimpl
def ipucnn_lr_schedules():
    """Offer one schedule."""
    return [ipucnn.ScheduleSpec(
        name="triangular", summary="up to the middle of the training, then down",
        target=HERE + ".schedule:factor", formula="f(e) = 1 - |2 e / epochs - 1|, at least 0")]


@ipucnn.hookimpl
def ipucnn_backends():
    """Offer one backend."""
    return [ipucnn.BackendSpec(
        name="reference", summary="plain eager torch on the CPU, to compare with",
        target=HERE + ".backend:Reference", device="CPU", precisions=("32.32",),
        options=HERE + ".options:ReferenceOptions")]
