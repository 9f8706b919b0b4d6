"""The suites themselves: each check fails for a plugin that breaks what it is about."""

import json
import os
import random
import subprocess
import sys
import textwrap
from dataclasses import dataclass, make_dataclass, replace
from typing import Tuple

import pytest
import torch
from torch import nn

import ipucnn
from ipucnn.core.errors import UnavailableError, UnknownNameError, UsageError
from ipucnn.core.execution.backend import Backend, InferenceSession, Probe
from ipucnn.core.execution.instances import Instances
from ipucnn.core.execution.launcher import Launch, Launcher
from ipucnn.core.execution.losses import CrossEntropyForm
from ipucnn.core.loggers import Logger
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import Registry
from ipucnn.data import ImageDataset
from ipucnn.data.normalisation import normalise
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.plugins.backends.torch.options import TorchOptions
from ipucnn.plugins.losses.cross_entropy import CrossEntropy
from ipucnn.testing import (
    LauncherSuite,
    LoggerSuite,
    LossSuite,
    check_distribution,
    check_named,
    check_plugin,
)
from ipucnn.testing.suite import Suite, checks

HERE = sys.modules[__name__]
COMMON = set(checks(Suite))
HOOKS = {kind.record: (kind.name, kind.hook) for kind in KINDS.values()}


@pytest.fixture
def failures(fake_distribution):
    """Check a target as a plugin of a kind; return the checks that did not pass."""

    installed = []

    def run(record, target, suite=None, **fields):
        kind, hook = HOOKS[record]
        # The target reaches the plugin through this module, as a callable needs no import.
        HERE.under_test = record(name="mine", summary="s", target=target, **fields)
        if hook not in installed:
            module = f"{kind.replace('-', '_')}_plugin"
            installed.append(hook)
            fake_distribution(f"{kind}-dist", {f"{module}.py": f"""
                import sys, ipucnn
                @ipucnn.hookimpl
                def {hook}():
                    record = sys.modules[{__name__!r}].under_test
                    return [record] if type(record).__name__ == {record.__name__!r} else []
                """}, {"anything": module})
        results = check_plugin(kind, "mine", Registry(PluginSettings()), **(suite or {}))
        return {check: result for check, result in results.items() if result != "passed"}

    return run


# -- options -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Good:
    height: float = ipucnn.option(0.5, "Of the factor.", minimum=0.0, names=("--altitude",))


@dataclass(frozen=True)
class WrongDefault:
    height: float = ipucnn.option(-0.5, "Of the factor.", minimum=0.0)


@dataclass(frozen=True)
class WrongType:
    height: Tuple[float, ...] = ipucnn.option(0.5, "Of the factor.")


@dataclass(frozen=True)
class NoHelp:
    height: float = ipucnn.option(0.5, " ")


@dataclass(frozen=True)
class CommonName:
    batch_size: float = ipucnn.option(0.5, "Of the factor.")


@dataclass(frozen=True)
class CommonSpelling:
    height: float = ipucnn.option(0.5, "Of the factor.", names=("--learning-rate",))


@dataclass(frozen=True)
class Twice:
    height: float = ipucnn.option(0.5, "Of the factor.", names=("--altitude",))
    altitude: float = ipucnn.option(0.5, "The same.")


@dataclass(frozen=True)
class Switch:
    verbose: bool = ipucnn.option(False, "A global switch.")


@dataclass(frozen=True)
class Negated:
    plugins: bool = ipucnn.option(True, "Its negation is a global switch.")


@dataclass(frozen=True)
class NegatedCommon:
    report: bool = ipucnn.option(True, "Its negation is an option of trainings.")


@dataclass(frozen=True)
class NegatedOwn:
    lazy: bool = ipucnn.option(True, "A switch.")
    no_lazy: bool = ipucnn.option(False, "The same.")


@dataclass(frozen=True)
class OneDash:
    height: float = ipucnn.option(0.5, "Of the factor.", names=("-altitude",))


def flat(epoch, options):
    return getattr(options, "height", 0.5)


