"""Stored measurements of backends for a network on this machine.

A record is a file named by a digest of what it depends on: the machine, the versions of the
engines, the network (not its weights or number of classes), batch, precision, pixels and given
options. Nothing here imports torch or an engine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from glob import glob
from importlib import metadata
from pathlib import Path
from typing import Any, Collection, Dict, Mapping, Optional, Tuple

from ipucnn.core.bounded_folder import keep_record, kept_record
from ipucnn.core.environment import nvidia_cards, processor
from ipucnn.core.errors import IpucnnError
from ipucnn.core.files import cache_dir
from ipucnn.core.machine import compute_threads, usable_cores
from ipucnn.core.names import flag_of, key
from ipucnn.core.options.attributes import CACHE
from ipucnn.core.options.owners import AUTO
from ipucnn.core.registry.records import BackendSpec, ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.inference.options import RunOptions
from ipucnn.models.weights_card import preprocessing_of
from ipucnn.onnx.network import find_file, read_network
from ipucnn.version import __version__

_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/ipu*", "/dev/dri/renderD*")
"""Device files of accelerators; if they change, another backend may be the fastest."""


@dataclass(frozen=True)
class Rate:
    """The speed of a backend with some of its options.

    Attributes:
        backend: its name.
        options: values of its options by name; the others are as given, or at their defaults.
        images_per_second: median over rounds.
        source: the version of the plugin that provides it.
    """

    backend: str
    options: Mapping[str, Any]
    images_per_second: float
    source: str = ""

    @property
    def flags(self) -> str:
        """Its options on the command line; may be empty."""
        return " ".join(_flag(name, value) for name, value in self.options.items())

    @property
    def label(self) -> str:
        """Its backend and options, as a name."""
        return f"{self.backend} {self.flags}".strip()

    @property
    def words(self) -> str:
        """The options of `ipucnn run` that select it."""
        return f"--backend {self.label}"


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag_of(name if value else "no_" + name)
    return f"{flag_of(name)} {value}"


@dataclass(frozen=True)
class Measured:
    """The result of a measurement.

    Attributes:
        precision: the ``compute.master`` pair in which all candidates computed.
        rates: in the order of preference without a measurement.
        left_out: why other backends were not measured, a line each.
        seconds: how long the measurement took.
        notes: about the measurement, for the user.
    """

    precision: str
    rates: Tuple[Rate, ...]
    left_out: Tuple[str, ...] = ()
    seconds: float = 0.0
    notes: Tuple[str, ...] = ()

    def best(self, without: Collection[str] = (), only: str = "") -> Optional[Rate]:
        """Return the fastest candidate, or None.

        Args:
            without: names of backends to leave out.
            only: the name of the only backend to consider.
        """
        rates = [rate for rate in self.rates if rate.backend not in without
                 and only in ("", rate.backend)]
        return max(rates, key=lambda rate: rate.images_per_second, default=None)

    def why(self, best: Rate, further: str = "") -> str:
        """Return the reason for a choice, with the options that make it without a measurement.

        Args:
            best: the choice.
            further: more options that belong to it.
        """
        others: Dict[str, float] = {}
        for rate in self.rates:
            if rate is not best:
                name = rate.backend if rate.backend != best.backend else rate.flags or "without"
                others[name] = max(others.get(name, 0.0), rate.images_per_second)
        ranked = sorted(others.items(), key=lambda item: -item[1])
        text = f"'{best.words}{further}': {_rounded(best.images_per_second)} images/s measured " \
               "on this machine"
        return text + (f" ({', '.join(f'{name} {_rounded(rate)}' for name, rate in ranked)})"
                       if ranked else "")


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


@dataclass(frozen=True)
class Record:
    """The place of a measurement.

    Attributes:
        path: the file, which may not exist yet.
        conditions: the conditions of the measurement.
    """

    path: Path
    conditions: Mapping[str, Any]

    @classmethod
    def of(cls, options: RunOptions, registry: Registry, backend: str) -> Record:
        """Return the record of a run.

        Args:
            options: of the run.
            registry: where names are looked up.
            backend: the only backend that is measured; `auto` for all of them.

        Raises:
            IpucnnError: the options name something that is missing.
        """
        if key(backend) != AUTO:
            backend = registry.get("backend", backend).name
        values = {"backend": key(backend), **_conditions(options, registry)}
        text = json.dumps(values, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return cls(cache_dir() / "tuning" / f"{digest[:32]}.json", json.loads(text))

    def read(self, registry: Registry) -> Optional[Measured]:
        """Return the stored measurement; None if there is none, or if it cannot be used."""
        with suppress(OSError, ValueError, IpucnnError, KeyError, TypeError, AttributeError):
            stored = kept_record(self.path)
            if stored["conditions"] != self.conditions:
                return None
            rates = tuple(Rate(str(one["backend"]), dict(one["options"]),
                               float(one["images_per_second"]), str(one["source"]))
                          for one in stored["rates"])
            if all(rate.images_per_second > 0 and source_of(rate.backend, registry) == rate.source
                   for rate in rates):
                notes = tuple(map(str, stored.get("notes", ())))  # earlier versions wrote none
                return Measured(str(stored["precision"]), rates, notes=notes)
        return None

    def write(self, measured: Measured) -> bool:
        """Store a measurement; return False if it cannot be written."""
        return keep_record(self.path, {"conditions": self.conditions, **asdict(measured)})


def source_of(backend: str, registry: Registry) -> str:
    """Return the version of the plugin that provides a backend.

    Raises:
        IpucnnError: there is no such backend.
    """
    provider = registry.provider_of(registry.get_typed(BackendSpec, backend))
    return f"{provider.distribution} {provider.version}"


def given_options(options: RunOptions) -> Dict[str, Any]:
    """Return the given options of backends, by name, without the folders of caches."""
    plugins = options.plugins
    rows = [(item, plugins.deferred[name]) for name, item in plugins.undecided.items()]
    rows += [(item, value) for kind, item, value in plugins.declared() if kind == "backend"]
    return {item.name: value for item, value in rows
            if value != item.default and item.option.role != CACHE}


def _conditions(options: RunOptions, registry: Registry) -> Dict[str, Any]:
    """Return the conditions that affect the speed of a run, as plain types."""
    execution = options.execution
    plan = options.plan(synthetic=False)
    return {
        "processor": processor(), "cores": usable_cores(), "threads": compute_threads(),
        "accelerators": [*sorted(path for pattern in _ACCELERATORS for path in glob(pattern)),
                         *nvidia_cards()],
        "visible": [os.environ.get("CUDA_VISIBLE_DEVICES")],
        "ipucnn": __version__, "engines": _engines(registry),
        "network": _network(options, registry),
        "plan": [plan.micro_batch, plan.device_iterations, plan.replicas, plan.stages,
                 plan.full_precision_norm, execution.precision],
        "given": given_options(options)}


def _network(options: RunOptions, registry: Registry) -> Dict[str, Any]:
    """Return a description of a network without its weights and number of outputs."""
    network = options.network
    if network.onnx:
        path = find_file(network.onnx, registry.get_typed(ModelSpec, network.model).name,
                         options.execution.batch_size)
        stored = read_network(path)
        return {"structure": stored.facts.structure, "size": stored.input_size,
                "batch": stored.batch}
    spec = registry.get_typed(ModelSpec, network.model)
    place, eight_bit = options.dataset.input
    return {
        "model": spec.name, "source": str(registry.provider_of(spec).version),
        "options": repr(options.plugins.of("model", spec.name)), "norm": network.normlayer,
        "norm options": repr(options.plugins.of("norm-layer", network.normlayer)),
        "size": preprocessing_of(network, registry).input_size,
        "padding": network.input_image_padding, "pixels": [place, eight_bit]}


def _engines(registry: Registry) -> Dict[str, Any]:
    """Return the versions of the modules that built-in backends require, without importing them."""
    found: Dict[str, Any] = {}
    for name in registry.names("backend"):
        for requirement in registry.get_typed(BackendSpec, name).requires:
            found[requirement.module] = _version(requirement.module)
    return found


def _version(module: str) -> Any:
    """Return the version of a module, or the time of its file if its distribution differs."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(module)
    with suppress(ImportError, ValueError, OSError):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin:
            return os.stat(spec.origin).st_mtime_ns
    return None
