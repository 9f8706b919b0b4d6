import time

import pytest

import ipucnn
from ipucnn.core.options.building import build
from ipucnn.core.progress import Listener
from ipucnn.data import waiting
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made
from ipucnn.data.image_files import FileImages
from ipucnn.training.job import train
from ipucnn.training.options.train_options import TrainOptions

OPTIONS = {"model": "resnet18", "weights": "random", "input_size": 32, "data": "image_folder",
           "dataloader_worker": 1, "backend": "torch"}


@pytest.fixture
def slow_disk(tmp_path, monkeypatch):
    """Folders of images that have to be waited for, with a note as soon as that happens."""
    write_made("shapes", str(tmp_path / "shapes"), GeneratedFiles(
        per_class=2, size=32, validation_per_class=1))
    read = FileImages.encoded

    def slowly(self, index):
        time.sleep(0.1)
        return read(self, index)

    monkeypatch.setattr(FileImages, "encoded", slowly)
    monkeypatch.setattr(waiting, "LEAST_SECONDS", 0.05)
    monkeypatch.setattr(waiting, "HIGH", 0.0)
    return str(tmp_path / "shapes")


def test_a_device_that_hardly_waits_is_no_matter():
    assert waiting.hint(0.19, 1000, None) is None
    assert waiting.hint(0.9, 5, None) is None
    assert "50 % of the time" in waiting.hint(0.5, 11, None)


def test_a_short_run_has_no_note(slow_disk, monkeypatch):
    monkeypatch.setattr(waiting, "LEAST_SECONDS", 1000)
    result = ipucnn.run(**OPTIONS, data_dir=slow_disk, batch_size=2, warmup=0)
    assert not any("waited for images" in note for note in result.notes)


def test_the_hint_fits_the_workers(monkeypatch):
    monkeypatch.setattr(waiting, "usable_cores", lambda: 8)
    monkeypatch.setattr(waiting, "thread_count", lambda: 8)
    assert "'--dataloader-worker' is 3 and 8 cores" in waiting.hint(0.5, 100, 3)
    for workers in (None, 8, 20):
        assert "ipucnn data convert" in waiting.hint(0.5, 100, workers)
    monkeypatch.setattr(waiting, "thread_count", lambda: 2)
    assert "OMP_NUM_THREADS allows 2 workers and 8 cores" in waiting.hint(0.5, 100, None)


def test_a_run_has_the_note(slow_disk):
    result = ipucnn.run(**OPTIONS, data_dir=slow_disk, batch_size=2, warmup=0)
    assert any("waited for images" in note for note in result.notes)


def test_a_training_has_the_note_once(slow_disk, tmp_path):
    class Notes(Listener):
        def __init__(self):
            self.notes = []

        def note(self, text):
            self.notes.append(text)

    listener = Notes()
    options = build(TrainOptions, {**OPTIONS, "data_dir": slow_disk, "batch_size": 4, "epoch": 2,
                                   "no_validation": True})
    result = train(options, listener=listener)
    assert sum("waited for images" in note for note in listener.notes) == 1
    assert any("waited for images" in note for note in result.notes)
