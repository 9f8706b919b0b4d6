import argparse
import hashlib
import io
import os
import pickle
import socket
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from ipucnn.core.errors import DataError, IpucnnError, UsageError, WeightsError
from ipucnn.core.registry.records import ModelSpec, PublishedWeights
from ipucnn.core.registry.registry import registry
from ipucnn.models.build import create_model
from ipucnn.models.weights import load_weights
from ipucnn.models.weights_file import read_checkpoint, read_tensor
from ipucnn.plugins.datasets._webdataset.tensors import pixels_of

SMALL = ModelSpec(name="small", summary="two convolutions", target="x:y", num_classes=6)


def small(classes=6, seed=0, norm=nn.BatchNorm2d):
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(
        conv=nn.Conv2d(3, 4, 3), bn=norm(4), conv2=nn.Conv2d(4, 4, 3), bn2=norm(4),
        pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(4, classes)))


def trained():
    """A model whose every entry differs from a fresh one."""
    model = small(seed=9)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.rand(value.shape) + 1 if value.is_floating_point() else value + 7)
    return model


def same(model, state):
    own = model.state_dict()
    return list(own) == list(state) and all(torch.equal(own[key], state[key]) for key in own)


@pytest.fixture
def state():
    return trained().state_dict()


def written(path, content, **options):
    torch.save(content, path, **options)
    return str(path)


def published(path, url):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return PublishedWeights("v1", url, digest, licence="MIT", source="us")


@pytest.fixture
def mirror(file_server, tmp_path, monkeypatch):
    """Publishes a state dictionary: returns the record that names it."""
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IPUCNN_WEIGHTS_URL", raising=False)

    def publish(spec, state):
        path = tmp_path / "published.pth"
        torch.save(state, path)
        file_server.files["/net.pth"] = path.read_bytes()
        return replace(spec, weights=(published(path, f"{file_server.url}/net.pth"),))

    return publish


# -- published weights ---------------------------------------------------------------------------

def source_model(name):
    torch.manual_seed(5)
    if name == "efficientnet-b0":
        from efficientnet_pytorch import EfficientNet

        return EfficientNet.from_name(name)
    return getattr(torchvision.models, name)(weights=None)


@pytest.mark.parametrize(("name", "source"), [
    ("resnet18", "resnet18"), ("mobilenet", "mobilenet_v2"),
    ("efficientnet-b0", "efficientnet-b0")])
def test_published_files_make_our_model_the_source_librarys(name, source, mirror, file_server):
    theirs = source_model(source).eval()
    spec = mirror(registry().get_typed(ModelSpec, name), theirs.state_dict())
    ours = create_model(name, weights="random").module.eval()
    report = load_weights(ours, spec, "pretrained")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
    assert same(ours, theirs.state_dict())
    assert (report.tag, report.licence, report.source) == (
        "v1", "MIT", f"{file_server.url}/net.pth")
    assert report.sha256.startswith(spec.weights[0].sha256)
    assert report.loaded == len(theirs.state_dict())
    assert report.kept_random == report.dropped == ()
    assert report.summary() == (f"{report.loaded} entries from {report.source} "
                                f"(sha256 {report.sha256[:8]})")


def test_published_weights_are_downloaded_once(mirror, state, file_server):
    spec = mirror(SMALL, state)
    for _ in range(2):
        assert load_weights(small(), spec, "pretrained").loaded == len(state)
    assert file_server.requests == ["/net.pth"]


def test_a_tag_chooses_among_published_weights(mirror, state):
    spec = mirror(SMALL, state)
    spec = replace(spec, weights=(replace(spec.weights[0], tag="other", url="http://no.invalid/x"),
                                  *spec.weights))
    assert load_weights(small(), spec, "pretrained:V1").tag == "v1"
    with pytest.raises(UsageError, match="no published weights 'v11'") as caught:
        load_weights(small(), spec, "pretrained:v11")
    assert "'v1'" in caught.value.hint
    assert "tags: other, v1" in caught.value.hint