@pytest.mark.parametrize(("options", "message"), [
    (Good, None), (NoHelp, "option '--height' has no help"),
    (CommonName, "its option '--batch-size' is a common one"),
    (CommonSpelling, "its option '--learning-rate' is a common one ('--lr')"),
    (Twice, "'--altitude' of option '--altitude' is not a flag of its own"),
    (Switch, "its option '--verbose' is a common one ('--verbose')"),
    (Negated, "its option '--plugins' is a common one ('--no-plugins')"),
    (NegatedCommon, "its option '--report' is a common one ('--no-report')"),
    (NegatedOwn, "'--no-lazy' of option '--no-lazy' is not a flag of its own"),
    (OneDash, "'-altitude' of option '--height' is not a flag of its own"),
])
def test_options_are_checked(failures, options, message):
    found = failures(ipucnn.ScheduleSpec, flat, options=options)
    if message is None:
        assert found == {}
    else:
        assert set(found) == {"test_options_are_valid"}
        assert message in found["test_options_are_valid"]


@pytest.mark.parametrize(("declared", "message"), [
    ({"needs": "optimiser"}, "needs 'optimiser', which is no common option (did you mean "
     "'optimizer'?)"),
    ({"minimum": 1}, "has a smallest or largest value, which only numbers have"),
    ({"size": True}, "sets 'size', which only options of type int have"),
    ({"kind": "models"}, "has the unknown kind 'models'; kinds: model, dataset"),
    ({"feature": "ema"}, "sets 'feature', which only common options have"),
    ({"feature": "warp"}, "sets 'feature', which only common options have"),
    ({"switch": True}, "sets 'switch', which only common options have"),
    ({"role": "cache"}, "sets 'role', which only options of backends have"),
    ({"idle": "without augmentatoin"}, "has 'idle' 'without augmentatoin': there is no option "
     "'augmentatoin' (did you mean 'augmentation'"),
    ({"idle": "without augmentation strong"}, "option '--augmentation': 'strong' is not one of "),
    ({"idle": "with optimizer gsd"}, "unknown optimizer 'gsd'"),
    ({"idle": "with height tall"}, "option '--height': 'tall' is not a number"),
    ({"needs": "optimizer"}, None),
    ({"idle": ("with optimizer sgd", "without height 0.5 1")}, None),
    ({"idle": "not-during"}, None)])
def test_names_in_declarations_are_checked(failures, declared, message):
    options = make_dataclass("Options", [("height", float, ipucnn.option(0.5, "Of it.")), (
        "width", str, ipucnn.option("", "Of it.", **declared))], frozen=True)
    found = failures(ipucnn.ScheduleSpec, flat, options=options)
    if message is None:
        assert found == {}
    else:
        assert set(found) == {"test_options_are_valid"}
        assert message in found["test_options_are_valid"]


def test_the_default_of_a_choice_of_plugins_is_checked(failures):
    options = make_dataclass("Options", [
        ("teacher", str, ipucnn.option("resnet19", "The larger model.", kind="model"))],
        frozen=True)
    found = failures(ipucnn.ScheduleSpec, flat, options=options)
    assert "the default of option '--teacher': unknown model 'resnet19'" in \
        found["test_options_are_valid"]


@pytest.mark.parametrize(("options", "message"), [
    (WrongDefault, "option '--height': -0.5 is too small"),
    (WrongType, "the default of option '--height', 0.5, is not of its type"),
])
def test_defaults_are_checked(failures, options, message):
    found = failures(ipucnn.ScheduleSpec, flat, options=options)
    assert message in found["test_options_are_valid"]


@pytest.mark.parametrize("name", [
    "format", "check", "to", "workers", "splits", "samples", "job", "per_class", "add_classes"])
def test_options_are_compared_with_those_of_all_commands(failures, name):
    options = make_dataclass("Options", [(name, int, ipucnn.option(1, "A number."))], frozen=True)
    found = failures(ipucnn.DatasetSpec, lambda request, options: Grey(request), options=options,
                     labelled=True)
    assert found["test_options_are_valid"].split(" failed: ")[1].startswith(
        f"its option '--{name.replace('_', '-')}' is a common one")


