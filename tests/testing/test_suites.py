"""The suites themselves: each check fails for a plugin that breaks what it is about."""

import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from torch import nn

import ipucnn
from ipucnn.core.errors import UnknownNameError, UsageError
from ipucnn.core.execution.plan import Backend, InferenceSession, Probe
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry
from ipucnn.data import ImageDataset
from ipucnn.models.normalisation import normalise
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.testing import check_distribution, check_named, check_plugin
from ipucnn.testing.suite import checks

HERE = sys.modules[__name__]
HOOKS = {ipucnn.ModelSpec: ("model", "ipucnn_models"),
         ipucnn.DatasetSpec: ("dataset", "ipucnn_datasets"),
         ipucnn.NormLayerSpec: ("norm-layer", "ipucnn_norm_layers"),
         ipucnn.OptimizerSpec: ("optimizer", "ipucnn_optimizers"),
         ipucnn.ScheduleSpec: ("schedule", "ipucnn_lr_schedules"),
         ipucnn.BackendSpec: ("backend", "ipucnn_backends")}


@pytest.fixture
def failures(fake_distribution):
    """Check a target as a plugin of a kind; return the checks that did not pass."""

    def run(record, target, suite=None, **fields):
        kind, hook = HOOKS[record]
        # The target reaches the plugin through this module, as a callable needs no import.
        HERE.under_test = record(name="mine", summary="s", target=target, **fields)
        fake_distribution("mine-dist", {"mine_plugin.py": f"""
            import sys, ipucnn
            @ipucnn.hookimpl
            def {hook}():
                return [sys.modules[{__name__!r}].under_test]
            """}, {"anything": "mine_plugin"})
        results = check_plugin(kind, "mine", Registry(PluginSettings()), **(suite or {}))
        return {check: result for check, result in results.items() if result != "passed"}

    return run


# -- models ------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, num_classes)

    def forward(self, images):
        return self.head(self.conv(images).mean((2, 3)))


class FixedClasses(Net):
    def __init__(self, num_classes):
        super().__init__(10)


class Random(Net):
    def forward(self, images):
        return super().forward(images) + torch.rand(())


class Mixing(Net):
    def forward(self, images):
        logits = super().forward(images)
        return logits + logits.mean(0, keepdim=True)


