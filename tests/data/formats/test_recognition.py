"""A named dataset whose folder is one of another format is read as that."""

import pytest

from ipucnn import load_dataset
from ipucnn.core.errors import UsageError
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data.formats.recognition import read_by


def reader(name, data_dir):
    return read_by(registry().get_typed(DatasetSpec, name), data_dir, registry()).name


@pytest.mark.parametrize(("name", "files", "expected"), [
    ("imagenet", ["metadata.json"], "webdataset"),
    ("imagenet", ["metadata.json", "train/n01440764/x.JPEG"], "imagenet"),
    ("imagenet", ["n01440764/x.JPEG"], "imagenet"),
    ("imagenet", [], "imagenet"),
    ("image_folder", ["metadata.json"], "image_folder"),
    ("webdataset", ["train/n01440764/x.JPEG"], "webdataset"),
])
def test_markers_decide(tmp_path, name, files, expected):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    assert reader(name, str(tmp_path)) == expected


def test_without_a_folder():
    assert reader("imagenet", None) == "imagenet"
    assert reader("imagenet", "no/such/folder") == "imagenet"


def test_urls():
    assert reader("imagenet", "http://host/folder") == "webdataset"
    assert reader("webdataset", "https://host/folder") == "webdataset"
    with pytest.raises(UsageError, match=r"'image_folder' is not read from a URL \('http://h'\)"
                                         r".*datasets that are: webdataset"):
        reader("image_folder", "http://h")


def test_in_python(tmp_path):
    with pytest.raises(UsageError, match="not read from a URL"):
        load_dataset("cifar10", "http://h")
