"""Nothing is accepted and ignored: every option has an effect, is refused, or is noted.

Each option of each command is given to a small real job whose backend only records. What can be
seen of the job must differ from what it is without the option, or the option must be named by an
error or a note. Options that act where no such job reaches are in `ELSEWHERE`, with the test of
their effect.
"""

from __future__ import annotations

import importlib
import itertools
import re
from pathlib import Path

import pytest
from effect_cases import BASES, CONTEXT, ELSEWHERE, TRAINING, VALUES
from effect_jobs import CLASSES, outcome, plugins_loaded, write_photos
from option_values import other_value

from ipucnn.commands.reference import COMMANDS
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.attributes import INFERENCE
from ipucnn.core.options.attributes import TRAINING as TRAINING_JOB
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import common_options
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.effects import idle_notes
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry, registry, use
from ipucnn.core.registry.targets import missing_requirements
from ipucnn.planning.options import POPRUN
from ipucnn.training.options.train_options import TrainOptions

TESTS = Path(__file__).parents[2]
DAMAGED = b"\xff\xd8\xff\xe0 not an image"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Files that the jobs use, by the words that stand for them."""
    root = tmp_path_factory.mktemp("effects")
    plugins_loaded()
    found = {"PHOTOS": write_photos(root / "photos"), "OTHER": write_photos(root / "other", seed=1),
             "FLAT": write_photos(root / "flat", splits=False),
             "GROWN": write_photos(root / "grown", classes=(*CLASSES, "n01491361")),
             "RENAMED": write_photos(root / "renamed", classes=("ant", "bee", "fly")),
             "DAMAGED": write_photos(root / "damaged"),
             "PROFILE": str(root / "profile.yaml"), "LABELS": str(root / "labels.csv")}
    Path(found["PROFILE"]).write_text("seed: 7\n")
    for split in ("train", "validation"):
        Path(found["DAMAGED"], split, CLASSES[0], "damaged.JPEG").write_bytes(DAMAGED)
    Path(found["LABELS"]).write_text("path,label\n" + "".join(
        f"{split}/{name}/{i}.JPEG,{'ab'[i % 2]}\n" for split in ("train", "validation")
        for name in ("n01440764", "n01443537") for i in range(2)))
    for word, seed in (("TRAINED", 0), ("OTHERS", 1)):
        found[word] = str(root / word.lower())
        made = outcome("train", filled({**TRAINING, "checkpoint_path": found[word],
                                        "seed": seed}, found),
                       root / f"run {word}")
        assert not made.error, made.error
    found["WEIGHTS"] = str(root / "trained" / "small_image_folder_3.pt")
    yield root, found
    use(None)


def filled(given, found):
    """Return values with files in the place of the words for them."""
    def one(value):
        if isinstance(value, str):
            for word, path in found.items():
                value = value.replace(word, path) if value.split("/")[0] == word else value
        return value
    return {name: one(value) for name, value in given.items() if value is not None}


_numbers = itertools.count()
_known = {}


def made(command, given, places):
    """Run a job, or return what it did before."""
    root, found = places
    given = filled(given, found)
    key = (command, repr(sorted(given.items())))
    if key not in _known:
        _known[key] = outcome(command, given, root / f"job {next(_numbers)}")
    return _known[key]


def named(item, text, value=None):
    """Return whether a text names an option, or the plugin that is its value."""
    if item.option.kind and f"'{value}'" in text:
        return True
    return any(spelling in text for flag in item.flags
               for spelling in (flag, f"--no-{flag[2:]}", f"{flag[2:]}:"))


def verdict(command, item, base, value, places):
    """Return what became of an option: `effect`, `refused`, `noted`, or what went wrong."""
    without = made(command, base, places)
    given = made(command, {**base, item.name: value}, places)
    if given.error:
        return "refused" if named(item, given.error, value) else f"another error: {given.error}"
    if given.notes != without.notes and named(item, given.notes):
        return "noted"
    return "nothing" if given == without else "effect"


def value_for(command, item):
    """Return a value of an option for a command's job."""
    found = [VALUES[name] for name in ((command, item.name), item.name) if name in VALUES]
    return found[0] if found else other_value(item)


def own_options():
    """Return every command with each of its own options."""
    return [pytest.param(command, item, id=f"{command}-{item.name}".replace(" ", "-"))
            for command, classes in COMMANDS.items()
            for item in {item.name: item for kind in classes
                         for item in common_options(kind)}.values()]


def test_equal_jobs_look_equal(places):
    for command, base in BASES.items():
        first = made(command, base, places)
        _known.clear()
        assert not first.error
        assert made(command, base, places) == first, command


@pytest.mark.parametrize(("command", "item"), own_options())
def test_every_option_of_a_command(command, item, places):
    where = ELSEWHERE.get((command, item.name)) or ELSEWHERE.get(("*", item.name))
    if where:
        file, _, test = where.partition("::")
        text = (TESTS / file).read_text()
        assert item.name in text.replace("-", "_")
        assert f"def {test}" in text
        return
    base = {**BASES[command], **CONTEXT.get((command, item.name), {})}
    if command == "plan" and item.option.group != POPRUN and item.name != "poprun":
        base.setdefault("poprun", True)
    assert verdict(command, item, base, value_for(command, item), places) in (
        "effect", "refused", "noted")


