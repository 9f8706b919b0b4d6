"""What is fuzzed: how hostile files of each kind from outside are made, and how they are read.

A target passes when reading ends in a result or in an `IpucnnError` of a few printable lines, soon.
`tests/test_fuzzing.py` tries some files of each kind, `benchmarks/fuzz.py` many.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import torch
from hypothesis import strategies as st
from PIL import Image

from ipucnn.core.errors import IpucnnError
from ipucnn.core.options.profiles import resolve
from ipucnn.data import images
from ipucnn.inference.options import RunOptions
from ipucnn.onnx.embedded_metadata import Metadata
from ipucnn.plugins.datasets._webdataset import shard_metadata
from ipucnn.plugins.datasets._webdataset.shard_index import File, Unreadable
from ipucnn.plugins.datasets._webdataset.shard_samples import read_records
from ipucnn.training.checkpoints import checkpoint as checkpoints

SECONDS = 10.0
"""In which a file of a few kilobytes must be read or refused; a busy machine needs some."""

_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


@dataclass(frozen=True)
class Target:
    """A kind of file: how hostile ones are made, and how they are read."""

    name: str
    made: Callable[[], st.SearchStrategy[Any]]
    read: Callable[[Any], Any]

    def check(self, content: Any) -> str:
        """Read a file; return `read`, or the class of the error that refused it."""
        begin = time.monotonic()
        outcome, text = "read", ""
        try:
            self.read(content)
        except (IpucnnError, Unreadable) as error:
            outcome, text = type(error).__name__, str(error)
        assert len(text) < 3000, text[:300]
        assert outcome == "Unreadable" or not _CONTROL.search(text), text
        assert "weights_only" not in text, text
        assert time.monotonic() - begin < SECONDS
        return outcome


# -- bytes ---------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([0, 1, 2, 127, 128, 255, 256, 511, 512, 2 ** 15, 2 ** 16 - 1, 2 ** 31 - 1,
                           2 ** 31, 2 ** 32 - 1, 2 ** 53 + 1, 2 ** 63 - 1, 2 ** 63, 10 ** 30])


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Return copies of a file with changed, inserted, missing and repeated bytes."""
    places = st.integers(0, max(0, len(content) - 1))
    change = st.one_of(
        st.tuples(st.just("set"), places, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=64)),
        st.tuples(st.just("cut"), places, st.integers(1, 64).map(bytes)),
        st.tuples(st.just("end"), places, st.just(b"")),
        st.tuples(st.just("repeat"), places, st.integers(1, 600).map(bytes)))

    def changed(changes: Any) -> bytes:
        data = bytearray(content)
        for how, place, part in changes:
            if how == "set":
                data[place:place + len(part)] = part
            elif how == "insert":
                data[place:place] = part
            elif how == "cut":
                del data[place:place + len(part)]
            elif how == "end":
                del data[place:]
            else:
                data[place:place] = data[place:place + len(part)]
        return bytes(data)

    return st.lists(change, min_size=1, max_size=4).map(changed)


# -- archives ------------------------------------------------------------------------------------

_FIELDS = {"mode": (100, 8), "uid": (108, 8), "size": (124, 12), "mtime": (136, 12),
           "kind": (156, 1), "magic": (257, 8), "major": (329, 8), "prefix": (345, 155)}


def _number_fields() -> st.SearchStrategy[bytes]:
    return st.one_of(
        NUMBERS.map(lambda number: b"%011o\0" % number), NUMBERS.map(lambda n: b"-%o" % n),
        NUMBERS.map(lambda n: b"\x80" + (n % 2 ** 88).to_bytes(11, "big")),
        NUMBERS.map(lambda n: b"\xff" + (-n % 2 ** 88).to_bytes(11, "big")),
        st.binary(max_size=12))


def archives() -> st.SearchStrategy[bytes]:
    """Return archives whose headers have strange fields and right checksums."""
    member = st.tuples(
        st.sampled_from([b"0.jpg", b"0.cls", b"0.json", b"1.npy", b"d/", b"././@LongLink",
                         b"x" * 99]),
        st.sampled_from([b"0", b"\0", b"5", b"x", b"g", b"L", b"K", b"S", b"1", b"2", b"7",
                         b"\xff"]),
        st.one_of(st.just(b""), st.binary(max_size=40), st.sampled_from(
            [b"7", b"9" * 30, b"[" * 500, b'{"bbox": [1e400, 0, 1, 1], "image_id": 1}',
             b"14 size=-512\n", b"22 GNU.sparse.major=1\n", b"9999 path=x\n", b"12 path=a/b\n"])),
        st.one_of(st.none(), st.tuples(st.sampled_from(sorted(_FIELDS)), _number_fields())))

    def archive(members: Any) -> bytes:
        data = b""
        for name, kind, content, change in members:
            header = bytearray(512)
            header[:len(name)] = name
            header[100:108], header[257:265] = b"0000644\0", b"ustar\00000"
            header[124:136], header[156:157] = b"%011o\0" % len(content), kind
            if change is not None:
                start, length = _FIELDS[change[0]]
                header[start:start + length] = change[1][:length].ljust(length, b"\0")
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            data += bytes(header) + content + bytes(-len(content) % 512)
        return data + bytes(1024)

    made = st.lists(member, min_size=1, max_size=5).map(archive)
    return st.one_of(made, made.flatmap(damaged), damaged(_whole_archive()))


