"""Provides the network of a run that uses an ONNX file instead of the registry."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import List, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.parts import NetworkPart
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data.remote.download import sha256
from ipucnn.models.built import BuiltModel, WeightsReport
from ipucnn.models.weights_card import preprocessing_of
from ipucnn.onnx.network import OnnxNetwork, check_batch, find_file, read_network


@dataclass(frozen=True)
class StoredNetwork:
    """A model file used in place of a registry's network.

    Attributes:
        built: the file as a built model.
    """

    built: BuiltModel

    @property
    def batch(self) -> Optional[int]:
        """Images per call; None if any number is accepted."""
        network = self.built.module
        assert isinstance(network, OnnxNetwork)
        return network.batch

    @property
    def notes(self) -> List[str]:
        """Notes for the user."""
        network, images = self.built.module, self.built.preprocessing
        assert isinstance(network, OnnxNetwork)
        if not images.assumed or network.input_type == "uint8":
            return []
        return [f"'{network.path}' does not state its preprocessing, so that of most ImageNet "
                f"models is assumed: {replace(images, assumed=False).summary()}"]

    def fitted(self, plan: ExecutionPlan) -> ExecutionPlan:
        """Return the plan with the file's image format.

        Raises:
            UsageError: the file has another batch size, or a lower precision than the plan.
        """
        network = self.built.module
        assert isinstance(network, OnnxNetwork)
        check_batch(network, plan.micro_batch)
        if network.half_weights and not plan.half:
            raise UsageError(f"the weights in '{network.path}' are in half precision, not "
                             f"{plan.precision!r}", "use '--precision half', or export it again")
        return replace(plan, normalisation=network.normalisation,
                       preprocessing=network.card.preprocessing,
                       eight_bit_io=network.input_type == "uint8")


def read_stored(place: Optional[str], model: ModelSpec, batch_size: int
                ) -> Optional[StoredNetwork]:
    """Return the network in an ONNX file, or None when none is named.

    Args:
        place: the file, or a folder written by 'ipucnn export'.
        model: the model, for a folder.
        batch_size: the batch size, for a folder.

    Raises:
        DataError: there is no file, or it cannot be read.
        UsageError: its metadata do not fit its input type.
    """
    if place is None:
        return None
    path = find_file(place, model.name, batch_size)
    network = read_network(path)
    if network.normalisation == "host" and network.input_type == "uint8":
        raise UsageError(f"'{path}' takes bytes, but its metadata leave normalisation to the "
                         "host",
                         "export it again")
    name = re.sub(r"[^a-z0-9._-]+", "-", network.name.lower()).strip("-._") or "onnx"
    spec = ModelSpec(name=name, summary=f"ONNX file {path.name}", target=lambda **_: network,
                     input_size=network.input_size, num_classes=network.num_outputs,
                     family="onnx", source=str(path))
    report = WeightsReport(source=str(path), path=str(path), sha256=sha256(path),
                           loaded=network.facts.tensors)
    return StoredNetwork(BuiltModel(
        network, spec, report, replace(network.card, model=spec.name)))


def preprocessing_of_run(stored: Optional[StoredNetwork], network: NetworkPart,
                         registry: Registry) -> Preprocessing:
    """Return the preprocessing of an ONNX file, or of a network of the registry if there is none.

    Raises:
        UsageError, WeightsError: see `preprocessing_of`.
    """
    return stored.built.preprocessing if stored else preprocessing_of(network, registry)
