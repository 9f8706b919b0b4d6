"""The hooks, which return the records of all plugins. Imports nothing but ipucnn."""

import ipucnn

HERE = "ipucnn_example_plugin"


@ipucnn.hookimpl
def ipucnn_models():
    """Return the record of the model."""
    return [ipucnn.ModelSpec(
        name="tinynet", summary="three convolutions, for small images",
        target=HERE + ".model:build", family="tinynet", input_size=64, num_classes=10,
        options=HERE + ".options:TinyNetOptions")]


@ipucnn.hookimpl
def ipucnn_datasets():
    """Return the record of the dataset."""
    return [ipucnn.DatasetSpec(
        name="stripes", summary="generated stripes: horizontal, vertical or diagonal",
        target=HERE + ".dataset:Stripes", labelled=True,
        options=HERE + ".options:StripesOptions")]


@ipucnn.hookimpl
def ipucnn_norm_layers():
    """Return the record of the norm layer."""
    return [ipucnn.NormLayerSpec(
        name="instance", summary="instance normalisation: each channel of each image separately",
        target=HERE + ".norm_layer:build", options=HERE + ".options:InstanceNormOptions")]


@ipucnn.hookimpl
def ipucnn_optimizers():
    """Return the record of the optimizer."""
    return [ipucnn.OptimizerSpec(
        name="signsgd", summary="steps of a fixed size against the sign of the gradient",
        target=HERE + ".optimizer:build", options=HERE + ".options:SignSGDOptions")]


@ipucnn.hookimpl
def ipucnn_lr_schedules():
    """Return the record of the schedule."""
    return [ipucnn.ScheduleSpec(
        name="triangular", summary="linear increase to the middle of the training, then decrease",
        target=HERE + ".schedule:factor", formula="f(e) = 1 - |2 e / epochs - 1|, at least 0")]


@ipucnn.hookimpl
def ipucnn_backends():
    """Return the record of the backend."""
    return [ipucnn.BackendSpec(
        name="reference", summary="eager torch on the CPU, as a reference",
        target=HERE + ".backend:Reference", device="CPU", precisions=("32.32",),
        options=HERE + ".options:ReferenceOptions")]
