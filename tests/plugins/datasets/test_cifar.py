import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import textwrap
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy
import pytest
import torch

import ipucnn
from ipucnn.core.errors import DataError
from ipucnn.core.options.profiles import resolve
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data import DatasetRequest
from ipucnn.data.augment import TrainTransform
from ipucnn.data.formats.verify import verify
from ipucnn.data.host_loader import HostLoader
from ipucnn.plugins.datasets import _cifar_files
from ipucnn.testing import check_plugin
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.preparation import prepare

PUBLISHED = {"cifar10": dict(_cifar_files.FORMS["cifar10"].md5),
             "cifar100": dict(_cifar_files.FORMS["cifar100"].md5)}
PER_FILE = 7


def python2_pickle(value):
    """Pickle as Python 2 did, protocol 2, without memo: text is a byte string."""
    return b"\x80\x02" + opcodes(value) + b"."


def opcodes(value):
    if value is None:
        return b"N"
    if isinstance(value, dict):
        items = b"".join(opcodes(key) + opcodes(item) for key, item in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        value = value.encode("latin1")
    if isinstance(value, bytes):
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + struct.pack("<i", len(value)) + value
    dtype = (b"cnumpy\ndtype\n" + opcodes(("u1", 0, 1)) + b"R"
             + opcodes((3, "|", None, None, None, -1, -1, 0)) + b"b")
    state = (b"(" + opcodes(1) + opcodes(value.shape) + dtype + b"\x89" + opcodes(value.tobytes())
             + b"t")
    return (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + opcodes((0,))
            + opcodes("b") + b"tR" + state + b"b")


def made_pixels(file):
    """Different in every file; the first channel's first row counts 0, 1, 2 ..."""
    pixels = numpy.full((PER_FILE, 3, 32, 32), 40 + 10 * file, numpy.uint8)
    pixels[:, 0, 0] = numpy.arange(32)
    pixels[:, 2] += numpy.arange(PER_FILE, dtype=numpy.uint8)[:, None, None]
    return pixels.reshape(PER_FILE, 3072)


def made_labels(file, classes):
    return [(3 * file + 5 * i) % classes for i in range(PER_FILE)]


CLASS_NAMES = {
    10: ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    100: [f"fine_{i:02d}" for i in range(100)]}


def write_cifar10(folder):
    folder.mkdir(parents=True)
    for file, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        (folder / name).write_bytes(python2_pickle({
            "batch_label": name, "labels": made_labels(file, 10), "data": made_pixels(file),
            "filenames": [f"{file}_{i}.png" for i in range(PER_FILE)]}))
    (folder / "batches.meta").write_bytes(python2_pickle({
        "num_cases_per_batch": PER_FILE, "label_names": CLASS_NAMES[10], "num_vis": 3072}))


def write_cifar100(folder):
    folder.mkdir(parents=True)
    for file, name in enumerate(["train", "test"]):
        (folder / name).write_bytes(python2_pickle({
            "filenames": [], "batch_label": name, "fine_labels": made_labels(file, 100),
            "coarse_labels": [19] * PER_FILE, "data": made_pixels(file)}))
    (folder / "meta").write_bytes(python2_pickle({
        "fine_label_names": CLASS_NAMES[100], "coarse_label_names": [f"c{i}" for i in range(20)]}))
    (folder / "file.txt~").write_text("as in the archive")


def write_cifar10_binary(folder):
    folder.mkdir(parents=True)
    for file, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        (folder / f"{name}.bin").write_bytes(b"".join(
            bytes([label]) + row.tobytes()
            for label, row in zip(made_labels(file, 10), made_pixels(file))))
    (folder / "batches.meta.txt").write_text("\n".join(CLASS_NAMES[10]) + "\n\n")


def write_cifar100_binary(folder):
    folder.mkdir(parents=True)
    for file, name in enumerate(["train", "test"]):
        (folder / f"{name}.bin").write_bytes(b"".join(
            bytes([19, label]) + row.tobytes()
            for label, row in zip(made_labels(file, 100), made_pixels(file))))
    (folder / "fine_label_names.txt").write_text("\n".join(CLASS_NAMES[100]) + "\n")
    (folder / "coarse_label_names.txt").write_text("\n".join(f"c{i}" for i in range(20)))


FORMS = {
    ("cifar10", "pickled"): ("cifar-10-batches-py", write_cifar10),
    ("cifar10", "binary"): ("cifar-10-batches-bin", write_cifar10_binary),
    ("cifar100", "pickled"): ("cifar-100-python", write_cifar100),
    ("cifar100", "binary"): ("cifar-100-binary", write_cifar100_binary),
}


def load(name, **request):
    spec = registry().get_typed(DatasetSpec, name)
    return registry().resolve(spec)(DatasetRequest(**request))


@pytest.fixture(autouse=True)
def nothing_is_fetched_unasked(monkeypatch):
    monkeypatch.setenv("IPUCNN_CIFAR_URL", "http://127.0.0.1:9/")  # nobody listens there


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_published_forms(tmp_path, name, form, inside):
    folder, write = FORMS[name, form]
    write(tmp_path / folder)
    data_dir = str(tmp_path / folder if inside else tmp_path)
    classes = int(name[5:])
    train = load(name, data_dir=data_dir, split="train", num_classes=classes)
    test = load(name, data_dir=data_dir, split="validation")
    files = 5 if classes == 10 else 1
    assert len(train) == files * PER_FILE
    assert len(test) == PER_FILE
    assert (train.split, test.split) == ("train", "validation")
    assert list(train.class_names) == list(test.class_names) == CLASS_NAMES[classes]
    for dataset, numbers in ((train, range(files)), (test, [files])):
        images = torch.stack([dataset.image(i) for i in range(len(dataset))])
        expected = numpy.concatenate([made_pixels(n) for n in numbers]).reshape(-1, 3, 32, 32)
        assert images.dtype == torch.uint8
        assert (images.numpy() == expected).all()
        assert [dataset.label(i) for i in range(len(dataset))] == [
            label for n in numbers for label in made_labels(n, classes)]
    assert images[0, 0, 0].tolist() == list(range(32))  # a row of red, not a column or a channel


@pytest.mark.parametrize("keys", [str, str.encode], ids=["text", "bytes"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_that_python_3_wrote_again(tmp_path, protocol, keys):
    """Up to protocol 2, bytes are written as a call of `_codecs.encode`."""
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder)
    content = {keys("data"): made_pixels(5), keys("labels"): made_labels(5, 10),
               keys("batch_label"): b"testing \xff", keys("filenames"): [b""]}
    (folder / "test_batch").write_bytes(pickle.dumps(content, protocol))
    (folder / "batches.meta").write_bytes(pickle.dumps(
        {keys("label_names"): [name.encode() for name in CLASS_NAMES[10]]}, protocol))
    found = load("cifar10", data_dir=str(tmp_path), split="validation")
    assert (found.image(2).numpy() == made_pixels(5)[2].reshape(3, 32, 32)).all()
    assert list(found.class_names) == CLASS_NAMES[10]


def test_no_other_codec_is_called(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(
        b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.")
    with pytest.raises(DataError, match=r"encodes with 'rot13', which could run code"):
        load("cifar10", data_dir=str(tmp_path))


def test_an_evaluation_takes_the_test_images(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    whole = load("CIFAR-10", data_dir=str(tmp_path))
    assert len(whole) == PER_FILE
    test = load("cifar10", data_dir=str(tmp_path), split="validation")
    assert torch.equal(whole.image(3), test.image(3))


def test_default_folder(tmp_path, monkeypatch):
    write_cifar100(tmp_path / "data/cifar100/cifar-100-python")
    monkeypatch.chdir(tmp_path)
    assert len(load("cifar-100", split="train")) == PER_FILE
    assert registry().get_typed(DatasetSpec, "cifar100").default_data_dir == "data/cifar100"


def test_images_go_to_the_input_size(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    dataset = load("cifar10", data_dir=str(tmp_path), input_size=64)
    (batch,) = HostLoader(dataset, Preprocessing(64), PER_FILE, range(PER_FILE), workers=2)
    assert batch.images.shape == (PER_FILE, 3, 64, 64)


def test_validation_images_reach_a_network_of_their_size_pixel_for_pixel(tmp_path):
    """And training images are cropped from a margin of 4 pixels, black where it is seen."""
    write_cifar10(tmp_path / "cifar-10-batches-py")
    spec = registry().get_typed(DatasetSpec, "cifar10")
    test = load("cifar10", data_dir=str(tmp_path), split="validation")
    (batch,) = HostLoader(test, spec.preprocessing, PER_FILE, range(PER_FILE), workers=1)
    assert (batch.images.numpy() == made_pixels(5).reshape(-1, 3, 32, 32)).all()
    train = load("cifar10", data_dir=str(tmp_path), split="train")
    assert (spec.recipe, spec.native_size) == ("padded-crop", 32)
    train.recipe, train.native_size = spec.recipe, spec.native_size
    whole = torch.zeros(40, 40)
    whole[4:36, 4:36] = train.image(3)[1]
    draw = TrainTransform(32, 0, train).draw(3, 0)
    seen = torch.from_numpy(draw(train.image(3).permute(1, 2, 0).numpy()).copy())[:, :, 1]
    places = [whole[top:top + 32, left:left + 32] for top in range(9) for left in range(9)]
    assert any(torch.equal(seen.float(), place) or torch.equal(seen.float(), place.flip(1))
               for place in places)


@pytest.mark.parametrize(("more", "recipe", "mean"), [
    ({}, "padded-crop", (0.4914, 0.4822, 0.4465)),
    ({"train_preprocess_steps": ["Resize(40)"]}, "random-resized-crop", (0.485, 0.456, 0.406)),
], ids=["unchanged", "resized"])
def test_shards_of_cifar_are_trained_on_as_cifar_is(tmp_path, more, recipe, mean):
    write_cifar10(tmp_path / "in" / "cifar-10-batches-py")
    ipucnn.convert(tmp_path / "in", tmp_path / "shards", data="cifar10", **more)
    options = resolve(TrainOptions, {
        "data_dir": tmp_path / "shards", "model": "resnet8-cifar", "backend": "torch",
        "no_validation": True, "batch_size": 2}, "train")
    prepared = prepare(options, registry())
    assert prepared.dataset.recipe == recipe
    assert prepared.built.preprocessing.mean == pytest.approx(mean, abs=1e-3)
    assert prepared.plan.preprocessing == prepared.built.preprocessing


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_conformance(tmp_path, name, form):
    folder, write = FORMS[name, form]
    write(tmp_path / folder)
    results = check_plugin("dataset", name, data_dir=str(tmp_path))
    assert set(results.values()) == {"passed"}


def test_a_small_model_is_refused(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    with pytest.raises(DataError, match="10 classes and the model 2 outputs"):
        load("cifar10", data_dir=str(tmp_path), num_classes=2)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def whole(name):
    return python2_pickle({"labels": made_labels(1, 10), "data": made_pixels(1)})


class TestDamage:
    @pytest.mark.parametrize("content", [
        b"", whole("x")[:-1000], whole("x")[:-1], b"\x80\x02]q\x01.", python2_pickle({}),
        b"<html>", python2_pickle({"labels": [1], "data": made_pixels(1)}),
        python2_pickle({"labels": made_labels(1, 10), "data": made_pixels(1)[:, :3000]}),
        python2_pickle({"labels": ["cat"] * PER_FILE, "data": made_pixels(1)}),
        python2_pickle({"labels": [10] * PER_FILE, "data": made_pixels(1)}),
        python2_pickle({"labels": [-1] * PER_FILE, "data": made_pixels(1)}),
        python2_pickle({"labels": [], "data": made_pixels(1)[:0]}),
    ])
    def test_a_bad_pickle_is_named(self, tmp_path, content):
        write_cifar10(tmp_path / "cifar-10-batches-py")
        (tmp_path / "cifar-10-batches-py/data_batch_4").write_bytes(content)
        with pytest.raises(DataError, match=r"'.*data_batch_4'"):
            load("cifar10", data_dir=str(tmp_path), split="train")
        assert len(load("cifar10", data_dir=str(tmp_path), split="validation")) == PER_FILE

    def test_a_pickle_runs_no_code(self, tmp_path):
        write_cifar10(tmp_path / "cifar-10-batches-py")
        trace = tmp_path / "trace"
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(
                pickle.dumps({"data": Evil(str(trace))}, protocol))
            with pytest.raises(DataError, match=r"test_batch'.*mkdir"):
                load("cifar10", data_dir=str(tmp_path))
        assert not trace.exists()

    @pytest.mark.parametrize("size", [0, 3072, 3073 * PER_FILE - 1])
    def test_a_truncated_binary_file_is_named(self, tmp_path, size):
        write_cifar10_binary(tmp_path / "cifar-10-batches-bin")
        path = tmp_path / "cifar-10-batches-bin/data_batch_2.bin"
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DataError, match=r"data_batch_2\.bin'"):
            load("cifar10", data_dir=str(tmp_path), split="train")

    def test_a_wrong_label_in_a_binary_file(self, tmp_path):
        write_cifar100_binary(tmp_path / "x")
        path = tmp_path / "x/test.bin"
        path.write_bytes(b"\x00\x64" + path.read_bytes()[2:])
        with pytest.raises(DataError, match=r"test\.bin'.*100 classes"):
            load("cifar100", data_dir=str(tmp_path / "x"))

    @pytest.mark.parametrize("missing", ["data_batch_3", "batches.meta"])
    def test_a_missing_file_is_named(self, tmp_path, missing):
        write_cifar10(tmp_path / "cifar-10-batches-py")
        (tmp_path / "cifar-10-batches-py" / missing).unlink()
        with pytest.raises(DataError, match=rf"{missing}'.*no such file"):
            load("cifar10", data_dir=str(tmp_path), split="train")


class Mirror(ThreadingHTTPServer):
    """Serves one archive; with `cut`, only so many bytes of it although all were announced."""

    def __init__(self, archive):
        super().__init__(("127.0.0.1", 0), MirrorHandler)
        self.archive = archive
        self.sha256 = hashlib.sha256(archive).hexdigest()
        self.cut = None
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/mirror"


class MirrorHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.archive)))
        self.end_headers()
        self.wfile.write(self.server.archive[:self.server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A mirror with a small archive in the published form, and two members that mean harm."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    write_cifar10(tmp_path / "made/cifar-10-batches-py")
    (tmp_path / "made/cifar-10-batches-py/readme.html").write_text("hello")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(str(tmp_path / "made/cifar-10-batches-py"), "cifar-10-batches-py")
        evil = tarfile.TarInfo("../../../evil")
        evil.size = 1
        tar.addfile(evil, io.BytesIO(b"x"))
        link = tarfile.TarInfo("cifar-10-batches-py/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with Mirror(buffer.getvalue()) as mirror:
        threading.Thread(target=mirror.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("IPUCNN_CIFAR_URL", mirror.url)
        form = _cifar_files.FORMS["cifar10"]
        monkeypatch.setitem(_cifar_files.FORMS, "cifar10", replace(form, sha256=mirror.sha256))
        yield mirror
        mirror.shutdown()


class TestFetch:
    def test_missing_files_are_fetched_once(self, published, tmp_path):
        data_dir = tmp_path / "data" / "cifar10"
        train = load("cifar10", data_dir=str(data_dir), split="train")
        assert len(train) == 5 * PER_FILE
        assert len(load("cifar10", data_dir=str(data_dir))) == PER_FILE
        assert published.requests == ["/mirror/cifar-10-python.tar.gz"]
        assert not [path for path in data_dir.rglob("*") if path.is_symlink()]
        assert not [path for path in tmp_path.rglob("evil") if data_dir not in path.parents]

    def test_another_archive_is_refused(self, published, tmp_path):
        published.archive += b"more"
        with pytest.raises(DataError, match=r"cannot fetch cifar10: .*has hash") as caught:
            load("cifar10", data_dir=str(tmp_path / "data"))
        assert "cifar-10-python.tar.gz" in caught.value.hint
        assert not list((tmp_path / "data").glob("*"))

    @pytest.mark.parametrize("cut", [0, 500])
    def test_an_interrupted_download_leaves_nothing(self, published, tmp_path, cut):
        published.cut = cut
        with pytest.raises(DataError, match="cannot fetch cifar10"):
            load("cifar10", data_dir=str(tmp_path / "data"))
        assert os.listdir(tmp_path / "data") == []
        published.cut = None
        assert len(load("cifar10", data_dir=str(tmp_path / "data"))) == PER_FILE

    @pytest.mark.parametrize("name", ["cifar10", "cifar100"])
    def test_without_a_network_the_manual_way_is_shown(self, tmp_path, name):
        where = tmp_path / "data"
        with pytest.raises(DataError, match=f"cannot fetch {name}") as caught:
            load(name, data_dir=str(where))
        hint = caught.value.hint
        archive = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}[name]
        assert f"https://www.cs.toronto.edu/~kriz/{archive}" in hint
        assert str(where) in hint
        assert "--data-dir" in hint

    def test_a_folder_that_cannot_be_made(self, tmp_path, published):
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match="cifar10"):
            load("cifar10", data_dir=str(tmp_path / "file/below"))

    def test_two_processes_at_once(self, published, tmp_path):
        code = textwrap.dedent("""
            import sys
            from dataclasses import replace
            from ipucnn.data import DatasetRequest
            from ipucnn.plugins.datasets import _cifar_files as cifar
            form = cifar.FORMS["cifar10"]
            cifar.FORMS["cifar10"] = replace(form, sha256=sys.argv[2])
            sys.stdin.readline()
            train = cifar.make_cifar10(DatasetRequest(data_dir=sys.argv[1], split="train"))
            print(len(train))
        """)
        command = [sys.executable, "-c", code, str(tmp_path / "data"), published.sha256]
        processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                     for _ in range(3)]
        for process in processes:  # all are started before the first may begin
            process.stdin.write(b"\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=60)[0] for process in processes]
        assert outputs == [b"35\n"] * 3
        assert sorted(os.listdir(tmp_path / "data")) == ["cifar-10-batches-py"]


class TestVerify:
    @pytest.mark.parametrize(("name", "form"), [key for key in FORMS if key[1] == "pickled"])
    def test_the_published_files_are_known_by_their_hash(self, tmp_path, monkeypatch, name, form):
        folder, write = FORMS[name, form]
        write(tmp_path / folder)
        problems = verify(str(tmp_path), name)
        assert len(problems) == len(PUBLISHED[name])
        for file, problem in zip(PUBLISHED[name], problems):
            assert f"{file}' is not the published file" in problem
        right = {file: hashlib.md5((tmp_path / folder / file).read_bytes()).hexdigest()
                 for file in PUBLISHED[name]}
        monkeypatch.setitem(_cifar_files.FORMS, name,
                            replace(_cifar_files.FORMS[name], md5=right))
        for where in (tmp_path, tmp_path / folder):
            assert verify(str(where)) == []
        victim = tmp_path / folder / next(iter(right))
        victim.write_bytes(victim.read_bytes()[:-1] + b"!")
        assert [victim.name in problem for problem in verify(str(tmp_path))] == [True]
        victim.unlink()
        assert ["no such file" in problem for problem in verify(str(tmp_path))] == [True]

    def test_published_hashes(self):
        """They are the ones that the dataset's page and other readers of it give."""
        assert PUBLISHED["cifar10"]["data_batch_1"] == "c99cafc152244af753f735de768cd75f"
        assert PUBLISHED["cifar100"]["test"] == "f0ef6b0ae62326f3e7ffdfab6717acfc"

    def test_binary(self, tmp_path):
        write_cifar100_binary(tmp_path / "cifar-100-binary")
        assert verify(str(tmp_path)) == []
        path = tmp_path / "cifar-100-binary/train.bin"
        path.write_bytes(path.read_bytes()[:-5])
        (problem,) = verify(str(tmp_path))
        assert "train.bin" in problem

    def test_nothing_there(self, tmp_path):
        (problem,) = verify(str(tmp_path), "cifar10")
        assert "no cifar10" in problem

    @pytest.mark.parametrize("form", ["pickled", "binary"])
    def test_class_names_that_are_no_text(self, tmp_path, form):
        folder, write = FORMS["cifar10", form]
        write(tmp_path / folder)
        names = tmp_path / folder / ("batches.meta" if form == "pickled" else "batches.meta.txt")
        names.write_bytes(python2_pickle({"label_names": [b"\xff"]}) if form == "pickled"
                          else b"\xff\xfe\n")
        with pytest.raises(DataError, match=r"batches\.meta.*not UTF-8 text"):
            load("cifar10", data_dir=str(tmp_path))
        assert any(names.name in problem for problem in verify(str(tmp_path), "cifar10"))

    def test_a_byte_order_mark_is_no_part_of_a_name(self, tmp_path):
        folder, write = FORMS["cifar10", "binary"]
        write(tmp_path / folder)
        names = tmp_path / folder / "batches.meta.txt"
        names.write_text(names.read_text(), encoding="utf-8-sig")
        assert load("cifar10", data_dir=str(tmp_path)).class_names == tuple(CLASS_NAMES[10])
