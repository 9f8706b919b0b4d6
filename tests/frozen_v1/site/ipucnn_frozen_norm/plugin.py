"""The hooks: what this distribution offers. Imports no torch."""

from typing import List

import ipucnn


@ipucnn.hookimpl
def ipucnn_norm_layers() -> List[ipucnn.NormLayerSpec]:
    """Return the norm layer."""
    return [ipucnn.NormLayerSpec(
        name="frozen-norm", summary="each channel of each image by itself",
        target="ipucnn_frozen_norm.norm_layer:build_norm_layer", batch_dependent=False,
        options="ipucnn_frozen_norm.options:NormLayerOptions")]
