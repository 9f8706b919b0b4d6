import hashlib
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ipucnn.__main__ import invoke
from ipucnn.core.errors import PluginError, UnknownNameError, UsageError, WeightsError
from ipucnn.core.options.composition import PluginOptions
from ipucnn.core.options.parts import NetworkPart
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry, registry
from ipucnn.models.build import build_model, create_model, describe_model, model_splits, seeded

PLUGIN = '''
import dataclasses
import torch
from ipucnn import ModelSpec, PublishedWeights, hookimpl, option

@dataclasses.dataclass(frozen=True)
class TinyOptions:
    width: int = option(4, "Channels of the convolution.", minimum=1, fixed="model")

def build(num_classes, options):
    width = options.width
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3), torch.nn.{norm}, torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(width, num_classes))

def build_nothing(num_classes):
    return None

def build_badly(num_classes):
    raise KeyError("width")

def build_concretely(num_classes):
    return torch.nn.Linear(int(torch.ones(1).item()), num_classes)

WEIGHTS = (PublishedWeights("first", {url!r}, {digest!r}, "MIT", "us", 50.0),)

@hookimpl
def ipucnn_models():
    return [
        ModelSpec("tiny", "small", build, input_size=32, num_classes=6, options=TinyOptions,
                  weights=WEIGHTS),
        ModelSpec("nothing", "gives none", build_nothing),
        ModelSpec("bad", "fails", build_badly),
        ModelSpec("concrete", "computes while it is built", build_concretely),
    ]
'''


@pytest.fixture
def plugin(tmp_path):
    def make(url="http://no.invalid/x.pth", digest="", norm="BatchNorm2d(width)"):
        path = tmp_path / f"local_{abs(hash((url, digest, norm)))}.py"
        path.write_text(PLUGIN.format(url=url, digest=digest, norm=norm))
        return Registry(PluginSettings(extra=(str(path),)))

    return make


def test_a_built_model_has_its_record():
    built = create_model("ResNet18", weights="random", num_classes=10)
    assert (built.spec.name, built.input_size, built.num_outputs) == ("resnet18", 224, 10)
    assert built.weights.source == "random"
    assert built.module.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert create_model("mobilenet-v3-small", weights="random").num_outputs == 1000


