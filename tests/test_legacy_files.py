"""Files that an earlier program wrote still work, and mean the same: see `legacy/README.md`."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import PIL
import pytest
import torch
import yaml

import ipucnn
from ipucnn.core.options.declaration import declared as declared_options
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import Registry

LEGACY = Path(__file__).parent / "legacy"

UNSELECTED = {
    "options/run/run.json": [
        "batchnorm_momentum", "shortcut_type", "data_cache_dir", "data_cache_size", "device",
        "compile", "ipu_model", "report_hw_cycle_count"],
    "options/run/run_onnx.json": ["available_memory_proportion"],
    "options/train/train.json": [
        "batchnorm_momentum", "shortcut_type", "device", "compile", "ipu_model",
        "lr_epoch_decay", "lr_power"],
    "options/export/export.json": ["batchnorm_momentum", "shortcut_type"],
}
"""Options that were accepted and had no effect, since their owners are not selected. They are
refused by name now, and the rest of the file means what it did."""


NEW_DEFAULTS = {
    "data": ("cifar10", "image_folder"), "batch_size": (1, None), "precision": ("16.16", None),
    "epoch": (10, None), "lr": (0.01, None), "momentum": (0.0, 0.9),
    "lr_schedule": ("step", "cosine"), "warmup_epoch": (0.0, None),
    "validation_mode": ("after", "during"), "validation_frequency": (4, 1)}
"""Earlier defaults and those of today, for files that leave the option open."""


def read(path):
    return json.loads((LEGACY / path).read_text())


MADE_WITH = read("results/train.json")["environment"]["packages"]
# other releases add in another order, and draw and resize images a little differently; one image
# of 50 may be taken for another class
SAME = (torch.__version__.partition("+")[0], PIL.__version__) == (
    MADE_WITH["torch"], MADE_WITH["Pillow"])
CLOSE = {"rel": 1e-5 if SAME else 5e-4, "abs": 1e-6}
PER_CENT = {"abs": 2.01}
PROBABILITY = {"abs": 2e-6 if SAME else 2e-4}

TRAININGS = sorted(path.stem for path in LEGACY.glob("trainings/*.json"))
CONTINUED = [name for name in TRAININGS if name != "lamb_factors"]
EXPORTED = ["adamw_mix", "rmsprop_ema", "sgd_step"]

SHOW_ALL = """
import contextlib, io, json, runpy, sys

shown = []
for file, command in json.load(sys.stdin):
    sys.argv = ["ipucnn", "config", "show", file, "--command", command, "--json"]
    text, code = io.StringIO(), 0
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_module("ipucnn", run_name="__main__")
        except SystemExit as leaving:
            code = leaving.code
    shown.append([code, text.getvalue()])
json.dump(shown, sys.stdout)
"""


def profiles():
    """Return files of options, their commands, and the files that say what they mean."""
    found = [(path, path.parent.name, path.with_suffix(".json"))
             for path in sorted(LEGACY.glob("profiles/*/*.yaml"))]
    found += [(path, path.parent.name, path) for command in ("run", "train", "export")
              for path in sorted(LEGACY.glob(f"options/{command}/*.json"))]
    found += [(path, "train", path) for path in sorted(LEGACY.glob("trainings/**/options.yaml"))]
    return found


PROFILES = {str(path.relative_to(LEGACY)): (path, command, meaning)
            for path, command, meaning in profiles()}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The output of 'config show' for every file, by one process."""
    folder = tmp_path_factory.mktemp("selected")
    requested = []
    for file, (path, command, _) in PROFILES.items():
        if file in UNSELECTED:
            options = {name: value for name, value in read(file).items()
                       if name not in UNSELECTED[file]}
            path = folder / path.name
            path.write_text(json.dumps(options))
        requested.append((str(path), command))
    answer = subprocess.run([sys.executable, "-c", SHOW_ALL], input=json.dumps(requested).encode(),
                            stdout=subprocess.PIPE, check=True)
    return dict(zip(PROFILES, json.loads(answer.stdout.decode())))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working directory with the data that the trainings read."""
    folder = tmp_path / "data" / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    chance = random.Random(0)
    (folder / "batches.meta.txt").write_text("".join(f"class{i}\n" for i in range(10)))
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / f"{name}.bin").write_bytes(b"".join(
            bytes([i % 10]) + chance.getrandbits(8 * 3072).to_bytes(3072, "big")
            for i in range(50)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copied(name):
    shutil.copytree(str(LEGACY / "trainings" / name), name)
    return read(f"trainings/{name}.json")


def command(*arguments):
    """Run a command line that prints JSON, and return that."""
    done = subprocess.run([sys.executable, "-m", "ipucnn", *arguments, "--json"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.decode())


def flags(options):
    """Return saved options as a user would give them."""
    argv = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            argv.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            argv += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return argv


def defaults():
    """Return, for every option that plugins of the program own, its defaults, also former ones."""
    declared = {}
    for owner in builtin_owners(KINDS, Registry()):
        for option in declared_options(owner.options):
            declared.setdefault(option.name, []).extend(
                list(value) if isinstance(value, tuple) else value
                for value in (option.default, *option.option.former))
    return declared


EXPORT = {"checkpoint_path", "weights", "ema"}
"""Options that have other names now: '--checkpoint-path' is '--weights' with a checkpoint."""

FIGURES = {"loss", "accuracy", "top1", "top5"}


def unlike_cifar(rows):
    """Return rows without figures: new trainings crop and normalise CIFAR's images as published."""
    return [{name: value for name, value in row.items() if name not in FIGURES} for row in rows]