def test_options_that_the_target_does_not_take(failures):
    found = failures(ipucnn.ScheduleSpec, lambda epoch: 0.5, options=Good)
    assert "does not take what its record declares" in found["test_takes_its_declared_options"]
    assert "cannot be called" in found["test_it_trains_at_all"]
    assert failures(ipucnn.ScheduleSpec, flat)["test_takes_its_declared_options"]


def test_a_suite_sets_options(failures):
    assert failures(ipucnn.ScheduleSpec, flat, {"options": {"altitude": "2"}}, options=Good) == {}
    found = failures(ipucnn.ScheduleSpec, flat, {"options": {"height": 0}}, options=Good)
    assert set(found) == {"test_it_trains_at_all"}
    found = failures(ipucnn.ScheduleSpec, flat, {"options": {"depth": 0}}, options=Good)
    assert "has no option 'depth'" in found["test_it_trains_at_all"]
    found = failures(ipucnn.ScheduleSpec, lambda epoch: 1.0, {"options": {"depth": 0}})
    assert "the record has no options, and the suite sets ['depth']" in (
        found["test_options_are_valid"])


def test_an_options_class_that_cannot_be_imported(failures):
    found = failures(ipucnn.ScheduleSpec, flat, options="no_such_module_anywhere:Options")
    assert "No module named 'no_such_module_anywhere'" in found["test_options_are_valid"]


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
    found = failures(ipucnn.ModelSpec, Infinite, SMALL, options=Good)
    assert "'options'" in found["test_logits_for_any_number_of_classes"]
    assert "'options'" in found["test_takes_its_declared_options"]
    found = failures(ipucnn.ModelSpec, Infinite, SMALL)
    assert found["test_logits_for_any_number_of_classes"] == (
        "ConformanceError: logits are not finite")


def test_published_weights_are_checked(failures, tmp_path):
    def found(url, sha256=""):
        return failures(ipucnn.ModelSpec, Net, SMALL, num_classes=9, weights=(
            ipucnn.PublishedWeights("v1", url, sha256, "MIT", "us"),))

    path = tmp_path / "net.pt"
    torch.save(Net(9).state_dict(), path)
    assert found(path.as_uri()) == {}
    assert found("https://no.invalid/net.pt", "01234567") == {}
    assert found("https://no.invalid/net.pt") == {
        "test_published_weights_load":
            "ConformanceError: weights 'v1' are published without a digest"}
    assert "expected 01234567" in found(path.as_uri(), "01234567")["test_published_weights_load"]
    torch.save(Net(8).state_dict(), path)
    assert "are for 8 classes, the model has 9" in found(
        path.as_uri())["test_published_weights_load"]


def test_target_that_returns_something_else(failures):
    found = failures(ipucnn.ModelSpec, lambda num_classes: "net", SMALL)
    assert found["test_traces"] == "ConformanceError: the target returned 'net' of type 'str'"


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
                          "test_images_do_not_depend_on_the_workers",
                          "test_global_random_state_is_left_alone"}),
])
def test_dataset_checks(failures, target, fields, expected):
    assert set(failures(ipucnn.DatasetSpec, target, **fields)) == expected


def test_dataset_that_needs_a_folder_is_skipped_without_one(failures):
    found = failures(ipucnn.DatasetSpec, Grey, labelled=True, needs_data_dir=True)
    assert set(found.values()) == {"skipped: it needs a folder: set 'data_dir'"}
    assert len(found) == 10


# -- norm layers -------------------------------------------------------------------------


class Detached(nn.Module):
    def forward(self, x):
        return x.detach() * 1.0


