"""The built-in plugins pass the suites they ship with."""

import pytest
from PIL import Image

from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry, State
from ipucnn.testing import ModelSuite, check_plugin
from ipucnn.testing.suite import checks

REGISTRY = Registry(PluginSettings(disable_all=True))

# One network of each construction that takes small images. The others are deeper or wider, or pool
# a fixed 7x7; the tests of the models compare them with their source libraries.
MODELS = ["resnet18", "resnext50", "mobilenet", "mobilenet-v3-small", "efficientnet-b0",
          "resnet8-cifar"]
CHEAP = {check: "compared with its source library elsewhere"
         for check in checks(ModelSuite)
         if check not in ("test_target_resolves", "test_options_are_valid",
                          "test_takes_its_declared_options")}


def unexpected(results):
    return {check: result for check, result in results.items() if result != "passed"}


@pytest.mark.parametrize("name", MODELS)
def test_model(name):
    assert unexpected(check_plugin("model", name, REGISTRY, input_size=64)) == {}


@pytest.mark.parametrize("name", [n for n in REGISTRY.names("model") if n not in MODELS])
def test_model_of_a_tested_construction(name):
    results = check_plugin("model", name, REGISTRY, exclude=CHEAP)
    assert results["test_target_resolves"] == "passed"
    assert results["test_options_are_valid"] == "passed"
    assert results["test_takes_its_declared_options"] == "passed"


@pytest.mark.parametrize("name", REGISTRY.names("norm-layer"))
def test_norm_layer(name):
    assert unexpected(check_plugin("norm-layer", name, REGISTRY)) == {}
    own = {"group": {"norm_eps": 0.25, "groupnorm_group_num": 4},
           "batch": {"norm_eps": 0.25, "batchnorm_momentum": 0.5}, "none": {}}[name]
    assert unexpected(check_plugin("norm-layer", name, REGISTRY, options=own)) == {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two class folders of real JPEGs, which is also a folder of images."""
    root = tmp_path_factory.mktemp("images")
    for number in range(6):
        path = root / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40 + number, 30), (40 * number, 99, 7)).save(str(path), "JPEG")
    return root


# Their own tests write files in the published layouts and run the suite on them.
OTHER_LAYOUTS = ("cifar10", "cifar100", "imagenet", "webdataset")


@pytest.mark.parametrize("name", [n for n in REGISTRY.names("dataset") if n not in OTHER_LAYOUTS])
def test_dataset(name, folder):
    spec = REGISTRY.get_typed(DatasetSpec, name)
    results = check_plugin("dataset", name, REGISTRY, data_dir=str(folder))
    if spec.on_device:
        assert set(unexpected(results).values()) == {
            "skipped: its images are made on the device"}
    else:
        assert unexpected(results) == {}


@pytest.mark.parametrize("name", REGISTRY.names("loss"))
def test_loss(name):
    results = unexpected(check_plugin("loss", name, REGISTRY))
    assert set(results) == {
        "cross-entropy": {"test_several_labels_per_image"},
        "binary-cross-entropy": {"test_its_description_is_what_it_computes"},
        "focal": {"test_several_labels_per_image", "test_its_description_is_what_it_computes"},
    }[name]
    assert all(result.startswith("skipped: ") for result in results.values())


@pytest.mark.parametrize("name", REGISTRY.names("logger"))
def test_logger(name):
    found = set(unexpected(check_plugin("logger", name, REGISTRY)).values())
    if name != "files":  # their packages need not be installed
        found = {result for result in found if not result.startswith("skipped: not usable here: ")}
    assert found == set()


def test_losses_with_options():
    weighted = {"label_smoothing": 0.1, "class_weights": (0.5, 1.0, 2.0, 3.0, 0.25)}
    assert set(unexpected(check_plugin("loss", "cross-entropy", REGISTRY, options=weighted))) == {
        "test_several_labels_per_image", "test_mixed_labels_count_by_their_shares"}
    for name, options in (
            ("binary-cross-entropy", {"label_smoothing": 0.1, "class_weights": (2.0,) * 5}),
            ("focal", {"focal_gamma": 0.5, "class_weights": (2.0, 1.0, 1.0, 1.0, 0.5)})):
        assert all(result.startswith("skipped: ") for result in unexpected(
            check_plugin("loss", name, REGISTRY, options=options)).values())


@pytest.mark.parametrize("name", REGISTRY.names("backend"))
def test_backend(name):
    results = unexpected(check_plugin("backend", name, REGISTRY))
    assert {result for result in results.values() if not result.startswith("skipped: ")} == set()
    if name == "torch":
        assert results == {}


@pytest.mark.parametrize("name", REGISTRY.names("launcher"))
def test_launcher(name):
    results = unexpected(check_plugin("launcher", name, REGISTRY))
    if name != "torchrun":
        assert results.pop("test_start_returns_the_exit_code_of_a_rank") == (
            "skipped: its own program starts the processes")
    if name == "poprun":  # `tests/commands/test_poprun.py` joins with the doubles
        assert results.pop("test_one_instance_joins").startswith("skipped: not usable here: ")
    assert results == {}


def test_no_built_in_is_left_out():
    assert {row.kind for row in REGISTRY.rows() if row.state is State.OK} == {
        "model", "dataset", "norm-layer", "optimizer", "lr-schedule", "backend", "loss", "logger",
        "launcher"}