def test_the_same_seed_gives_the_same_model():
    def state():
        torch.manual_seed(3)
        return create_model("resnet18", weights="random", normlayer="group").module.state_dict()

    first, second = state(), state()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_published_weights_of_a_plugin_end_to_end(plugin, file_server, tmp_path, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IPUCNN_WEIGHTS_URL", raising=False)
    state = create_model("tiny", weights="random", registry=plugin()).module.state_dict()
    content = io.BytesIO()
    torch.save(state, content)
    file_server.files["/x.pth"] = content.getvalue()
    registry = plugin(f"{file_server.url}/x.pth",
                      hashlib.sha256(content.getvalue()).hexdigest()[:8])
    for options in ({}, {"weights": "pretrained:first"}, {"input_image_padding": True}):
        built = create_model("tiny", registry=registry, **options)
        assert built.weights.tag == "first"
        ours = built.module.state_dict()
        assert all(torch.equal(ours[key], state[key]) for key in state)
    built = create_model("tiny", registry=registry, num_classes=2, normlayer="group",
                         groupnorm_group_num=2)
    assert built.weights.kept_random == ("4.weight", "4.bias")
    assert built.weights.dropped == ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    with pytest.raises(WeightsError, match="another model than 'tiny'"):
        create_model("tiny", registry=registry, width=8)


def test_loaded_weights_replace_the_residual_zeros(tmp_path):
    random = create_model("resnet18", weights="random", num_classes=2).module
    torch.nn.init.ones_(random.layer1[0].bn2.weight)
    torch.save(random.state_dict(), tmp_path / "net.pt")
    built = create_model("resnet18", weights=str(tmp_path / "net.pt"), num_classes=2)
    assert built.module.layer1[0].bn2.weight.all()
    assert not built.module.layer1[1].bn2.weight.any()


def test_model_options(plugin):
    registry = plugin()
    built = create_model("tiny", weights="random", width=8, registry=registry)
    assert built.module[0].out_channels == 8
    create_model("resnet18", weights="random", efficientnet_group_dim=None)
    with pytest.raises(UsageError) as caught:
        create_model("resnet18", weights="random", width=8, registry=registry)
    assert caught.value.message == "'--width' is an option of model tiny; this run uses resnet18"
    assert caught.value.hint == "leave it out, or choose '--model tiny'"
    with pytest.raises(UsageError, match="'--efficientnet-group-dim' is an option of") as caught:
        create_model("resnet18", weights="random", efficientnet_group_dim=16)
    assert "models efficientnet-b0, efficientnet-b1" in caught.value.message
    with pytest.raises(UsageError, match="'--width': 0 is too small"):
        create_model("tiny", weights="random", width=0, registry=registry)


def test_a_model_without_batch_norm(plugin):
    registry = plugin(norm="ReLU()")
    create_model("tiny", weights="random", registry=registry)
    for options in ({"normlayer": "group"}, {"norm_eps": 0.5}):
        with pytest.raises(UsageError, match="model 'tiny' has no batch norm"):
            create_model("tiny", weights="random", registry=registry, **options)


@pytest.mark.parametrize(("name", "message"), [
    ("nothing", "the target of model 'nothing' of .* returned None"),
    ("bad", "model 'bad' of local_.* cannot be built: KeyError: 'width'")])
def test_a_plugin_that_breaks_its_contract(plugin, name, message):
    with pytest.raises(PluginError, match=message):
        create_model(name, weights="random", registry=plugin())


def test_bad_names_and_numbers():
    with pytest.raises(UnknownNameError, match="unknown model 'resnet51'"):
        create_model("resnet51")
    with pytest.raises(UnknownNameError, match="unknown norm-layer 'grup'"):
        create_model("resnet18", weights="random", normlayer="grup")
    with pytest.raises(UsageError, match="'--num-classes': 0 is too small"):
        create_model("resnet18", num_classes=0)
    with pytest.raises(UsageError, match="a model cannot have 0 classes"):
        build_model(NetworkPart("resnet18", num_classes=0), PluginOptions(), registry())


def test_a_description_is_plain_and_complete():
    facts = describe_model("efficientnetb1")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["name"] == "efficientnet-b1"
    assert facts["aliases"] == ["efficientnetb1"]
    assert facts["provider"].startswith("ipucnn ")
    assert (facts["input_size"], facts["num_classes"]) == (240, 1000)
    assert facts["parameters"] == 7794184
    assert facts["multiply_adds"] == pytest.approx(0.69e9, rel=0.01)
    assert facts["source"] == "efficientnet_pytorch"
    weights = facts["weights"][0]
    assert (weights["tag"], weights["licence"], weights["top1"], weights["top5"]) == (
        "imagenet", "Apache-2.0", 78.8, None)


def test_a_model_that_cannot_be_followed_is_still_described(plugin):
    facts = describe_model("concrete", plugin())
    assert facts["parameters"] == 2000
    assert facts["multiply_adds"] is None


def test_splits_by_model_name(plugin):
    assert model_splits("tiny", plugin()) == ["1", "2", "3", "4"]
    splits = model_splits("resnet50")
    assert {"layer1/2", "layer2", "layer4/2/bn3", "fc"} <= set(splits)
    assert "conv1" not in splits
    with pytest.raises(UnknownNameError):
        model_splits("resnet51")


@pytest.mark.parametrize("command", [
    "run --data synthetic --weights pretrained", "plan", "export --weights pretrained",
    "train --data shapes"])
@pytest.mark.parametrize("size", [192, 225])
def test_an_input_that_a_network_cannot_pool_is_refused_before_anything_is_built(
        capsys, monkeypatch, command, size):
    """The pool of pretrainedmodels' ResNeXt is for maps of 7x7 values."""
    monkeypatch.setattr("ipucnn.models.build._build", None)  # nothing is
    assert invoke([*command.split(), "--model", "resnext101_32x4d", "--input-size", str(size)]) == 2
    err = capsys.readouterr().err
    assert f"error: model 'resnext101_32x4d' cannot compute images of {size} pixels" in err
    assert "193 to 224" in err


SIZED = '''
import torch
import ipucnn

def build(num_classes, input_size=None):
    return torch.nn.Sequential(torch.nn.Flatten(),
                               torch.nn.Linear(3 * input_size ** 2, num_classes))

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec("sized", "for one size", build, input_size=8)]
'''


def test_a_network_is_built_for_the_size_of_its_images(tmp_path):
    (tmp_path / "sized_plugin.py").write_text(SIZED)
    used = Registry(PluginSettings(extra=(str(tmp_path / "sized_plugin.py"),)))
    for size, given in ((8, {}), (12, {"input_size": 12})):
        built = create_model("sized", registry=used, num_classes=5, weights="random", **given)
        assert built.input_size == size
        assert built.module(torch.zeros(1, 3, size, size)).shape == (1, 5)
    assert model_splits("sized", used) == ["1"]


def test_threads_draw_the_same_random_weights():
    def drawn(_):
        with seeded(1):
            first = torch.rand(1)
            time.sleep(0.01)  # the others would draw now
            return [first.item(), torch.rand(1).item()]

    state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(drawn, range(4)))
    assert found == [found[0]] * 4
    assert torch.equal(torch.get_rng_state(), state)