def check_options(found, recorded, apart=(), complete=True):
    """Names may be added; those recorded must have the same values.

    An option whose owner is not selected may be missing if it was recorded with its default. One
    that the file leaves open (it is not `complete`) may have another default now.
    """
    owned = defaults()
    other = {name: (value, found.get(name, "missing")) for name, value in recorded.items()
             if name not in apart and (found[name] != value if name in found
                                       else value not in owned.get(name, ()))}
    if not complete:
        other = {name: both for name, both in other.items() if both != NEW_DEFAULTS.get(name)}
    assert not other, f"recorded and found: {other}"


def check_rows(found, recorded):
    """Compare rows of figures, as far as they were recorded."""
    assert len(found) == len(recorded)
    for row, wanted in zip(found, recorded):
        assert {name: row.get(name) for name in wanted} == {
            name: pytest.approx(value, **(
                PER_CENT if name in ("accuracy", "top1", "top5") else CLOSE))
            if isinstance(value, float) else value for name, value in wanted.items()}


def metrics(folder):
    """Return the rows of a training's metrics, without times."""
    return [{name: value for name, value in json.loads(line).items()
             if name not in ("images_per_second", "data_wait_share", "checkpoint")}
            for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def check_restored(result, recorded):
    # of the phase that has ended: its fine-tuning and average
    apart = {name for name in recorded["options"] if name.startswith(("fine_tune", "weight_avg"))
             } if recorded["options"].get("input_size") == 24 else ()
    check_options(result["options"], recorded["options"], apart)
    rows, before = metrics(result["log_dir"]), len(recorded["rows"])
    wanted = recorded["rows"]
    if recorded["options"]["disable_metrics"]:  # earlier versions wrote an accuracy of 0
        wanted = [{name: value for name, value in row.items() if name != "accuracy"}
                  for row in wanted]
    check_rows(rows[:before], wanted)
    assert {row["kind"] for row in rows[before:]} <= {"validation"}  # after the training
    for name in ("model", "dataset", "epochs", "updates"):
        assert result[name] == recorded[name]
    assert result["loss"] == pytest.approx(recorded["loss"], **CLOSE)


@pytest.mark.parametrize("file", PROFILES)
def test_options_in_files_mean_what_they_did(shown, file):
    code, text = shown[file]
    assert code == 0, file
    meaning = PROFILES[file][2].read_text()
    check_options(json.loads(text), (yaml.safe_load if file.endswith("options.yaml") else
                                     json.loads)(meaning),
                  {*UNSELECTED.get(file, ()), *(EXPORT if "/export" in file else ())},
                  complete="profiles/" not in file)


@pytest.mark.parametrize("file", UNSELECTED)
def test_options_that_had_no_effect_are_refused_by_name(file):
    command = file.split("/")[1]
    done = subprocess.run([sys.executable, "-m", "ipucnn", "config", "show", str(LEGACY / file),
                           "--command", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 2
    named = set(re.findall(r"'--([a-z-]+)'", done.stderr.decode().partition("hint:")[0]))
    assert named == {name.replace("_", "-") for name in UNSELECTED[file]}


@pytest.mark.parametrize("name", CONTINUED)
def test_a_training_is_continued(work, name):
    recorded = copied(name)
    check_restored(ipucnn.restore(name, **recorded["restore"]).as_dict(), recorded["restored"])


def test_a_training_is_continued_by_the_command_line(work):
    recorded = copied("lamb_factors")
    result = command("restore", "--checkpoint-path", "lamb_factors", "--progress", "off",
                     *flags(recorded["restore"]))
    check_restored(result, recorded["restored"])


@pytest.mark.parametrize("name", TRAININGS)
def test_checkpoints_score_what_they_did(work, name):
    recorded = copied(name)
    check_rows([found.figures() for found in ipucnn.validate(name, batch_size=50)
                if "_averaged" not in found.checkpoint], recorded["validated"])


@pytest.mark.parametrize("name", [name for name in TRAININGS if name != "resnet_trainer"])
def test_the_options_of_a_training_repeat_it(work, name):
    copied(name)
    (options,) = {path for path in Path(name).glob("**/options.yaml")
                  if path.parent.name != "fine-tune"}
    ipucnn.train(config=str(options), checkpoint_path="again", log_dir=None,
                 validation_mode="during" if name == "rmsprop_ema" else "none")
    recorded = metrics(options.parent)
    if name != "sgd_step":
        recorded = unlike_cifar(recorded)
    check_rows(metrics("again")[:len(recorded)], recorded)


@pytest.mark.parametrize("name", EXPORTED)
def test_checkpoints_are_exported(work, name):
    recorded = copied(name)["exported"]
    chosen = {"adamw_mix": {"dynamic_batch": True, "target": "onnxruntime"},
              "rmsprop_ema": {"batch_size": 10, "ema": True},
              "sgd_step": {"batch_size": 10, "normalization_location": "device"}}[name]
    result = ipucnn.export(checkpoint_path=name, output="network.onnx", **chosen)
    assert (result.model, result.input) == (recorded["model"], recorded["input"])
    ipucnn.run(onnx="network.onnx", backend="onnxruntime", precision="full", batch_size=10,
               data=recorded["data"], iterations=1, predictions="rows.json", top_k=8)
    for row, wanted in zip(json.loads(Path("rows.json").read_text()), recorded["predictions"]):
        assert {row[f"name_{k}"]: row[f"probability_{k}"]
                for k in range(1, 9)} == pytest.approx(wanted, **PROBABILITY)


def test_saved_options_of_a_validation(work):
    recorded = copied("rmsprop_ema")
    document = command("validate", *flags(read("options/validate/validate.json")))
    check_rows(document["validations"],
               [row for row in recorded["validated"] if row["weights"] == "ema"])
    assert Path("matrix.csv").exists()
    written = json.loads(Path("validated.json").read_text())  # with what a report shows
    assert {name: written[name] for name in document} == document


@pytest.mark.parametrize("name", ["average", "average_anew"])
def test_saved_options_of_an_average(work, name):
    copied("half_resolution")
    result = command("average", *flags(read(f"options/average/{name}.json")))
    assert [Path(path).name for path in result["files"]] == [
        "resnet8-cifar_cifar10_1.pt", "resnet8-cifar_cifar10_2.pt"]
    check_rows([found.figures() for found in ipucnn.validate(result["path"])],
               read(f"results/{name}.json")["validations"])
    if name == "average":
        weights = torch.load(result["path"], weights_only=True)["model"]
        written = torch.load("half_resolution/resnet8-cifar_cifar10_2_averaged.pt",
                             weights_only=True)["model"]
        assert all(torch.equal(weights[key], value) for key, value in written.items())


@pytest.mark.parametrize("name", ["run", "train"])
def test_the_options_in_a_result_repeat_it(work, name):
    copied("sgd_step")
    recorded = read(f"results/{name}.json")
    Path("saved.yaml").write_text(yaml.safe_dump(recorded["options"]))
    result = getattr(ipucnn, name)(config="saved.yaml").as_dict()
    assert set(recorded) <= set(result)
    check_options(result["options"], recorded["options"], {
        "num_classes",  # of the checkpoint
        "checkpoint_path", "keep_last"})  # a training keeps its model now
    assert result["plan"] == {**result["plan"], **recorded["plan"]}  # keys may be added
    if name == "run":
        check_rows([result["accuracy"]], [recorded["accuracy"]])
        assert len(Path("predictions.csv").read_text().splitlines()) == 1 + recorded["images"]
    else:
        rows = unlike_cifar(recorded["validations"])
        for row in rows:
            del row["checkpoint"]  # a training without a folder keeps its checkpoints, too
        check_rows(result["validations"], rows)