class Pooling(nn.Module):
    def forward(self, x):
        return x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(("target", "expected"), [
    (lambda site: nn.InstanceNorm2d(site.channels, affine=True), set()),
    (lambda site: nn.BatchNorm2d(site.channels),
     {"test_samples_are_independent_unless_it_says_otherwise"}),
    (lambda site: Detached(), {"test_gradient_flows"}),
    (lambda site: Pooling(), {"test_shape_and_type_are_kept"}),
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


@pytest.mark.filterwarnings("ignore::ipucnn.core.registry.deprecations.PluginDeprecationWarning")
def test_names_that_the_first_records_listed_have_no_meaning(failures):
    for found in (failures(ipucnn.OptimizerSpec, lambda groups, lr: torch.optim.SGD(groups, lr=lr),
                           hyperparameters=("nesterov",)),
                  failures(ipucnn.ScheduleSpec, lambda epoch: 1.0, parameters=("decay",)),
                  failures(ipucnn.ModelSpec, Net, SMALL, options=("depth",))):
        assert set(found) <= {"test_uses_nothing_deprecated"}


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


# -- losses ------------------------------------------------------------------------------


class Mine(CrossEntropy):
    name = "mine"

    def device_form(self):
        return None


def altered(function, **attributes):
    """Return a loss whose value is a function of cross-entropy's and of what it is given."""
    def call(self, logits, labels, mixing=None, micro_batch=0):
        return function(Mine()(logits, labels, mixing, micro_batch), logits, labels, mixing)

    return type("Altered", (Mine,), {"__call__": call, **attributes})


LOSSES = [
    (Mine, set()),
    (lambda: "loss", set(checks(LossSuite)) - COMMON - {"test_several_labels_per_image"}),
    (type("Other", (Mine,), {"name": "other"}), {"test_it_has_the_name_of_its_record"}),
    (altered(lambda value, *_: value.double()), {"test_returns_a_finite_float32_scalar"}),
    (altered(lambda value, *_: value.exp()), {
        "test_returns_a_finite_float32_scalar", "test_micro_batches_are_averaged",
        "test_mixed_labels_count_by_their_shares"}),
    (altered(lambda value, *_: value.detach() + 0 * value), {
        "test_gradient_is_that_of_the_value", "test_minimising_it_predicts_the_labels"}),
    (altered(lambda value, *_: value.detach() + 2 * value - 2 * value.detach()), {
        "test_gradient_is_that_of_the_value"}),
    (altered(lambda value, *_: -value), {"test_minimising_it_predicts_the_labels"}),
    (altered(lambda value, logits, *_: value * len(logits)), {
        "test_micro_batches_are_averaged", "test_mixed_labels_count_by_their_shares"}),
    (altered(lambda value, logits, labels, mixing: Mine()(logits, labels)), {
        "test_mixed_labels_count_by_their_shares"}),
    (altered(lambda value, *_: value + torch.rand(())), {
        "test_gradient_is_that_of_the_value", "test_it_is_a_pure_function",
        "test_micro_batches_are_averaged", "test_traces",
        "test_mixed_labels_count_by_their_shares"}),
    (altered(lambda value, *_: value * float(value.detach())), {
        "test_gradient_is_that_of_the_value", "test_micro_batches_are_averaged",
        "test_mixed_labels_count_by_their_shares", "test_traces"}),
    (altered(lambda value, *_: value, device_form=lambda self: CrossEntropyForm(0.1)), {
        "test_its_description_is_what_it_computes"}),
]


@pytest.mark.parametrize(("target", "expected"), LOSSES)
def test_loss_checks(failures, target, expected):
    found = failures(ipucnn.LossSpec, target)
    assert {c for c, result in found.items() if not result.startswith("skipped")} == expected


def test_a_loss_that_takes_one_label_is_not_one_for_several(failures):
    found = failures(ipucnn.LossSpec, Mine, multi_label=True)
    assert "takes one label per image" in found["test_several_labels_per_image"]


# -- loggers -----------------------------------------------------------------------------


class Notes(Logger):
    name = "mine"

    def start(self, run):
        self.lines = [str(run)]

    def row(self, row):
        self.lines.append(str(row))


class NoName(Notes):
    name = ""


class Picky(Notes):
    def row(self, row):
        self.lines.append(f"{row['images_per_second']:.1f}")


class Talkative(Notes):
    def row(self, row):
        return row


class FirstRunOnly(Notes):
    def start(self, run):
        super().start(run)
        run.folder.joinpath("log").touch(exist_ok=False)


class Tidy(Notes):
    def finish(self, status, result):
        return result["epochs"]


class Nosy(Notes):
    def start(self, run):
        super().start(run)
        run.options.pop("model")


class Lottery(Notes):
    def row(self, row):
        random.random()


class Collector(Notes):
    def checkpoint(self, path, epoch, update):
        path.write_bytes(b"")


@pytest.mark.parametrize(("target", "expected"), [
    (Notes, set()),
    (NoName, {"test_it_has_the_name_of_its_record"}),
    (Picky, {"test_records_a_whole_training", "test_records_a_restored_training",
             "test_leaves_options_and_random_numbers_alone"}),
    (Talkative, {"test_records_a_whole_training", "test_records_a_restored_training"}),
    (FirstRunOnly, {"test_records_a_restored_training"}),
    (Tidy, {"test_a_training_may_fail_at_once", "test_leaves_options_and_random_numbers_alone"}),
    (Nosy, {"test_leaves_options_and_random_numbers_alone"}),
    (Lottery, {"test_leaves_options_and_random_numbers_alone"}),
    (Collector, {"test_records_a_whole_training", "test_records_a_restored_training"}),
    (lambda: None, set(checks(LoggerSuite)) - COMMON),
])
def test_logger_checks(failures, target, expected):
    assert set(failures(ipucnn.LoggerSpec, target)) == expected


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
    class session(Session):  # noqa: N801
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
    (OfOneMind, {"test_training_with_batch_norm", "test_training_in_a_pipeline",
                 "test_training_with_mixup"}),
    (Stubborn, {"test_training_follows_the_learning_rate"}),
    (Forgetful, {"test_training_resumes_exactly"}),
    (Boastful, {"test_step_tells_what_it_did"}),
])
def test_training_checks(failures, target, expected):
    found = failures(ipucnn.BackendSpec, target, training=True, options=TorchOptions)
    assert {c for c, result in found.items() if not result.startswith("skipped")} == expected