def _whole_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("0.jpg", "0.cls", "f\u00fcr/1.jpg", "a" * 120 + ".jpg"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 3, 1.5
            archive.addfile(info, io.BytesIO(b"123"))
    return buffer.getvalue()


def _read_archive(content: bytes) -> None:
    with _file(content, ".tar") as path:
        records = read_records(File(str(path)))
        for record in records.samples[:20]:
            if not record.fault:
                records.file.read(record.image)


# -- texts ---------------------------------------------------------------------------------------

_LEAVES = st.one_of(
    st.none(), st.booleans(), NUMBERS, NUMBERS.map(lambda number: -number),
    st.sampled_from([1e30, 1e308, -0.5, 0.5, "", "train-000000.tar", "../x", "img", "Resize(256)",
                     "CenterCrop(99999999)", "0" * 32, "\x1b[31m", "\u202e"]), st.text(max_size=9))
_VALUES = st.recursive(_LEAVES, lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8)

_METADATA = ("train_length", "validation_length", "format", "shuffle", "seed", "classes", "boxes",
             "transform_pipeline", "train_transform_pipeline", "image_quality", "checksum",
             "version", "image_ids", "origin", "shards")
_ENDLESS = ["[" * 100_000, '{"a":' * 50_000, '{"train_length": ' + "9" * 5000 + "}",
            '{"train_length": 1e400, "validation_length": 0}', "NaN", "", "[]", "{}", "\ufeff{}"]


def listings() -> st.SearchStrategy[str]:
    """Return texts of `metadata.json`."""
    shard = st.one_of(_VALUES, st.tuples(
        st.sampled_from(["train-000000.tar", "train-000001.tar", "../x", "train-9.tar"]),
        NUMBERS, NUMBERS, st.sampled_from(["0" * 32, "../../../../x", ""])).map(list))
    shards = st.one_of(_VALUES, st.fixed_dictionaries(
        {"train": st.lists(shard, max_size=3), "validation": st.lists(shard, max_size=2)}))
    whole = st.fixed_dictionaries(
        {"train_length": NUMBERS, "validation_length": NUMBERS},
        optional={name: shards if name == "shards" else _VALUES for name in _METADATA[2:]})
    return st.one_of(
        whole.map(json.dumps), _VALUES.map(json.dumps), st.sampled_from(_ENDLESS),
        whole.map(json.dumps).flatmap(lambda text: damaged(text.encode())).map(
            lambda data: data.decode("utf-8", "replace")))


_KEYS = ("model", "batch-size", "batch_size", "seed", "data-dir", "pipeline_splits", "norm_eps",
         "precision", "synthetic", "weights", "json", "iterations", "time-limit", "result",
         "available_memory_proportion", "nothing", "<<", "? [a]", "!x y", "''")
_YAML = ("1", "010", "0x10", "1_000", "1:30", "1e400", ".inf", ".nan", "-1", "9" * 5000,
         "0x" + "f" * 5000, "true", "~", "2024-02-30", "2024-06-01", "2024-06-01 10:00:00+99:99",
         "!!int abc", "!!float x", "!!bool maybe", "!!python/name:os.system", "!foo x",
         "!!binary '%'", "!!set {a}", "!!timestamp x", "&a [*a]", "*b", "[1, [2]]", "{a: b}",
         "[" * 2000, "'\\x1b[31m'", '"\\e[31m"', '"\\u202e"', "|\n  text", "!!omap [a: b]",
         "@", "%")


def profiles() -> st.SearchStrategy[str]:
    """Return texts of profiles."""
    line = st.tuples(st.sampled_from(_KEYS), st.one_of(
        st.sampled_from(_YAML), NUMBERS.map(str), st.text(max_size=12))).map(": ".join)
    return st.one_of(st.lists(line, min_size=1, max_size=3).map("\n".join),
                     st.text(max_size=200))


def _read_profile(text: str) -> None:
    with _file(text.encode("utf-8", "surrogatepass"), ".yaml") as path:
        resolve(RunOptions, {"config": str(path)})


def properties() -> st.SearchStrategy[Any]:
    """Return the metadata of ONNX files: names and texts."""
    fields = ("model", "input_size", "normalisation", "mean", "std", "class_names", "provenance",
              "card")
    card = st.fixed_dictionaries({}, optional={
        "model": _LEAVES, "num_outputs": NUMBERS, "class_names": _VALUES, "options": _VALUES,
        "outputs": st.sampled_from(["logits", "x", 1]), "preprocessing": st.one_of(
            _VALUES, st.fixed_dictionaries({}, optional={
                "input_size": NUMBERS, "crop_fraction": _LEAVES, "mean": _VALUES, "std": _VALUES,
                "value_range": _VALUES, "resize": _LEAVES}))})
    text = st.one_of(
        _VALUES.map(json.dumps), card.map(json.dumps), st.text(max_size=40), st.sampled_from(
            [*_ENDLESS, "(" * 1000, "-" * 5000 + "1", "1+" * 5000 + "1", "{0: 'a', 1: 'b'}",
             "['a'" + ", 'b'" * 3 + "]", "{'a': [[[[]]]]}", "a, b", "'" * 99, "\\" * 99,
             "not " * 999]))
    return st.lists(st.tuples(
        st.sampled_from([*(f"ipucnn.{name}" for name in fields), "names", "classes", "x.labels"]),
        text), max_size=4)


def _read_properties(pairs: Any) -> None:
    Metadata.of({name: text.encode("utf-8", "replace").decode() for name, text in pairs}, 2)


# -- images and checkpoints ----------------------------------------------------------------------

def _encoded(form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (33, 20), (200, 90, 10)).save(buffer, form, **options)
    return buffer.getvalue()


def pictures() -> st.SearchStrategy[bytes]:
    """Return images whose headers, where sizes are, are damaged."""
    exif = Image.Exif()
    exif[0x0112] = 6
    bases = [_encoded("JPEG", exif=exif), _encoded("JPEG", progressive=True), _encoded("PNG"),
             _encoded("GIF"), _encoded("WEBP"), _encoded("BMP"), _encoded("TIFF"), _encoded("PPM")]

    def in_header(content: bytes) -> st.SearchStrategy[bytes]:
        size = min(len(content), 700)
        return st.one_of(damaged(content[:size]).map(lambda head: head + content[size:]),
                         damaged(content))

    def claimed(size: Any) -> bytes:
        data, frame = bytearray(bases[size[2]]), bases[size[2]].index(b"\xff\xc0\xff\xc2"[
            2 * size[2]:2 * size[2] + 2])
        data[frame + 5:frame + 9] = size[0].to_bytes(2, "big") + size[1].to_bytes(2, "big")
        return bytes(data)

    sides = st.sampled_from([0, 1, 7, 8, 255, 4096, 13_000, 65_535])
    return st.one_of(st.tuples(sides, sides, st.integers(0, 1)).map(claimed),
                     st.sampled_from(bases).flatmap(in_header))


def _decode(content: bytes) -> None:
    images.decode(content, "x")


def saved() -> st.SearchStrategy[bytes]:
    """Return checkpoints that are damaged, or have anything in them."""
    whole = {"format": checkpoints.FORMAT, "model": {"a": torch.zeros(3)}, "model_name": "resnet18",
             "dataset": "shapes", "position": {"epoch": 1}, "ema": None, "session": {"x": 1},
             "progress": {}, "options": {}, "class_names": [], "versions": {}}

    def written(content: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    return st.one_of(damaged(written(whole)), damaged(_legacy(whole)),
                     st.one_of(_VALUES, st.fixed_dictionaries(
                         {"format": st.just("other/1")}, optional={
                             name: _VALUES for name in whole if name != "format"})).map(written))


def _legacy(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _read_checkpoint(content: bytes) -> None:
    with _file(content, ".pt") as path:
        checkpoints.load(path)


class _file:  # noqa: N801 - used as a function
    """A file with a content, for the block."""

    def __init__(self, content: bytes, suffix: str) -> None:
        handle, self._path = tempfile.mkstemp(suffix)
        with os.fdopen(handle, "wb") as file:
            file.write(content)

    def __enter__(self) -> Path:
        return Path(self._path)

    def __exit__(self, *_: object) -> None:
        os.unlink(self._path)


TARGETS = (
    Target("tar headers", archives, _read_archive),
    Target("metadata.json", listings, lambda text: shard_metadata.read(text, "metadata.json")),
    Target("profiles", profiles, _read_profile),
    Target("checkpoints", saved, _read_checkpoint),
    Target("image headers", pictures, _decode),
    Target("ONNX metadata", properties, _read_properties))
