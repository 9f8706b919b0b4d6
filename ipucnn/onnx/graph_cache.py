"""Stores exported graphs of built-in models, so that later runs neither export nor import torch.

A file is named by a digest of everything that it depends on: the network and its options, its
weights, the images that it takes, the engine, and the code that exports it. The least recently used
files are removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.core.bounded_folder import BoundedFolder, use
from ipucnn.core.documents import parsed_json
from ipucnn.core.environment import version_of
from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen
from ipucnn.core.files import cache_dir, expanded_path, private_folder
from ipucnn.core.options.composition import CommandOptions
from ipucnn.core.options.parts import NetworkPart, names_own, names_published
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.staging import staged
from ipucnn.data.remote.download import sha256
from ipucnn.models.built import BuiltModel, WeightsReport
from ipucnn.models.checkpoint_files import best_of
from ipucnn.models.weights_source import published_weights
from ipucnn.onnx import graph_facts
from ipucnn.onnx.embedded_metadata import Metadata
from ipucnn.onnx.engine_base import OnnxBackend
from ipucnn.onnx.engine_graph import Graph
from ipucnn.onnx.graph_facts import GraphFacts
from ipucnn.onnx.network import OnnxNetwork, read_network
from ipucnn.version import __version__

log = logging.getLogger("ipucnn.graphs")

KEPT_BYTES = 4 << 30
"""Maximum size of all stored graphs in bytes."""

_WEIGHTS = "ipucnn.run_weights"
"""Key of the report on the weights in the metadata of a stored graph."""

_CODE = ("onnx", "models", "plugins/models", "plugins/norm_layers", "plugins/backends")
_LIBRARIES = ("torch", "torchvision", "onnx", "efficientnet-pytorch", "pretrainedmodels")


@dataclass(frozen=True)
class StoredGraph:
    """The place of a network's exported graph.

    Attributes:
        path: the file, which may not exist yet.
        network: what is built.
        backend: the engine that runs it.
    """

    path: Path
    network: NetworkPart
    backend: OnnxBackend

    def read(self, registry: Registry) -> Optional[BuiltModel]:
        """Return the network in the file, or None if it cannot be read."""
        if not use(self.path):
            return None
        try:
            stored = read_network(self.path)
            report = WeightsReport(**_tuples(parsed_json(stored.facts.properties[_WEIGHTS])))
        except (IpucnnError, OSError, LookupError, TypeError, ValueError) as error:
            log.info("graph '%s' is not used: %s", self.path, error)
            return None
        spec = registry.get_typed(ModelSpec, self.network.model)
        card, source = stored.card, self.network.source
        if names_own(source):
            place = str(expanded_path(source))  # not that of the run that stored the graph
            report = replace(report, source=place, path=place)
            card = replace(card, provenance={**card.provenance, "weights": place})
        return BuiltModel(stored, spec, report, card)

    def discard(self, built: BuiltModel) -> bool:
        """Remove the file, which may be damaged, if the network was read from it.

        Returns:
            Whether the network can be exported again.
        """
        if not isinstance(built.module, OnnxNetwork):
            return False
        try:
            self.path.unlink()
        except OSError as error:
            log.info("graph '%s' cannot be removed: %s", self.path, error)
            return False
        return True

    def session(self, built: BuiltModel, plan: ExecutionPlan) -> InferenceSession:
        """Return a session of the network, and store its graph.

        Raises:
            UsageError: see `Backend.inference`.
        """
        graph = self.backend.graph(built.module, plan, built.input_size)
        if not isinstance(built.module, OnnxNetwork):
            try:
                self._store(graph, built, plan)
            except OSError as error:  # a full disk, or a folder that is not the user's
                log.info("the graph is not stored in '%s': %s", self.path, error)
        return self.backend.session(graph, plan)

    def _store(self, graph: Graph, built: BuiltModel, plan: ExecutionPlan) -> None:
        proto = graph.proto
        Metadata(built.card, plan.normalisation).embed(proto)
        entry = proto.metadata_props.add()
        entry.key, entry.value = _WEIGHTS, json.dumps(asdict(built.weights))
        private_folder(self.path.parent)
        with staged(self.path) as partial, open(partial, "wb") as file:
            file.write(proto.SerializeToString())
        use(self.path)
        BoundedFolder(self.path.parent, ("*.onnx",), most_bytes=KEPT_BYTES).make_room()
        graph_facts.keep(self.path, GraphFacts.of(proto, str(self.path)))
        graph.path = str(self.path)


def graph_of_run(chosen: Chosen, options: CommandOptions, network: NetworkPart,
                 plan: ExecutionPlan, registry: Registry) -> Optional[StoredGraph]:
    """Return the stored graph of a run's network; None if it is not stored.

    Only graphs of built-in models and norm layers, for engines that read files, are stored,
    because the code of other plugins can change without a change of their version.

    Args:
        chosen: the backend.
        options: of the run.
        network: what is built, with its number of outputs.
        plan: of this process.
        registry: where names are looked up.
    """
    backend = chosen.backend
    if not isinstance(backend, OnnxBackend) or not backend.runs_files or plan.pipeline_splits \
            or not (registry.is_builtin("model", network.model)
                    and registry.is_builtin("norm-layer", network.normlayer)):
        return None
    spec = registry.get_typed(ModelSpec, network.model)
    values: Dict[str, Any] = {
        **asdict(network), "weights": _weights(network, spec),
        "seed": options.get("seed") if _some_random(network) else None,
        "model options": repr(options.plugins.of("model", spec.name)),
        "norm options": repr(options.plugins.of("norm-layer", network.normlayer)),
        "images": [plan.normalisation, plan.eight_bit_io],
        "batch": None if backend.dynamic_batch else plan.micro_batch,
        # engines that read the same operators share a file
        "engine": repr(replace(backend.target, name="")), "code": _code()}
    if values["weights"] is None:
        return None
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    name = f"{spec.name.replace('/', '-')}-{digest[:32]}.onnx"
    return StoredGraph(cache_dir() / "graphs" / name, network, backend)


def _some_random(network: NetworkPart) -> bool:
    """Return whether weights can be random: all, those that a file lacks, or those of a new head.

    Without `--weights-partial`, only published weights may have another head.
    """
    return network.source == "random" or network.weights_partial \
        or (names_published(network.source) and network.num_classes is not None)


def _weights(network: NetworkPart, spec: ModelSpec) -> Optional[List[str]]:
    """Return an identifier of the weights, or None."""
    source = network.source
    if source == "random":
        return ["random"]
    published = published_weights(spec, source)
    if published is not None:
        return ["published", published.tag, published.url, published.sha256]
    path = expanded_path(source)
    if not path.is_file():
        return None
    # whether the moving average is used depends on the validations beside a checkpoint
    return ["file", sha256(path), repr(best_of(path.parent))]


@lru_cache(maxsize=None)
def _code() -> str:
    """Return a digest of the code that builds and exports models, and of its libraries."""
    root = Path(__file__).parents[1]
    state: List[Tuple[Any, ...]] = [(__version__,)]
    for folder in _CODE:
        for path in sorted((root / folder).rglob("*.py")):
            status = path.stat()
            state.append((str(path.relative_to(root)), status.st_size, status.st_mtime_ns))
    state += [(name, version) for name in _LIBRARIES for version in [version_of(name)] if version]
    return hashlib.sha256(repr(state).encode()).hexdigest()


def _tuples(values: Dict[str, Any]) -> Dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()}