# -- launchers ---------------------------------------------------------------------------


class Ranks(Launcher):
    """Started by nobody; every other class below breaks one part of the contract."""

    def launch(self, environment):
        if "MINE_RANK" not in environment:
            return None
        rank, size = environment["MINE_RANK"], environment["MINE_SIZE"]
        if not (rank.isdecimal() and size.isdecimal()):
            raise UsageError(f"MINE_RANK is {rank!r} and MINE_SIZE is {size!r}")
        return Launch(int(rank), int(size))

    def environment(self, index, count):
        return {"MINE_RANK": str(index), "MINE_SIZE": str(count)}

    def join(self):
        return Instances()


def ranks(**methods):
    return type("Changed", (Ranks,), methods)


def _of_this_process(self, environment):
    return Ranks.launch(self, os.environ)


def _counted_from_one(self, environment):
    launch = Ranks.launch(self, environment)
    return launch and Launch(launch.index + 1, launch.count + 1)


def _always(self, environment):
    return Ranks.launch(self, environment) or Launch(0, 1)


def _careless(self, environment):
    return Launch(int(environment["MINE_RANK"]), int(environment["MINE_SIZE"])) \
        if "MINE_RANK" in environment else None


def _silent(self, environment):
    try:
        return Ranks.launch(self, environment)
    except UsageError:
        return None


def _uneven(self, environment):
    launch = Ranks.launch(self, environment)
    return launch and Launch(launch.index, launch.count, replicas=launch.count + 1)


class Twice(Instances):
    def gather(self, value):
        return [value, value]


class Rounding(Instances):
    def sum(self, tensor):
        return tensor.float().to(tensor.dtype)


class Unconnected(Ranks):
    def join(self):
        raise UnavailableError("the network is missing")