def test_a_model_without_published_weights():
    with pytest.raises(WeightsError, match="model 'small' has no published weights") as caught:
        load_weights(small(), SMALL, "pretrained")
    assert "--weights random" in caught.value.hint


def test_a_mirror_serves_what_the_publisher_does(mirror, state, file_server, monkeypatch):
    spec = mirror(SMALL, state)
    spec = replace(spec, weights=(replace(spec.weights[0], url="https://no.invalid/a/net.pth"),))
    monkeypatch.setenv("IPUCNN_WEIGHTS_URL", file_server.url + "/")
    assert load_weights(small(), spec, "pretrained").source == f"{file_server.url}/net.pth"


def test_the_built_in_models_download_is_checked(file_server, tmp_path, monkeypatch):
    # the real record, and a well-formed file that is not the published one
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path))
    monkeypatch.setenv("IPUCNN_WEIGHTS_URL", file_server.url)
    spec = registry().get_typed(ModelSpec, "resnet18")
    content = io.BytesIO()
    torch.save({"fc.bias": torch.zeros(1000)}, content)
    file_server.files["/resnet18-f37072fd.pth"] = content.getvalue()
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd.pth' has hash .* expected f37072fd"):
        load_weights(small(), spec, "pretrained")
    assert os.listdir(tmp_path / "weights") == []


def test_a_truncated_download(mirror, state, file_server):
    spec = mirror(SMALL, state)
    file_server.cut = 100
    with pytest.raises(WeightsError, match="broke before the end"):
        load_weights(small(), spec, "pretrained")


def test_no_network_names_both_ways_out(mirror, state, monkeypatch):
    spec = mirror(SMALL, state)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("IPUCNN_WEIGHTS_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(WeightsError, match=r"net.pth': the connection .* failed") as caught:
        load_weights(small(), spec, "pretrained")
    assert "'--weights random'" in caught.value.hint
    assert "'--weights FILE'" in caught.value.hint


def test_another_class_count_leaves_the_head_random(mirror, state):
    spec = mirror(SMALL, state)
    model = small(classes=3)
    head = model.fc.weight.clone()
    report = load_weights(model, spec, "pretrained", num_classes=3)
    assert report.kept_random == ("fc.weight", "fc.bias")
    assert "random: 'fc.weight', 'fc.bias'" in report.summary()
    assert torch.equal(model.fc.weight, head)
    assert torch.equal(model.conv.weight, state["conv.weight"])


def test_published_batch_norms_serve_group_norms(mirror, state):
    spec = mirror(SMALL, state)
    model = small(norm=lambda channels: nn.GroupNorm(2, channels))
    report = load_weights(model, spec, "pretrained")
    assert torch.equal(model.bn.weight, state["bn.weight"])
    assert report.kept_random == ()
    assert set(report.dropped) == {f"{n}.{e}" for n in ("bn", "bn2") for e in (
        "running_mean", "running_var", "num_batches_tracked")}
    model = small(norm=lambda channels: nn.Identity())
    report = load_weights(model, spec, "pretrained")
    assert len(report.dropped) == 10
    assert "dropped: 'bn.weight', 'bn.bias', 'bn.running_mean' and 7 more" in report.summary()


def test_published_weights_of_another_model_are_an_error(mirror, state):
    spec = mirror(SMALL, {**state, "conv3.weight": torch.zeros(4, 4, 3, 3)})
    with pytest.raises(WeightsError, match=r"1 unexpected \('conv3.weight'\)"):
        load_weights(small(), spec, "pretrained")
    assert load_weights(small(), spec, "pretrained", partial=True).dropped == ("conv3.weight",)


def test_random_weights_touch_nothing():
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert load_weights(model, SMALL, "random").summary() == "random weights"
    assert same(model, before)


# -- files ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrap", [
    lambda s: s,
    lambda s: {"model_state_dict": s, "epoch": 3, "loss": 0.5, "model": "small"},
    lambda s: {"state_dict": s, "arch": "small"},
    lambda s: {"model": s, "optimizer": {"state": {}}},
    lambda s: {f"module.{k}": v for k, v in s.items()},
    lambda s: {"state_dict": {f"module._orig_mod.model.module.{k}": v for k, v in s.items()}},
    lambda s: {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in s.items()}},
    lambda s: {"state_dict": {f"net.{k}": v for k, v in s.items()}},
])
def test_checkpoint_layouts(tmp_path, state, wrap):
    model = small()
    path = written(tmp_path / "net.pt", wrap(state))
    report = load_weights(model, SMALL, path)
    assert same(model, state)
    assert (report.source, report.path, report.licence) == (path, path, "")


