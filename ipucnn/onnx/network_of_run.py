"""The ONNX file that a run was given instead of a network of the registry."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options import RunOptions
from ipucnn.core.registry.records import ModelSpec
from ipucnn.models.build import BuiltModel
from ipucnn.models.weights import WeightsReport
from ipucnn.onnx.network import OnnxNetwork, check_batch, find_file, read_network


@dataclass(frozen=True)
class StoredNetwork:
    """A model file in the places of a registry's network.

    Attributes:
        built: stands for the built model.
    """

    built: BuiltModel

    @property
    def spec(self) -> ModelSpec:
        """A record of what the file holds."""
        return self.built.spec

    def fitted(self, plan: ExecutionPlan) -> ExecutionPlan:
        """Return the plan with images as the file takes them.

        Raises:
            UsageError: the file takes another number of images, or has less than the precision.
        """
        network = self.built.module
        assert isinstance(network, OnnxNetwork)
        check_batch(network, plan.micro_batch)
        if network.half_weights and not plan.half:
            raise UsageError(f"the weights in '{network.path}' are in half precision, not "
                             f"{plan.precision!r}", "use '--precision half', or export it again")
        return replace(plan, normalisation=network.normalisation,
                       eight_bit_io=network.input_type == "uint8")


def read_stored(options: RunOptions, model: ModelSpec) -> Optional[StoredNetwork]:
    """Return the network in the file of `--onnx`, or None without it.

    Args:
        options: of the run.
        model: what `--model` names, by which a file is found in a folder.

    Raises:
        DataError: there is no file, or it cannot be read.
    """
    if options.onnx is None:
        return None
    path = find_file(options.onnx, model.name, options.batch_size)
    network = read_network(path)
    if network.normalisation == "host" and network.input_type == "uint8":
        raise UsageError(f"'{path}' takes bytes and says that the host normalises them",
                         "export it again")
    name = re.sub(r"[^a-z0-9._-]+", "-", network.name.lower()).strip("-._") or "onnx"
    spec = ModelSpec(name=name, summary=f"ONNX file {path.name}", target=lambda **_: network,
                     input_size=network.input_size, num_classes=network.num_classes,
                     family="onnx", source=str(path))
    return StoredNetwork(BuiltModel(
        network, spec, WeightsReport(source=str(path)), network.input_size, network.num_classes,
        network.metadata.class_names))
