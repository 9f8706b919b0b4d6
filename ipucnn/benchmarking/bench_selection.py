"""Selects the cases and the contenders of `ipucnn bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, List

from ipucnn.benchmarking import limits
from ipucnn.benchmarking.case import FILES, INFERENCE, LIMIT, OWN, PEER, TRAIN, Case, Contender
from ipucnn.benchmarking.network_options import NetworkBenchOptions
from ipucnn.core.errors import UsageError
from ipucnn.core.execution.offers import expected
from ipucnn.core.names import key
from ipucnn.core.options.assignment import options_for
from ipucnn.core.options.building import build
from ipucnn.core.options.owners import AUTO
from ipucnn.core.options.parts import NetworkPart
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.loading import GUARDED
from ipucnn.core.registry.records import BackendSpec, ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.models.weights_card import preprocessing_of


def cases_of(options: NetworkBenchOptions, registry: Registry) -> Iterator[Case]:
    """Yield what is measured, network by network.

    Raises:
        UsageError: an unknown network, or no such folder.
    """
    networks, images = options.networks, options.images
    if images.data_dir is not None and not Path(images.data_dir).is_dir():
        raise UsageError(f"there is no folder {images.data_dir!r}",
                         "name a folder of JPEG files with '--data-dir'")
    for name in networks.model:
        model = registry.get_typed(ModelSpec, name).name
        for precision in options.precisions:
            for batch_size in options.batch_sizes:
                yield Case(
                    model, batch_size, precision, TRAIN if networks.train else INFERENCE,
                    FILES if images.data_dir else images.data, _preprocessing(model, registry),
                    images.data_dir or "", images.samples)


def _preprocessing(model: str, registry: Registry) -> Preprocessing:
    return preprocessing_of(build(NetworkPart, {"model": model, "weights": "random"}), registry)


def contenders_of(options: NetworkBenchOptions, registry: Registry) -> List[Contender]:
    """Return the contenders: backends, other programs, and limits.

    Raises:
        UsageError: an unknown backend, or one that does not do this.
    """
    train = options.networks.train
    names = [AUTO if key(name) == AUTO else registry.get_typed(BackendSpec, name).name
             for name in options.contenders.backend]
    for name in names:
        if name != AUTO and not _does(registry.get_typed(BackendSpec, name), train):
            raise UsageError(f"backend {name!r} does not {'train' if train else 'run inference'}",
                             "leave it out")
    peers = [peer for name in options.contenders.against
             for peer in (("openvino-latency", "openvino-throughput") if name == "openvino"
                          else (name,))]
    found = [Contender(OWN, name) for name in names or _usable(train, registry)]
    found += [Contender(PEER, name) for name in peers]
    found.append(Contender(LIMIT, limits.PRODUCT))
    if options.images.data_dir:
        found.append(Contender(LIMIT, limits.DECODING))
    return list(dict.fromkeys(found))


def _does(spec: BackendSpec, train: bool) -> bool:
    return spec.training if train else spec.inference


def _usable(train: bool, registry: Registry) -> List[str]:
    """Return the backends that can be used here, best first."""
    specs = [registry.get_typed(BackendSpec, name) for name in registry.names("backend")]
    found = []
    for spec in sorted((spec for spec in specs if _does(spec, train)),
                       key=lambda spec: -expected(spec)):
        try:
            usable = registry.make(
                spec, options=options_for(spec, "backend", {}, registry)).probe().usable
        except GUARDED:
            usable = False
        if usable:
            found.append(spec.name)
    return found