@pytest.mark.parametrize("new_format", [True, False])
def test_both_formats_of_torch_save(tmp_path, state, new_format):
    model = small()
    path = written(tmp_path / "n.pt", state, _use_new_zipfile_serialization=new_format)
    load_weights(model, SMALL, path)
    assert same(model, state)


def test_safetensors(tmp_path, state):
    path = tmp_path / "net.safetensors"
    save_file(state, str(path))
    model = small()
    load_weights(model, SMALL, str(path))
    assert same(model, state)


@pytest.mark.parametrize("name", ["net.pt", "net.SAFETENSORS"])
def test_safetensors_are_recognised_by_their_content(tmp_path, state, name):
    save_file(state, str(tmp_path / name))
    model = small()
    load_weights(model, SMALL, str(tmp_path / name))
    assert same(model, state)


@pytest.mark.parametrize("key", ["ema", "state_dict_ema", "model_ema"])
def test_moving_averages_of_other_trainers(tmp_path, state, key):
    model, others = small(), {name: value + 1 for name, value in state.items()}
    path = written(tmp_path / "net.pt", {"state_dict": others, key: state})
    load_weights(model, SMALL, path, ema=True)
    assert same(model, state)


def test_two_parts_of_a_network_are_not_chosen_from(tmp_path, state):
    both = {f"{part}.{name}": value for part in ("net", "teacher") for name, value in state.items()}
    with pytest.raises(WeightsError, match=r"unexpected \('net\.conv\.weight'"):
        load_weights(small(), SMALL, written(tmp_path / "net.pt", both))


@pytest.mark.parametrize("change", [lambda value: value.to_sparse(),
                                    lambda value: value.to("meta"),
                                    lambda value: value.to(torch.int8),
                                    lambda value: value.to(torch.complex64)])
def test_tensors_without_dense_values_are_named(tmp_path, state, change):
    state["fc.weight"] = change(state["fc.weight"])
    with pytest.raises(WeightsError, match=r"sparse, .*or without values \('fc\.weight'"):
        load_weights(small(), SMALL, written(tmp_path / "net.pt", state))


def test_half_weights_go_into_a_single_precision_model(tmp_path, state):
    model = small()
    load_weights(model, SMALL, written(tmp_path / "n.pt", {k: v.half() for k, v in state.items()}))
    assert model.conv.weight.dtype is torch.float32
    assert torch.allclose(model.conv.weight, state["conv.weight"], atol=1e-3)


def test_a_prefix_is_kept_where_the_model_has_it(tmp_path):
    model = nn.Sequential(OrderedDict(model=nn.Linear(2, 2)))
    wrapped = {f"module.{k}": v + 1 for k, v in model.state_dict().items()}
    expected = {k: v + 1 for k, v in model.state_dict().items()}
    load_weights(model, SMALL, written(tmp_path / "n.pt", wrapped))
    assert same(model, expected)


def test_files_older_than_the_batch_counter(tmp_path, state):
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    model = small()
    report = load_weights(model, SMALL, written(tmp_path / "n.pt", old))
    assert report.kept_random == ()
    assert torch.equal(model.bn.running_mean, state["bn.running_mean"])