@pytest.mark.parametrize(("target", "expected"), [
    (Ranks, set()),
    (ranks(launch=_of_this_process), {
        "test_recognises_its_processes", "test_reads_only_the_environment_it_is_given",
        "test_a_variable_that_is_not_valid_is_a_usage_error"}),
    (ranks(launch=_counted_from_one), {"test_recognises_its_processes"}),
    (ranks(launch=_always), {"test_other_processes_are_not_its_own",
                             "test_reads_only_the_environment_it_is_given"}),
    (ranks(launch=_careless), {"test_a_variable_that_is_not_valid_is_a_usage_error"}),
    (ranks(launch=_silent), {"test_a_variable_that_is_not_valid_is_a_usage_error"}),
    (ranks(launch=_uneven), {"test_recognises_its_processes"}),
    (ranks(join=lambda self: Twice()), {"test_one_instance_joins"}),
    (ranks(join=lambda self: Rounding()), {"test_one_instance_joins"}),
    (ranks(join=lambda self: None), {"test_one_instance_joins"}),
    (ranks(command=lambda self, plan, hosts, flags: "mine --rank 0"), {"test_command_is_words"}),
    (lambda: "no launcher", set(checks(LauncherSuite)) - COMMON),
])
def test_launcher_checks(failures, target, expected):
    found = failures(ipucnn.LauncherSpec, target, variables=("MINE_RANK",))
    started = found.pop(START, "")
    assert set(found) == expected - {START}
    assert started.startswith("skipped: its own program") or START in expected
    assert all(result.startswith(("ConformanceError", "ValueError")) for result in found.values())


START = "test_start_returns_the_exit_code_of_a_rank"


@pytest.mark.parametrize("variables", [(), ("OTHER_RANK",)])
def test_launcher_whose_record_names_other_variables(failures, variables):
    found = failures(ipucnn.LauncherSpec, Ranks, variables=variables)
    assert set(found) - {START} == {"test_record_names_its_variables"}


def test_launcher_that_cannot_connect_here_is_skipped(failures):
    found = failures(ipucnn.LauncherSpec, Unconnected, variables=("MINE_RANK",))
    found.pop(START)
    assert found == {"test_one_instance_joins": "skipped: not usable here: the network is missing"}


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
    assert set(results["lr-schedule/half"].values()) == {"passed"}
    assert set(results["lr-schedule/no"].values()) == {"passed"}
    assert "incompatible: written for record contract 7" in results["lr-schedule/late"]["loads"]
    assert results["model/models.broken"]["loads"].startswith("failed: ZeroDivisionError")
    assert len(results) == 4


def test_a_name_that_two_entry_points_provide_is_a_failed_check(fake_distribution, cli):
    source = PLUGIN.replace("s.half", "s.twin").replace('"half"', '"twin"')
    fake_distribution("twins", {"twin_a.py": source, "twin_b.py": source.replace("0.5", "0.25")},
                      {"schedulers.a": "twin_a", "schedulers.b": "twin_b"})
    code, out, err = cli("check-plugin", "twins", "--json")
    assert (code, err) == (1, "")
    results = json.loads(out)
    assert set(results["import/twins"].values()) == {"passed"}
    assert "both provide it" in results["lr-schedule/schedulers.a:twin"]["loads"]


def test_named_checks(fake_distribution):
    fake_distribution("mixed", {"mixed_plugin.py": PLUGIN}, {"schedulers.half": "mixed_plugin"})
    reg = Registry(PluginSettings())
    for name in ("lr-schedule:half", "schedule:half", "schedules:mixed:half"):
        assert set(check_named(name, reg)) == {"lr-schedule/half"}
    assert "lr-schedule/half" in check_named("mixed", reg)
    with pytest.raises(UnknownNameError, match="plugin distribution 'mixt'") as caught:
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
    assert "1 failed, 14 passed, 1 skipped" in done.stdout, done.stdout
    assert "test_mine.py::TestSgd::test_reduces_a_quadratic" in done.stdout


def test_check_names_are_stable():
    from ipucnn.testing import SUITES

    assert checks(SUITES["lr-schedule"]) == [
        "test_target_resolves", "test_options_are_valid", "test_takes_its_declared_options",
        "test_uses_nothing_deprecated", "test_it_sets_no_random_seed",
        "test_factors_are_finite_and_not_negative", "test_it_trains_at_all",
        "test_it_is_a_pure_function"]