# -- options of plugins ----------------------------------------------------------------------------

SELECTED = {"ResidualOptions": {"model": "resnet8-cifar"},
            "EfficientNetOptions": {"model": "efficientnet-b0", "input_size": 32}}
"""How a plugin with a class of options is selected, where its name alone will not do."""

BESIDE = {"lr_decay": {"lr_epoch_decay": (1.0,), "lr_schedule": "step"}}
"""Options without which one of a plugin has no effect."""


_WANDB = "plugins/loggers/test_wandb.py"
OF_PLUGINS = {
    "wandb_project": _WANDB, "wandb_mode": _WANDB, "wandb_weight_histogram": _WANDB,
    "webdataset_memory_cache_ratio": "plugins/datasets/test_webdataset.py"}
"""Options that act in another package or in the system, and the tests of that."""


def options_of_plugins():
    """Return the options of built-in plugins of every kind but backends, with their commands."""
    found = {}
    for kind in ("model", "norm-layer", "dataset", "optimizer", "lr-schedule", "loss", "logger"):
        for owner in builtin_owners([kind], registry()):
            for item in declared(owner.options):
                for command in ("train", "run", "export"):
                    job = {"train": TRAINING_JOB, "run": INFERENCE}.get(command, "")
                    if kind in COMMANDS[command][0].kinds and item.option.only in ("", job):
                        found.setdefault((command, owner.options.__name__, item.name),
                                         (command, owner, item))
    return [pytest.param(*case, id="-".join(key)) for key, case in found.items()]


@pytest.mark.parametrize(("command", "owner", "item"), options_of_plugins())
def test_every_option_of_a_plugin(command, owner, item, places):
    selected = SELECTED.get(owner.options.__name__, {owner.kind.selector: owner.spec.name})
    base = {**BASES[command], **selected, **CONTEXT.get((command, item.name), {})}
    if command == "export" and owner.options.__name__ == "EfficientNetOptions":
        return  # its export takes seconds, and all commands build networks alike
    if item.name in OF_PLUGINS:
        assert item.name in (TESTS / OF_PLUGINS[item.name]).read_text()
        return
    if missing_requirements(owner.spec):
        pytest.skip(f"{owner.spec.name!r} needs a package that is not installed")
    if f"{owner.kind.name} {owner.spec.name!r} has no" in made(command, base, places).error:
        return  # the command refuses the plugin
    assert verdict(command, item, base, value_for(command, item), places) in (
        "effect", "refused", "noted")
    if item.name in BESIDE:
        base.update(BESIDE[item.name])
        assert verdict(command, item, base, value_for(command, item), places) == "effect"


# -- options of IPU backends -----------------------------------------------------------------------


def ipu_options(backend, job):
    """Return the options of an IPU backend that apply to a job."""
    owner, = (owner for owner in builtin_owners(["backend"], registry())
              if owner.spec.name == backend)
    return [item for item in declared(owner.options) if item.option.only in ("", job)]


HANDLED = {
    # the devices and the loader, not the settings of a program
    "ipu_model": "plugins/backends/test_popart.py", "connection_type":
    "plugins/backends/test_poptorch.py", "dataloader_mode":
    "plugins/backends/test_poptorch_loader.py", "disable_async_loading":
    "plugins/backends/test_poptorch.py", "dataloader_rebatch_size":
    "plugins/backends/test_poptorch_loader.py", "offline_target_ipu_version":
    "plugins/backends/test_popart.py", "available_memory_proportion":
    "plugins/backends/test_popart.py", "loss_velocity_scaling_ratio":
    "plugins/backends/test_popart_training.py", "report_hw_cycle_count":
    "plugins/backends/test_popart.py", "num_io_tiles": "plugins/backends/test_poptorch.py"}


@pytest.mark.parametrize("job", [INFERENCE, TRAINING_JOB])
@pytest.mark.parametrize("backend", ["poptorch", "popart"])
def test_every_option_of_ipu_backends(backend, job, poptorch_double, popart_double, tmp_path,
                                      monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"ipucnn.plugins.backends.{backend}." + (
        "training_settings" if (backend, job) == ("popart", TRAINING_JOB) else "settings"))
    made = getattr(module, f"{job}_options")
    plan = ExecutionPlan(training=job == TRAINING_JOB, replicas=2)
    chosen = registry().options_class(registry().get("backend", backend))
    extra = {("poptorch", TRAINING_JOB): (True,), ("popart", TRAINING_JOB): ("sgd",)}.get(
        (backend, job), ())

    def settings(**values):
        return contents(made(plan, chosen(**values), *extra))

    ignored = []
    for item in ipu_options(backend, job):
        value = value_for("train", item)
        if item.name in HANDLED:
            assert item.name in (TESTS / HANDLED[item.name]).read_text().replace("-", "_")
        elif settings(**{item.name: value}) == settings():
            ignored.append(item.name)
    assert settings() == settings()
    assert ignored == []