class Forgetful(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.hidden = torch.rand(num_classes)

    def forward(self, images):
        return super().forward(images) + self.hidden


class CutOff(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.unused = nn.Parameter(torch.zeros(3))


class Infinite(Net):
    def forward(self, images):
        return super().forward(images) / 0


class Untraceable(Net):
    def forward(self, images):
        if images.sum().item() > 1e9 or torch.jit.is_tracing():
            raise RuntimeError("not while tracing")
        return super().forward(images)


SMALL = {"input_size": 16}


@pytest.mark.parametrize(("target", "expected"), [
    (Net, set()),
    (FixedClasses, {"test_logits_for_any_number_of_classes"}),
    (Random, {"test_eval_is_deterministic", "test_state_dict_round_trip", "test_traces"}),
    (Mixing, {"test_eval_is_deterministic"}),
    (Forgetful, {"test_state_dict_round_trip"}),
    (CutOff, {"test_gradient_reaches_every_parameter"}),
    (Untraceable, {"test_traces"}),
])
def test_model_checks(failures, target, expected):
    assert set(failures(ipucnn.ModelSpec, target, SMALL)) == expected


def test_infinite_logits_and_undeclared_options(failures):
    found = failures(ipucnn.ModelSpec, Infinite, SMALL, options=("depth",))
    assert found["test_logits_for_any_number_of_classes"] == (
        "ConformanceError: logits are not finite")
    assert "depth" in found["test_takes_its_declared_options"]


def test_target_that_returns_something_else(failures):
    found = failures(ipucnn.ModelSpec, lambda num_classes: "net", SMALL)
    assert found["test_traces"] == "ConformanceError: the target returned str"


# -- datasets ----------------------------------------------------------------------------


class Grey(ImageDataset):
    class_names = ("a", "b")
    ready = True

    def __init__(self, request):
        self.size, self.length = request.input_size, request.length

    def __len__(self):
        return self.length

    def image(self, index):
        return torch.full((3, self.size, self.size), index, dtype=torch.uint8)

    def name(self, index):
        return f"grey/{index}"

    def label(self, index):
        return index % 2


def grey(**methods):
    return type("Changed", (Grey,), methods)


@pytest.mark.parametrize(("target", "fields", "expected"), [
    (Grey, {"labelled": True}, set()),
    (Grey, {}, {"test_labels_count_the_classes"}),
    (grey(label=lambda s, i: i), {"labelled": True}, {"test_labels_count_the_classes"}),
    (grey(label=lambda s, i: None), {"labelled": True}, {"test_labels_count_the_classes"}),
    (grey(__len__=lambda s: 0), {"labelled": True}, {
        "test_length"}),
    (grey(name=lambda s, i: "same"), {"labelled": True}, {"test_names_are_unique"}),
    (grey(image=lambda s, i: torch.zeros(3, s.size, s.size)), {"labelled": True},
     {"test_images_are_rgb_bytes"}),
    (grey(image=lambda s, i: torch.zeros(1, s.size, s.size, dtype=torch.uint8)),
     {"labelled": True}, {"test_images_are_rgb_bytes"}),
    (grey(image=lambda s, i: torch.zeros(3, 7, 9, dtype=torch.uint8)), {"labelled": True},
     {"test_images_are_rgb_bytes"}),
    (grey(image=lambda s, i: torch.randint(0, 255, (3, s.size, s.size), dtype=torch.uint8)),
     {"labelled": True}, {"test_the_same_index_gives_the_same_image",
                          "test_global_random_state_is_left_alone"}),
])
def test_dataset_checks(failures, target, fields, expected):
    assert set(failures(ipucnn.DatasetSpec, target, **fields)) == expected


def test_dataset_that_needs_a_folder_is_skipped_without_one(failures):
    found = failures(ipucnn.DatasetSpec, Grey, labelled=True, needs_data_dir=True)
    assert set(found.values()) == {"skipped: it needs a folder: set 'data_dir'"}
    assert len(found) == 8


# -- norm layers -------------------------------------------------------------------------


class Detached(nn.Module):
    def forward(self, x):
        return x.detach() * 1.0


class Pooling(nn.Module):
    def forward(self, x):
        return x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(("target", "expected"), [
    (lambda site, options: nn.InstanceNorm2d(site.channels, affine=True), set()),
    (lambda site, options: nn.BatchNorm2d(site.channels),
     {"test_samples_are_independent_unless_it_says_otherwise"}),
    (lambda site, options: Detached(), {"test_gradient_flows"}),
    (lambda site, options: Pooling(), {"test_shape_and_type_are_kept"}),
])
def test_norm_layer_checks(failures, target, expected):
    assert set(failures(ipucnn.NormLayerSpec, target)) == expected


# -- optimizers and schedules ------------------------------------------------------------


class Stuck(torch.optim.SGD):
    def step(self, closure=None):
        pass


class Amnesic(torch.optim.Adam):
    def load_state_dict(self, state):
        pass


class FixedRate(torch.optim.SGD):
    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p -= 0.05 * p.grad


@pytest.mark.parametrize(("target", "expected"), [
    (torch.optim.Adam, set()),
    (Stuck, {"test_reduces_a_quadratic", "test_learning_rate_of_a_group_is_obeyed"}),
    (Amnesic, {"test_state_dict_round_trip"}),
    (FixedRate, {"test_learning_rate_of_a_group_is_obeyed"}),
])
def test_optimizer_checks(failures, target, expected):
    assert set(failures(ipucnn.OptimizerSpec, target)) == expected


def test_hyperparameters_that_are_not_taken(failures):
    found = failures(ipucnn.OptimizerSpec, lambda groups, lr: torch.optim.SGD(groups, lr=lr),
                     hyperparameters=("nesterov",))
    assert set(found) == {"test_takes_its_declared_hyperparameters"}


def counter():
    calls = []

    def factor(epoch):
        calls.append(epoch)
        return float(len(calls))

    return factor


@pytest.mark.parametrize(("target", "expected"), [
    (lambda epoch: 0.5, set()),
    (lambda epoch: 0.0, {"test_it_trains_at_all"}),
    (lambda epoch: 1 - epoch, {"test_factors_are_finite_and_not_negative"}),
    (lambda epoch: float("nan"), {"test_factors_are_finite_and_not_negative",
                                  "test_it_trains_at_all", "test_it_is_a_pure_function"}),
    (lambda epoch: 1, {"test_factors_are_finite_and_not_negative"}),
    (counter(), {"test_it_is_a_pure_function"}),
])
def test_schedule_checks(failures, target, expected):
    assert set(failures(ipucnn.ScheduleSpec, target)) == expected


# -- backends ----------------------------------------------------------------------------


class Session(InferenceSession):
    facts = {}

    def __init__(self, model, plan, scale):
        self.model, self.plan, self.scale = model, plan, scale
        self.samples_per_call = plan.combined_batch

    def compile(self):
        return 0.0

    def __call__(self, images):
        with torch.no_grad():
            images = normalise(images) if self.plan.eight_bit_io else images
            return self.model(images) * self.scale


class Eager(Backend):
    scale, session = 1.0, Session

    def probe(self):
        return Probe(usable=True, device="CPU")

    def inference(self, model, plan, input_size):
        return self.session(model, plan, self.scale)


class Inaccurate(Eager):
    scale = 1.01


class Training(Eager):
    def inference(self, model, plan, input_size):
        return super().inference(model.train(), plan, input_size)


class WholeBatchesOnly(Eager):
    class session(Session):
        def __call__(self, images):
            return super().__call__(images.repeat(4, 1, 1, 1))[:self.samples_per_call]


class Silent(Eager):
    def probe(self):
        return Probe(usable=False)


class Raising(Eager):
    def probe(self):
        raise OSError("no driver")


COMPARISONS = {"test_logits_equal_those_of_the_plain_module", "test_short_last_batch",
               "test_result_does_not_depend_on_the_batching",
               "test_images_normalised_on_the_host"}


@pytest.mark.parametrize(("target", "expected"), [
    (Eager, set()), (Inaccurate, COMPARISONS), (Training, COMPARISONS),
    (WholeBatchesOnly, {"test_short_last_batch", "test_images_normalised_on_the_host"}),
    (Silent, {"test_probe_never_raises_and_explains_itself"}),
    (Raising, {*COMPARISONS, "test_probe_never_raises_and_explains_itself"}),
])
def test_backend_checks(failures, target, expected):
    found = failures(ipucnn.BackendSpec, target)
    assert {c for c, result in found.items() if not result.startswith("skipped")} == expected
    assert found["test_every_declared_precision_works"].startswith("skipped")


class OfOneMind(TorchBackend):
    """Takes the micro-batches of an update for one large one."""

    def training(self, model, plan, setup, input_size):
        return super().training(model, replace(
            plan, micro_batch=plan.update_batch, replicas=1, gradient_accumulation=1,
            pipeline_splits=()), setup, input_size)


class Stubborn(TorchBackend):
    def training(self, model, plan, setup, input_size):
        session = super().training(model, plan, setup, input_size)
        session.set_rates = lambda lr, scaling: None
        return session


class Forgetful(TorchBackend):
    def training(self, model, plan, setup, input_size):
        session = super().training(model, plan, setup, input_size)
        empty, load = session.state(), session.load
        session.load = lambda weights, state: load(weights, {**state, **empty})
        return session


class Boastful(TorchBackend):
    def training(self, model, plan, setup, input_size):
        session = super().training(model, plan, setup, input_size)
        step = session.step
        session.step = lambda *given: replace(step(*given), samples=1)
        return session


@pytest.mark.parametrize(("target", "expected"), [
    (TorchBackend, set()),
    (OfOneMind, {"test_training_with_batch_norm", "test_training_in_a_pipeline"}),
    (Stubborn, {"test_training_follows_the_learning_rate"}),
    (Forgetful, {"test_training_resumes_exactly"}),
    (Boastful, {"test_step_tells_what_it_did"}),
])
def test_training_checks(failures, target, expected):
    found = failures(ipucnn.BackendSpec, target, training=True)
    assert {c for c, result in found.items() if not result.startswith("skipped")} == expected


# -- running them ------------------------------------------------------------------------


def test_exclusions_are_data_with_a_reason(failures):
    suite = {**SMALL, "exclude": {"test_traces": "it decides by value"}}
    assert failures(ipucnn.ModelSpec, Untraceable, suite) == {
        "test_traces": "skipped: excluded: it decides by value"}


def test_an_exclusion_of_no_check_is_an_error(failures):
    found = failures(ipucnn.ScheduleSpec, lambda epoch: 1.0, {"exclude": {"test_typo": "x"}})
    assert all("names no check" in result for result in found.values())
    assert found


def test_target_that_cannot_be_imported(failures):
    found = failures(ipucnn.ScheduleSpec, "no_such_module_anywhere:f")
    assert "No module named 'no_such_module_anywhere'" in found["test_target_resolves"]


def test_unknown_plugin_raises():
    with pytest.raises(UnknownNameError, match="unknown optimizer 'sgdd'"):
        check_plugin("optimizers", "sgdd")


PLUGIN = """
import ipucnn

def half(epoch):
    return 0.5

@ipucnn.hookimpl
def ipucnn_lr_schedules():
    return [ipucnn.ScheduleSpec(name="half", summary="s", target=half),
            ipucnn.ScheduleSpec(name="late", summary="s", target=half, api_version=7),
            ipucnn.ScheduleSpec(name="no", summary="clashes with an alias", target=half)]
"""


def test_whole_distribution(fake_distribution):
    fake_distribution("mixed", {"mixed_plugin.py": PLUGIN, "mixed_broken.py": "1 / 0"},
                      {"schedulers.half": "mixed_plugin", "models.broken": "mixed_broken"})
    results = check_distribution("mixed", Registry(PluginSettings()))
    assert set(results["schedule/half"].values()) == {"passed"}
    assert set(results["schedule/no"].values()) == {"passed"}
    assert "incompatible: written for record contract 7" in (
        results["schedule/schedulers.half"]["loads"])
    assert results["model/models.broken"]["loads"].startswith("failed: ZeroDivisionError")
    assert len(results) == 4


def test_named_checks(fake_distribution):
    fake_distribution("mixed", {"mixed_plugin.py": PLUGIN}, {"schedulers.half": "mixed_plugin"})
    reg = Registry(PluginSettings())
    for name in ("schedule:half", "schedules:mixed:half"):
        assert set(check_named(name, reg)) == {"schedule/half"}
    assert "schedule/half" in check_named("mixed", reg)
    with pytest.raises(UnknownNameError, match="distribution is called 'mixt'") as caught:
        check_named("mixt", reg)
    assert "did you mean 'mixed'" in caught.value.hint
    with pytest.raises(UsageError, match="unknown kind 'colour'"):
        check_named("colour:red", reg)


def test_a_suite_is_inherited_in_three_lines(tmp_path):
    (tmp_path / "test_mine.py").write_text(textwrap.dedent("""
        from ipucnn.testing import ScheduleSuite, OptimizerSuite

        class TestCosine(ScheduleSuite):
            name = "cosine"

        class TestSgd(OptimizerSuite):
            name = "sgd"
            lr = 1e-3
            exclude = {"test_state_dict_round_trip": "for this test"}
        """))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert "1 failed, 8 passed, 1 skipped" in done.stdout, done.stdout
    assert "test_mine.py::TestSgd::test_reduces_a_quadratic" in done.stdout


def test_check_names_are_stable():
    from ipucnn.testing import SUITES

    assert checks(SUITES["schedule"]) == [
        "test_target_resolves", "test_factors_are_finite_and_not_negative",
        "test_it_trains_at_all", "test_it_is_a_pure_function",
        "test_takes_its_declared_parameters"]
