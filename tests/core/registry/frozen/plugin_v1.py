"""A plugin as it was written for record contract 1. Never edit it: it must keep loading."""

import ipucnn
from ipucnn import hookimpl


@hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(
        name="frozen-model", aliases=("frozen_m",), summary="a model", target="json:loads",
        requires=(ipucnn.Requirement("json", "pip install json"),), api_version=1,
        family="frozen", input_size=64, num_classes=10, source="frozen",
        weights=(ipucnn.PublishedWeights(
            tag="v1", url="https://example.org/w-01234567.pth", sha256="01234567",
            licence="MIT", source="example", top1=70.5, top5=None),),
        options=(), zero_init_residual=False)]


@hookimpl
def ipucnn_datasets():
    return [ipucnn.DatasetSpec(
        name="frozen-dataset", summary="a dataset", target="json:loads", labelled=True,
        finite=True, on_device=False, needs_data_dir=False, layout="none")]


@hookimpl
def ipucnn_norm_layers():
    return [ipucnn.NormLayerSpec(
        name="frozen-norm-layer", summary="a norm layer", target="json:loads",
        batch_dependent=False, options=("eps",))]


@hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec(
        name="frozen-optimizer", summary="an optimizer", target="json:loads",
        hyperparameters=("momentum",))]


@hookimpl
def ipucnn_lr_schedules():
    return [ipucnn.ScheduleSpec(
        name="frozen-schedule", summary="a schedule", target="json:loads",
        parameters=("epochs",), formula="f(e) = 1")]


@hookimpl
def ipucnn_backends():
    return [ipucnn.BackendSpec(
        name="frozen-backend", summary="a backend", target=dict, inference=True, training=False,
        precisions=("16.16", "16.32", "32.32"), options=(), preference=-1, device="CPU")]