def test_a_missing_and_an_unexpected_entry(tmp_path, state):
    del state["conv.bias"]
    state["extra"] = torch.zeros(1)
    path = written(tmp_path / "net.pt", state)
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(model, SMALL, path)
    assert "1 missing ('conv.bias'), 1 unexpected ('extra')" in caught.value.message
    assert path in caught.value.message
    assert same(model, before)
    report = load_weights(model, SMALL, path, partial=True)
    assert report.kept_random == ("conv.bias",)
    assert report.dropped == ("extra",)
    assert torch.equal(model.conv.bias, before["conv.bias"])


def test_a_file_of_another_class_count(tmp_path, state):
    path = written(tmp_path / "net.pt", state)
    with pytest.raises(WeightsError, match="are for 6 classes, the model has 4") as caught:
        load_weights(small(classes=4), SMALL, path)
    assert "--weights-partial" in caught.value.hint
    report = load_weights(small(classes=4), SMALL, path, partial=True)
    assert report.kept_random == ("fc.weight", "fc.bias")


def test_a_file_of_another_model(tmp_path):
    path = written(tmp_path / "net.pt", torchvision.models.mobilenet_v3_small().state_dict())
    with pytest.raises(WeightsError, match="are of another model than 'small'") as caught:
        load_weights(small(), SMALL, path)
    assert "'conv.weight', 'conv.bias', 'bn.weight' and 11 more" in caught.value.message
    with pytest.raises(WeightsError, match="no entry that fits"):
        load_weights(small(), SMALL, path, partial=True)


def test_a_deeper_resnet_is_another_model_although_most_entries_fit(tmp_path):
    with torch.device("meta"):
        shapes = torchvision.models.resnet50().state_dict()
    path = written(tmp_path / "net.pt", {k: torch.zeros(()).expand(v.shape)
                                         for k, v in shapes.items()})
    with torch.device("meta"):
        model = torchvision.models.resnet18()
    with pytest.raises(WeightsError, match="are of another model than 'resnet18'"):
        load_weights(model, registry().get_typed(ModelSpec, "resnet18"), path)


# -- files that are none -------------------------------------------------------------------------

class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def evil_torch(target, path):
    torch.save({"conv.weight": Evil(str(target))}, path)


def evil_legacy(target, path):
    torch.save({"conv.weight": Evil(str(target))}, path, _use_new_zipfile_serialization=False)


def evil_pickle(target, path):
    path.write_bytes(pickle.dumps({"conv.weight": Evil(str(target))}, protocol=2))


def evil_new_pickle(target, path):
    path.write_bytes(pickle.dumps({"conv.weight": Evil(str(target))}, protocol=4))


@pytest.mark.parametrize("make", [evil_torch, evil_legacy, evil_pickle, evil_new_pickle])
def test_code_in_a_file_is_refused_and_never_run(tmp_path, make):
    target, path = tmp_path / "made by the file", tmp_path / "net.pt"
    make(target, path)
    with pytest.raises(WeightsError, match=r"net.pt' .*, which could run code") as e:
        load_weights(small(), SMALL, str(path))
    assert not target.exists()
    assert "mkdir'" in e.value.message or make is evil_new_pickle
    assert "state dictionary alone" in e.value.hint
    if "pickle" in make.__name__:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert target.exists()  # a careless reader would have run it


def test_a_tar_archive_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(WeightsError, match="tar archive"):
        load_weights(small(), SMALL, str(path))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_program_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(path))
    with pytest.raises(WeightsError, match="a TorchScript program"):
        load_weights(small(), SMALL, str(path))


def test_options_in_an_old_checkpoint(tmp_path, state):
    path = written(tmp_path / "old.pt", {"model_state_dict": state,
                                         "opts": argparse.Namespace(model="small", lr=0.5)})
    model = small()
    load_weights(model, SMALL, path)
    assert same(model, state)


class _Attack:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.witness),)


