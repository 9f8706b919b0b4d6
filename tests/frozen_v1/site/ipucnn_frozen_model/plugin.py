"""The hooks: what this distribution offers. Imports no torch."""

from typing import List

import ipucnn


@ipucnn.hookimpl
def ipucnn_models() -> List[ipucnn.ModelSpec]:
    """Return the model."""
    return [ipucnn.ModelSpec(
        name="frozen-model", summary="a network of three convolutions",
        target="ipucnn_frozen_model.model:build_model", family="frozen-model", input_size=64, num_classes=10,
        options="ipucnn_frozen_model.options:ModelOptions")]
