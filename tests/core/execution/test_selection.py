"""Which backend a run gets, and what it refuses."""

from __future__ import annotations

import contextlib
import textwrap

import pytest

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.plan import Probe
from ipucnn.core.execution.selection import check_offer, choose_backend
from ipucnn.core.options import COMMANDS, RunOptions, TrainOptions
from ipucnn.core.options.declaration import build
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import Registry

PLUGIN = """
    from ipucnn import BackendSpec, hookimpl
    from ipucnn.core.execution.plan import Backend, Probe

    class Picky(Backend):
        def probe(self):
            return Probe(usable=True, device="abacus")

    class Absent(Backend):
        def probe(self):
            return Probe(usable=False, reason="the abacus has no beads", remedy="buy beads")

    @hookimpl
    def ipucnn_backends():
        return [
            BackendSpec(name="picky", summary="full precision only", target=Picky),
            BackendSpec(name="absent", summary="no device", target=Absent, preference=99),
        ]
"""


@pytest.fixture
def registry(tmp_path):
    plugin = tmp_path / "abacus.py"
    plugin.write_text(textwrap.dedent(PLUGIN))
    return Registry(PluginSettings(extra=(str(plugin),)))


def _check(registry, backend, **values):
    options = build(RunOptions, values)
    spec = registry.get_typed(BackendSpec, backend)
    check_offer(options, options.plan(synthetic=False), spec, registry)


def _ranks(registry):
    """The usable built-in backends and their ranks."""
    ranks = {}
    for name in registry.names("backend"):
        with contextlib.suppress(UnavailableError):
            chosen = choose_backend(name, registry)
            ranks[name] = chosen.probe.preference or chosen.spec.preference
    return ranks


def _chosen(registry, **values):
    options = build(RunOptions, values)
    return choose_backend("auto", registry, options.plan(synthetic=False), options)


def test_auto_takes_the_usable_backend_of_the_highest_rank_and_says_why(registry):
    chosen = choose_backend("auto", registry)
    ranks = _ranks(registry)
    assert ranks[chosen.spec.name] == max(ranks.values())
    assert "best backend usable here" in chosen.why
    assert "not usable: poptorch" in chosen.why
    assert "onnxruntime" not in chosen.why
    assert choose_backend("TORCH", registry).why == ""


@pytest.mark.parametrize("asked", [
    {"compile": True}, {"pipeline_splits": ("layer2",), "device_iterations": 2}])
def test_auto_passes_over_backends_that_lack_what_is_asked_for(registry, asked):
    chosen = _chosen(registry, precision="full", **asked)
    assert chosen.spec.name == "torch"
    assert "onnxruntime" in chosen.why.partition("without what is asked for: ")[2]


def test_auto_does_not_look_at_backends_that_cannot_be_better(registry, monkeypatch):
    from ipucnn.plugins.backends.openvino.engine import OpenVinoBackend
    from ipucnn.plugins.backends.torch.engine import TorchBackend

    monkeypatch.setattr(OpenVinoBackend, "__init__", None)
    monkeypatch.setattr(TorchBackend, "probe", lambda _: Probe(usable=True))  # as on CUDA
    assert choose_backend("auto", registry).spec.name == "torch"


def test_figures_of_checkpoints_come_from_a_backend_that_trains(registry):
    assert choose_backend("auto", registry, trains=True).spec.training


def test_auto_takes_a_backend_that_reads_onnx_for_a_file(registry):
    assert _chosen(registry, onnx="model.onnx").spec.onnx


def test_a_backend_without_its_device_is_an_error_and_never_replaced(registry):
    with pytest.raises(UnavailableError) as caught:
        choose_backend("absent", registry)
    assert "the abacus has no beads" in caught.value.message
    assert "buy beads" in caught.value.hint
    named = caught.value.hint.partition("--backend ")[2].partition("'")[0]
    assert named in _ranks(registry)
    assert caught.value.exit_code == 2


def test_the_backend_that_a_hint_offers_can_do_what_is_asked_for(registry):
    options = build(TrainOptions, {})
    with pytest.raises(UnavailableError) as caught:
        choose_backend("absent", registry, options.plan(synthetic=False), options)
    assert "--backend torch" in caught.value.hint


def test_a_precision_that_the_device_lacks_is_refused(registry):
    with pytest.raises(UsageError) as caught:
        _check(registry, "picky", precision="half")
    assert "'picky' does not compute in precision '16.16'" in caught.value.message
    assert "32.32" in caught.value.hint
    _check(registry, "picky", precision="full")


def test_every_option_the_backend_lacks_is_named_with_who_has_it(registry):
    with pytest.raises(UsageError) as caught:
        _check(registry, "torch", half_partial=True, available_memory_proportion=[0.2])
    assert "'--half-partial', '--available-memory-proportion' are not options" in (
        caught.value.message)
    assert "--half-partial is for backend poptorch" in caught.value.hint


@pytest.mark.parametrize("option", sorted({
    name for backend in ("torch", "poptorch")
    for name in (*Registry().get("backend", backend).options,
                 *Registry().get("backend", backend).training_options)}))
def test_options_that_backends_claim_exist(option):
    assert hasattr(TrainOptions(), option)


def test_no_backend_option_is_without_a_backend():
    from ipucnn.core.options.declaration import declared

    registry = Registry()
    claimed = {name for backend in registry.names("backend")
               for name in (*registry.get("backend", backend).options,
                            *registry.get("backend", backend).training_options)}
    # of PopART, whose backend is not there yet
    awaited = {"ipu_model", "max_bytes_per_tile", "syncless_collectives"}
    assert {item.name for command in COMMANDS.values() for item in declared(command)
            if item.option.backend_option} == claimed | awaited