def test_code_among_the_options_of_an_old_checkpoint_is_not_run(tmp_path, state):
    witness = tmp_path / "run"
    path = written(tmp_path / "old.pt", {
        "model_state_dict": state, "opts": argparse.Namespace(model=_Attack(witness))})
    with pytest.raises(WeightsError, match="could run code"):
        load_weights(small(), SMALL, path)
    assert not witness.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("damage", [
    lambda data: data[:len(data) // 2], lambda data: b"", lambda data: b"<html>not found</html>",
    lambda data: data[:-100], lambda data: b"\x80\x02}q\x00("])
def test_damaged_files(tmp_path, state, suffix, damage):
    path = tmp_path / f"net{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, str(path))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=r"net.* is damaged or not a weights file") as caught:
        load_weights(small(), SMALL, str(path))
    assert "\n" not in caught.value.message


def test_an_onnx_file_is_no_weights_file(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    with pytest.raises(WeightsError, match="not a weights file") as caught:
        load_weights(small(), SMALL, str(tmp_path / "net.onnx"))
    assert "'ipucnn run --onnx FILE'" in caught.value.hint


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, torch.zeros(3),
                                     {"model_state_dict": {"a": "b"}}])
def test_a_file_without_weights(tmp_path, content):
    with pytest.raises(WeightsError, match=r"no state dictionary in '.*net.pt'") as caught:
        load_weights(small(), SMALL, written(tmp_path / "net.pt", content))
    assert "'model_state_dict'" in caught.value.hint


def test_a_path_that_is_no_file(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no weights file 'pretraned'") as caught:
        load_weights(small(), SMALL, "pretraned")
    assert "'pretrained', 'random', a file or a folder" in caught.value.hint
    with pytest.raises(WeightsError, match="are a folder"):
        load_weights(small(), SMALL, str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path, state):
    path = written(tmp_path / "net.pt", state)
    os.chmod(path, 0)
    with pytest.raises(WeightsError, match=r"cannot read weights .*Permission denied"):
        load_weights(small(), SMALL, path)


class _Mischief:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def with_tar_before_zip(target):
    """A tar archive as torch wrote them before 0.2, behind which a zip archive ends."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        evil = pickle.dumps(_Mischief(target), 2)
        info = tarfile.TarInfo("storages")
        info.size = len(evil)
        archive.addfile(info, io.BytesIO(evil))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("x/data.pkl", b"")
    return buffer.getvalue()


def as_program(_):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def with_code(target):
    buffer = io.BytesIO()
    torch.save(_Mischief(target), buffer)
    return buffer.getvalue()


def plain_pickle(target):
    return pickle.dumps(_Mischief(target), 2)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("make", [with_tar_before_zip, as_program, with_code,
                                  plain_pickle])
def test_no_archive_runs_code_in_shards_or_as_weights(make, tmp_path):
    target = str(tmp_path / "made by the file")
    content = make(target)
    (tmp_path / "net.pt").write_bytes(content)
    for read in (lambda: pixels_of(content, "0.pth"), lambda: read_tensor(content, "0.pth"),
                 lambda: read_checkpoint(tmp_path / "net.pt"),
                 lambda: load_weights(small(), SMALL, str(tmp_path / "net.pt"))):
        with pytest.raises(IpucnnError) as caught:
            read()
        assert not os.path.exists(target)
        assert "weights_only" not in str(caught.value)


def test_a_tensor_that_claims_to_be_enormous_is_no_image():
    buffer = io.BytesIO()
    torch.save(torch.zeros(1, dtype=torch.uint8).expand(3, 10 ** 6, 10 ** 6), buffer)
    with pytest.raises(DataError, match="is more than 178,956,970 pixels"):
        pixels_of(buffer.getvalue(), "0.pth")


@pytest.mark.skipif(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6),
                    reason="this version of torch reads no such file")
def test_a_tensor_of_another_pickle_protocol_is_read_without_a_warning():
    buffer = io.BytesIO()
    torch.save(torch.ones(3, 2, 2, dtype=torch.uint8), buffer, pickle_protocol=3)
    with warnings.catch_warnings(record=True) as found:
        pixels_of(buffer.getvalue(), "0.pth")
    assert found == []
