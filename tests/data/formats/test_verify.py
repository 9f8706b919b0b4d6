import pytest
from PIL import Image

from ipucnn.core.errors import DataError, UnknownNameError, UsageError
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.formats.recognition import recognised
from ipucnn.data.formats.verify import verification, verify
from ipucnn.plugins.datasets.webdataset import WebDatasetOptions


@pytest.mark.parametrize(("files", "name"), [
    (["cifar-10-batches-py/data_batch_1"], "cifar10"),
    (["cifar-10-batches-bin/data_batch_1.bin"], "cifar10"),
    (["data_batch_2", "data_batch_1", "batches.meta"], "cifar10"),
    (["cifar-100-python/train"], "cifar100"),
    (["cifar-100-binary/train.bin"], "cifar100"),
    (["train", "test", "meta"], "cifar100"),
    (["train.bin", "test.bin", "fine_label_names.txt"], "cifar100"),
    (["train/n01440764/x.JPEG", "validation/n01440764/y.JPEG"], "imagenet"),
    (["COCO_val2014_000000000042.jpg", "more/x.jpg"], "coco"),
    (["val2014/COCO_val2014_000000000042.jpg", "annotations/instances_val2014.json"], "coco"),
    (["0/COCO_val2014_000000000042.jpg", "1/COCO_val2014_000000000073.jpg"], "coco"),
    (["train/cat/1.jpg", "val/cat/2.jpg"], "image_folder"),
    (["metadata.json", "train-000000.tar", "validation-000000.tar"], "webdataset"),
    (["cat/1.jpg", "dog/1.jpg"], "image_folder"),
    (["train/northern/1.jpg", "val/northern/1.jpg"], "image_folder"),
])
def test_formats_are_recognised_by_their_layout(tmp_path, files, name):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    assert recognised(str(tmp_path)) == name


def test_the_name_decides_when_it_is_given(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (5, 5)).save(str(tmp_path / "cat/1.png"))
    assert verify(str(tmp_path)) == verify(str(tmp_path), "image-folder") == []
    (problem,) = verify(str(tmp_path), "CIFAR100")
    assert "no cifar100 in" in problem


def test_verifying_a_folder_without_the_dataset_downloads_nothing(tmp_path, monkeypatch):
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("a download began")

    monkeypatch.setattr("ipucnn.data.remote.download.fetch", fetch)
    found = verification(str(tmp_path), "cifar10")
    assert not found.ok
    assert not list(tmp_path.iterdir())


def test_the_hint_for_metadata_of_another_program_names_the_option(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (5, 5)).save(str(tmp_path / "cat/1.png"))
    (tmp_path / "metadata.json").write_text('{"author": "x"}')
    spec = registry().get_typed(DatasetSpec, recognised(str(tmp_path)))
    with pytest.raises(DataError) as caught:
        registry().make_typed(ImageDataset, spec, DatasetRequest(str(tmp_path)),
                              options=WebDatasetOptions())
    assert "'--data image_folder'" in caught.value.hint
    assert verify(str(tmp_path), "image_folder") == []


def test_any_images_can_be_verified(tmp_path):
    (problem,) = verify(str(tmp_path), "real")
    assert problem == f"there are no images in {str(tmp_path)!r}"
    Image.new("RGB", (5, 5)).save(str(tmp_path / "1.png"))
    assert verify(str(tmp_path), "real") == []
    (tmp_path / "2.png").write_bytes(b"")
    assert verify(str(tmp_path), "real") == [f"image '{tmp_path / '2.png'}' is empty"]


def test_what_cannot_be_verified(tmp_path):
    with pytest.raises(UsageError, match=r"'shapes' cannot be verified.*imagenet"):
        verify(str(tmp_path), "shapes")
    with pytest.raises(UnknownNameError, match="'imagnet'"):
        verify(str(tmp_path), "imagnet")
    with pytest.raises(DataError, match="none of the known datasets"):
        verify(str(tmp_path))
    for path, why in ((tmp_path / "nowhere", "does not exist"), (__file__, "is no folder")):
        with pytest.raises(DataError, match=f"'.*' {why}"):
            verify(str(path))


def test_a_url_is_refused():
    with pytest.raises(UsageError, match="'https://x/y' is not verified over the network"):
        verify("https://x/y")