def contents(value, depth=0):
    """Return the settings within an object of a double, as text."""
    if isinstance(value, dict):
        return {name: contents(item, depth + 1) for name, item in value.items()}
    if depth < 6 and hasattr(value, "__dict__") and vars(value):
        return {name: contents(item, depth + 1) for name, item in vars(value).items()}
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


# -- what used to be ignored -----------------------------------------------------------------------

SYNTHETIC = {"data": "synthetic", "data_dir": None, "iterations": 1, "epoch": 1}
NOTED = [
    ({"lr_schedule": "step"}, {"lr_decay": 0.1}, "without '--lr-epoch-decay'"),
    ({"no_validation": True}, {"validation_frequency": 2}, "without validation"),
    ({"no_validation": True}, {"best_metric": "loss"}, "without validation"),
    ({"no_validation": True}, {"validation_data_dir": "OTHER/validation"}, "without validation"),
    ({"validation_mode": "after"}, {"best_metric": "loss"}, "without validation during training"),
    ({}, {"weight_avg_n": 2}, "without '--weight-avg-strategy mean'"),
    ({"weight_avg_strategy": "mean"}, {"weight_avg_exp_decay": 0.5},
     "without '--weight-avg-strategy exponential'"),
    ({}, {"fine_tune_lr": 0.5}, "without '--half-res-training'"),
    ({}, {"rand_augment_magnitude": 3}, "without '--rand-augment'"),
    ({"augmentation": "none"}, {"rand_augment": 2}, "without '--augmentation standard'"),
    ({"lr_schedule": "no"}, {"lr_scheduler_freq": 2}, "keeps one learning rate"),
    ({"precision": "full"}, {"full_precision_norm": True}, "in full precision"),
    ({}, {"iterations": 1000}, "host calls per epoch"),
    ({}, {"keep_best": True}, "without '--checkpoint-save-freq'"),
    ({}, {"cutmix_disable_prob": 0.5}, "without '--cutmix-lambda-high'"),
    (SYNTHETIC, {"data_dir": "PHOTOS"}, "reads no folder"),
    (SYNTHETIC, {"normalization_location": "host"}, "made on the device"),
    (SYNTHETIC, {"eight_bit_io": True}, "made on the device"),
    (SYNTHETIC, {"match_classes": "position"}, "has no labels"),
    (SYNTHETIC, {"augmentation": "none"}, "not augmented"),
    (SYNTHETIC, {"validation_frequency": 2}, "not validated"),
    (SYNTHETIC, {"keep_last": 2}, "without '--checkpoint-path'"),
    (SYNTHETIC, {"checkpoint_save_freq": 2}, "without '--checkpoint-path'"),
]


@pytest.mark.parametrize(("base", "option", "why"), NOTED, ids=lambda value: "-".join(value)
                         if isinstance(value, dict) else None)
def test_options_without_effect_are_noted(base, option, why, places):
    noted = made("train", {**BASES["train"], **base, **option}, places)
    assert not noted.error
    flag = "--" + next(iter(option)).replace("_", "-")
    line, = (line for line in noted.notes.splitlines() if why in line)
    assert flag in line
    assert why not in made("train", {**BASES["train"], **base}, places).notes


@pytest.mark.parametrize(("option", "command"), [
    ("ema", "train"), ("ema", "run"), ("ema", "export"), ("weights_partial", "train"),
    ("weights_partial", "run"), ("weights_partial", "export")])
def test_options_of_weights_files_need_one(command, option, places):
    refused = made(command, {**BASES[command], option: True}, places)
    assert "--" + option.replace("_", "-") in refused.error


def test_averages_have_something_to_average_in_a_folder_that_is_not_named(places):
    seen = made("train", {**BASES["train"], "weight_avg_strategy": "mean"}, places).seen
    assert all(f"_{epoch}.pt" in seen for epoch in (1, 2, 3))


@pytest.mark.parametrize(("optimizer", "noted"), [
    ("sgd", False), ("sgd-combined-accum", True), ("of_a_plugin", False)])
def test_an_option_may_be_without_effect_beside_one_value_of_another(optimizer, noted, tmp_path):
    """A list of the values beside which it has one would leave out those of plugins."""
    plugin = tmp_path / "other.py"
    plugin.write_text("""import ipucnn

@ipucnn.hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec("of_a_plugin", "SGD", lr=0.1, target="torch.optim:SGD")]
""")
    with_plugin = Registry(PluginSettings(extra=(str(plugin),)))
    options = build(TrainOptions, {
        "model": "resnet8-cifar", "data": "synthetic", "backend": "poptorch",
        "optimizer": optimizer, "offload_optimizer": True}, registry=with_plugin)
    assert [note for note in idle_notes(options, {}, with_plugin) if "offload" in note] == [
        "'--offload-optimizer' has no effect with '--optimizer sgd_combined'"] * noted
