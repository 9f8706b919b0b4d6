"""The backend of a run, and refused options."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from dataclasses import replace

import pytest

from ipucnn.core.errors import PluginError, UnavailableError, UsageError
from ipucnn.core.execution.backend import Probe
from ipucnn.core.execution.offers import check_offer, expected
from ipucnn.core.execution.selection import choose_backend, validating
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import common_options
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.options.profiles import resolve
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.inference.options import RunOptions
from ipucnn.training.options.train_options import TrainOptions

PLUGIN = """
    from ipucnn import BackendSpec, hookimpl
    from ipucnn.core.execution.backend import Backend, Probe

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
    options = build(RunOptions, values, registry=registry)
    spec = registry.get_typed(BackendSpec, backend)
    check_offer(options, options.plan(synthetic=False), spec, registry)


def _chosen(registry, trains=False, options_class=RunOptions, **values):
    options = build(options_class, values, registry=registry)
    return choose_backend(options, options.plan(synthetic=False), registry, trains=trains)


def _ranks(registry):
    """The usable built-in backends and their ranks."""
    ranks = {}
    for name in registry.names("backend"):
        with contextlib.suppress(UnavailableError):
            chosen = _chosen(registry, backend=name, precision="full")
            ranks[name] = chosen.probe.preference or chosen.spec.preference
    return ranks


def test_auto_takes_the_usable_backend_of_the_highest_rank_with_a_reason(registry):
    chosen = _chosen(registry, precision="full")
    ranks = _ranks(registry)
    assert ranks[chosen.spec.name] == max(ranks.values())
    assert "best usable backend" in chosen.why
    assert "not usable here: poptorch" in chosen.why
    assert "onnxruntime" not in chosen.why
    assert _chosen(registry, backend="TORCH").why == ""


def test_the_rank_of_an_engine_that_is_not_imported_is_foreseen(tmp_path, monkeypatch):
    (tmp_path / "slow_abacus.py").write_text("def foreseen():\n    return 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = BackendSpec(name="slow", summary="takes long to import", target="slow_abacus:Engine",
                       requires=(Requirement("slow_abacus_engine", "make one"),), preference=9)
    assert expected(spec) == 9
    spec = replace(spec, foreseen="slow_abacus:foreseen")
    assert expected(spec) == 3
    monkeypatch.setitem(sys.modules, "slow_abacus_engine", sys)
    assert expected(spec) == 9  # it is imported already, and probed
    with pytest.raises(PluginError, match="foreseen"):
        replace(spec, foreseen="slow_abacus")


def test_auto_skips_backends_without_a_requested_feature(registry):
    chosen = _chosen(registry, precision="full", pipeline_splits=("layer2",), device_iterations=2)
    assert chosen.spec.name == "torch"
    assert "onnxruntime" in chosen.why.partition("without a requested feature: ")[2]


def test_auto_considers_only_backends_that_own_the_options_given(registry):
    chosen = _chosen(registry, precision="full", compile=True)
    assert chosen.spec.name == "torch"
    assert chosen.backend is not None
    assert "onnxruntime" not in chosen.why
    with pytest.raises(UnavailableError) as caught:
        _chosen(registry, half_partial=True)
    assert "'--half-partial' is an option of backends popart, poptorch" in caught.value.message
    assert "poptorch: " in caught.value.hint
    with pytest.raises(UsageError) as caught:
        _chosen(registry, half_partial=True, compile=True)
    assert "'--half-partial' is an option of backends popart, poptorch; '--compile' is an " in (
        caught.value.message)


def test_the_options_of_a_backend_reach_it(registry):
    given = _chosen(registry, backend="torch", device="cpu", compile=True).backend.options
    assert (given.device, given.compile) == ("cpu", True)
    deferred = _chosen(registry, device="cpu", compile=True).backend.options
    assert (deferred.device, deferred.compile) == ("cpu", True)


def test_auto_does_not_look_at_backends_that_cannot_be_better(registry, monkeypatch):
    from ipucnn.plugins.backends.openvino.engine import OpenVinoBackend
    from ipucnn.plugins.backends.torch.engine import TorchBackend

    monkeypatch.setattr(OpenVinoBackend, "__init__", None)
    monkeypatch.setattr(TorchBackend, "probe", lambda _: Probe(usable=True))  # as on CUDA
    monkeypatch.setattr(TorchBackend, "probe_for", lambda *_: Probe(usable=True))
    assert _chosen(registry, precision="full").spec.name == "torch"


