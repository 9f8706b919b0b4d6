"""Shipped profiles on machines without the devices they were written for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.selection import choose_backend
from ipucnn.core.execution.shipped_profiles import fitted_to_machine, left_out_notes
from ipucnn.core.options.profiles import available, resolve
from ipucnn.core.registry.registry import registry
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made
from ipucnn.inference.options import RunOptions
from ipucnn.onnx.options import ExportOptions
from ipucnn.training.options.train_options import TrainOptions


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of 24 images in 8 classes."""
    folder = tmp_path_factory.mktemp("photos")
    write_made("shapes", str(folder), GeneratedFiles(per_class=3, size=32))
    return folder


def _train(given):
    return fitted_to_machine(resolve(TrainOptions, given, "train"), False, registry())


@pytest.mark.parametrize("backend", [{}, {"backend": "torch"}])
def test_what_is_for_ipus_is_left_out_elsewhere_and_named(backend):
    options = _train({"config": "resnet50", **backend})
    assert options.plugins.value("enable_stochastic_rounding") is None
    assert (options.execution.replicas, options.execution.precision) == (1, None)
    assert options.execution.gradient_accumulation == 57
    [note] = left_out_notes(options)
    assert note.startswith("profile 'resnet50' is used without what does not fit here: ")
    for flag in ("--enable-stochastic-rounding", "--half-partial", "--replicas", "--precision"):
        assert flag in note
    assert "--enable-stochastic-rounding" not in json.dumps(options.as_dict())


@pytest.mark.parametrize("profile", [
    profile.name for profile in available("train")])
def test_every_profile_is_for_a_machine_without_ipus(profile):
    options = _train({"config": profile})
    assert options.execution.replicas == 1
    assert not options.plugins.deferred.keys() - {"available_memory_proportion"}
    if profile in ("resnet20-cifar", "resnet-main-py"):
        assert options.plugins.left_out == ("enable_stochastic_rounding",)
        assert options.optimisation.lr == 0.5


def test_options_of_another_plugin_than_the_profiles_go_with_it():
    options = _train({"config": "resnet-main-py", "norm_type": "BATCH", "optimizer": "adamw"})
    assert options.plugins.left_out == ("enable_stochastic_rounding",)
    assert "groupnorm_group_num" not in options.as_dict()
    bulk = resolve(RunOptions, {"config": "resnext-bulk", "synthetic": True, "num_ipus": 2}, "run")
    assert (bulk.dataset.name, bulk.execution.batch_size) == ("synthetic", 6)
    assert (bulk.dataset.data_dir, bulk.dataset.dataloader_worker) == (None, None)
    bulk = resolve(RunOptions, {"config": "resnext-bulk", "data": "real"}, "run")
    assert (bulk.dataset.data_dir, bulk.dataset.dataloader_worker) == (None, 12)


def test_a_folder_of_the_user_is_read_as_what_it_is(photos):
    options = _train({"config": "resnet-main-py", "data_dir": str(photos)})
    assert (options.network.model, options.dataset.data) == ("resnet20-cifar", "image_folder")
    assert "data" in options.left_out


def test_bulk_inference_has_the_defaults_of_the_old_scripts():
    for name in ("resnext-bulk", "resnext-inference-launch-py"):
        bulk = resolve(RunOptions, {"config": name}, "run")
        assert (bulk.network.model, bulk.dataset.data) == ("resnext101_32x4d", "coco")
        assert bulk.plan(False).combined_batch == 8 * 6 * 1500
        assert bulk.plugins.of("dataset", "coco").centre_crop is True
    file = resolve(ExportOptions, {"config": "resnext-bulk", "batch-size": 6}, "export")
    assert (file.network.model, file.file.target) == ("resnext101_32x4d", "popart")
    assert (file.file.batch_size, file.file.model_path) == (6, "models")


def test_values_of_the_command_line_are_kept():
    options = _train({"config": "resnet50", "backend": "torch", "replicas": 2,
                      "precision": "16.16"})
    assert (options.execution.replicas, options.execution.precision) == (2, "16.16")
    assert "replicas" not in options.left_out