def test_figures_of_checkpoints_come_from_a_backend_that_trains(registry):
    assert _chosen(registry, trains=True).spec.training


def test_auto_takes_a_backend_that_reads_onnx_for_a_file(registry):
    assert _chosen(registry, onnx="model.onnx").spec.onnx


def test_a_backend_without_its_device_is_an_error_and_never_replaced(registry):
    with pytest.raises(UnavailableError) as caught:
        _chosen(registry, backend="absent")
    assert "the abacus has no beads" in caught.value.message
    assert "buy beads" in caught.value.hint
    named = caught.value.hint.partition("--backend ")[2].partition("'")[0]
    assert named in _ranks(registry)
    assert caught.value.exit_code == 2


def test_the_backend_that_a_hint_names_supports_the_request(registry):
    with pytest.raises(UnavailableError) as caught:
        _chosen(registry, options_class=TrainOptions, backend="absent")
    assert "--backend torch" in caught.value.hint


def test_a_precision_that_the_device_lacks_is_refused(registry):
    with pytest.raises(UsageError) as caught:
        _check(registry, "picky", precision="half")
    assert "'picky' does not compute in precision '16.16'" in caught.value.message
    assert "32.32" in caught.value.hint
    _check(registry, "picky", precision="full")


def test_every_option_the_backend_lacks_is_named_with_who_has_it(registry):
    with pytest.raises(UsageError) as caught:
        build(RunOptions, {"backend": "torch", "half_partial": True,
                           "available_memory_proportion": [0.2]}, registry=registry)
    assert caught.value.message == (
        "'--half-partial', '--available-memory-proportion' are options of backends popart, "
        "poptorch; this run uses torch")
    assert caught.value.hint == "leave them out, or choose '--backend popart'"


def test_every_feature_the_backend_lacks_is_named_with_who_has_it(registry):
    with pytest.raises(UsageError) as caught:
        _check(registry, "picky", precision="full", compile_only=True, full_precision_norm=True)
    assert "'--full-precision-norm', '--compile-only' are not options of backend 'picky'" in (
        caught.value.message)
    assert "--full-precision-norm is for backend poptorch, torch" in caught.value.hint


def test_a_users_profile_of_ipus_runs_elsewhere_without_its_options(registry, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: resnet50\nbatch_size: 90\nhalf_partial: true\n")
    given = {"config": str(path), "backend": "torch"}
    with pytest.raises(UsageError) as caught:
        resolve(RunOptions, given)
    assert "'--half-partial' is an option of backends popart, poptorch; this run uses torch " in (
        caught.value.message)
    assert "(mine.yaml, line 3)" in caught.value.message
    assert "to run the profile without, add '--no-half-partial'" in caught.value.hint
    assert resolve(RunOptions, {**given, "half_partial": False}).execution.batch_size == 90


def test_common_options_need_features_that_a_backend_has(registry):
    """No option is for every backend to refuse."""
    needed = {item.option.feature for command in (RunOptions, TrainOptions)
              for item in common_options(command) if item.option.feature}
    offered = {feature for feature in needed for name in registry.names("backend")
               if registry.get("backend", name).has(feature)}
    assert needed == offered


def test_options_of_backends_are_limited_to_jobs_that_they_do(registry):
    for owner in builtin_owners(["backend"], registry):
        for item in declared(owner.options):
            assert not item.option.feature, item.flag
            if item.option.only:
                assert getattr(owner.spec, item.option.only), (owner.spec.name, item.flag)
            if item.option.validation:
                assert item.option.only != "training", item.flag


def test_training_options_are_refused_in_a_run(registry):
    with pytest.raises(UsageError) as caught:
        build(RunOptions, {"backend": "poptorch", "auto_loss_scaling": True}, registry=registry)
    assert "'--auto-loss-scaling' is an option of backends popart, poptorch (training only)" in (
        caught.value.message)
    options = build(TrainOptions, {"backend": "poptorch", "auto_loss_scaling": True},
                    registry=registry)
    assert options.plugins.value("auto_loss_scaling") is True


def test_a_validation_uses_the_options_that_hold_for_it(registry):
    options = build(TrainOptions, {"backend": "torch", "device": "cpu", "compile": True},
                    registry=registry)
    chosen = choose_backend(options, options.plan(synthetic=False), registry)
    own = validating(chosen, options, options.validation_plan(), registry).options
    for item in declared(type(own)):
        wanted = chosen.backend.options if item.option.validation else type(own)()
        assert getattr(own, item.name) == getattr(wanted, item.name)
    assert own.device == "cpu"