@pytest.mark.parametrize(("profile", "given", "place", "eight_bit"), [
    ("run-benchmark-py", {"eight_bit_io": True}, "device", True),
    ("resnet50-mk2", {"normalization_location": "host"}, "host", False),
    ("resnet50-mk2", {"normalization_location": "none"}, "none", True)])
def test_the_input_on_the_command_line_overrides_the_profile(profile, given, place, eight_bit):
    options = resolve(RunOptions, {"config": profile, **given}, "run")
    assert options.dataset.input == (place, eight_bit)
    training = resolve(TrainOptions, {"config": "resnet50", "normalization_location": "host"},
                       "train")
    assert training.dataset.input == ("host", False)


def test_a_profile_without_its_ipu_options_is_used_as_it_is():
    options = _train({"config": "resnet50", "backend": "torch", **dict.fromkeys(
        ("enable_stochastic_rounding", "half_partial", "disable_stable_batchnorm"), False),
        "exchange_memory_target": None})
    assert options.execution.replicas == 16
    assert left_out_notes(options) == []


def test_an_ipu_option_on_the_command_line_is_refused():
    with pytest.raises(UnavailableError, match="num-io-tiles"):
        _train({"config": "resnet50", "num_io_tiles": 32})
    options = _train({"config": "train-py", "enable_stochastic_rounding": True})
    with pytest.raises(UnavailableError) as caught:  # the profile does not set it
        choose_backend(options, options.plan(False), registry())
    assert caught.value.hint.startswith("leave it out, or add '--no-enable-stochastic-rounding'")
    with pytest.raises(UsageError, match="num-io-tiles"):
        _train({"config": "resnet50", "num_io_tiles": 32, "backend": "torch"})


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_file_of_the_user_is_refused_as_before(tmp_path, backend):
    path = tmp_path / "mine.yaml"
    path.write_text("half_partial: true\n")
    made = subprocess.run([sys.executable, "-m", "ipucnn", "train", "--config", str(path),
                           "--backend", backend, "--data", "generated"],
                          capture_output=True, text=True, check=False)
    assert made.returncode == 2
    assert "--no-half-partial" in made.stderr


def test_a_run_leaves_out_what_is_for_ipus():
    options = fitted_to_machine(resolve(RunOptions, {"config": "resnet50"}), False, registry())
    assert options.execution.device_iterations == 1
    assert options.execution.batch_size == 90
    assert "half_partial" in options.plugins.left_out


def test_a_folder_of_images_is_read_as_what_it_is(photos):
    options = resolve(TrainOptions, {"config": "resnet50-mk2-pipelined",
                                     "data_dir": str(photos)}, "train")
    assert (options.dataset.data, options.augmentation.use_bbox_info) == ("image_folder", False)
    assert set(options.left_out) == {"data", "use_bbox_info"}
    named = resolve(TrainOptions, {"config": "resnet50", "data_dir": str(photos),
                                   "data": "imagenet"}, "train")
    assert named.dataset.data == "imagenet"


def test_a_training_with_a_profile_for_ipus_on_a_cpu(photos, tmp_path):
    made = subprocess.run(
        [sys.executable, "-m", "ipucnn", "train", "--config", "resnet50", "--model",
         "resnet8-cifar", "--data-dir", str(photos), "--epoch", "1", "--backend", "torch",
         "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    result = json.loads(made.stdout)
    [note] = [note for note in result["notes"] if note.startswith("profile 'resnet50'")]
    assert {"--gradient-accumulation", "--lr", "--data"} <= set(
        note.partition(": ")[2].split(", "))
    [folder] = (tmp_path / "logs").iterdir()
    saved = yaml.safe_load((folder / "options.yaml").read_text())
    assert (saved["gradient_accumulation"], saved["replicas"]) == (1, 1)
    assert saved["lr"] < 0.1
    assert list(folder.glob("*.pt"))  # a training here is no measurement: the model is kept
