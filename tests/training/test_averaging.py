"""Averages of checkpoints against sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.options.building import build
from ipucnn.core.registry.registry import registry
from ipucnn.models.checkpoint_files import CheckpointError
from ipucnn.training.checkpoints import averaging
from ipucnn.training.checkpoints.averaging import average, reestimate
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position, save
from ipucnn.training.checkpoints.stored import load_stored
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.idle_options import notes_on_idle

VALUES = (1.0, 4.0, 10.0)


@pytest.fixture
def folder(tmp_path):
    for epoch, value in enumerate(VALUES, 1):
        save(made(epoch, value), tmp_path)
    return tmp_path


def made(epoch, value, call=0):
    return Checkpoint("resnet18", "shapes", Position(epoch, call, update=10 * epoch + call),
                      {"w": torch.full((2,), value), "n": torch.tensor(epoch)},
                      session={"optimizer": {}}, options={"model": "resnet18", "data": "shapes"})


def averaged(folder, strategy="mean", decay=0.9, last=-1):
    result = average(folder, strategy, decay, last)
    return result, load_stored(result.path).weights


def test_mean(folder):
    result, weights = averaged(folder)
    torch.testing.assert_close(weights["w"], torch.full((2,), 5.0))
    assert weights["n"] == 3  # what cannot be averaged is the last one's
    assert result.path.name == "resnet18_shapes_3_averaged.pt"
    assert [path.name for path in result.files] == [f"resnet18_shapes_{n}.pt" for n in (1, 2, 3)]


def test_exponential(folder):
    _, weights = averaged(folder, "exponential", 0.9)
    expected = 0.9 * (0.9 * 1.0 + 0.1 * 4.0) + 0.1 * 10.0
    torch.testing.assert_close(weights["w"], torch.full((2,), expected))


@pytest.mark.parametrize(("last", "expected"), [(1, 10.0), (2, 7.0), (3, 5.0), (9, 5.0), (0, 5.0)])
def test_the_last_ones(folder, last, expected):
    _, weights = averaged(folder, last=last)
    torch.testing.assert_close(weights["w"], torch.full((2,), expected))


def test_its_own_output_and_checkpoints_within_an_epoch_never_enter(folder):
    averaged(folder, last=1)
    save(made(3, 1000.0, call=2), folder)
    result, weights = averaged(folder)
    torch.testing.assert_close(weights["w"], torch.full((2,), 5.0))
    assert len(result.files) == 3


@pytest.mark.parametrize("name", ["resnet18_shapes_2.pt", "resnet18_shapes_9.pt", "best.json",
                                  "metrics.jsonl", "link.pt"])
def test_no_file_of_the_training_is_replaced(folder, name):
    (folder / "link.pt").symlink_to(folder / "resnet18_shapes_1.pt")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match="name of a file of the training") as caught:
        average(folder, "mean", 0.9, -1, folder / "more" / ".." / name)
    assert "another file" in caught.value.hint
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert average(folder, "mean", 0.9, -1, folder / "average.pt").path.exists()


def test_another_model_or_a_damaged_file_is_named(folder):
    other = made(4, 1.0)
    other.weights["more"] = torch.zeros(1)
    path = save(other, folder)
    with pytest.raises(CheckpointError, match=f"'{path}' is of another model") as caught:
        averaged(folder)
    assert "'--weight-avg-n 1' leaves earlier ones out" in caught.value.hint
    assert average(folder, "mean", 0.9, 1).sources == (str(path),)
    (folder / "resnet18_shapes_4_averaged.pt").unlink()
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=f"'{path}' is damaged"):
        averaged(folder)


def test_nothing_to_average(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoints to average"):
        averaged(tmp_path)
    with pytest.raises(CheckpointError, match="cannot list folder"):
        averaged(tmp_path / "nowhere")


def test_statistics_are_estimated_again():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5))
    nn.init.constant_(model[0].running_mean, 9.0)
    batches = list(torch.randn(3, 4, 2, 5, 5, generator=torch.Generator().manual_seed(0)))
    reestimate(model, batches)
    norm = model[0]
    torch.testing.assert_close(norm.running_mean, torch.stack(
        [batch.mean((0, 2, 3)) for batch in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack(
        [batch.transpose(0, 1).flatten(1).var(1) for batch in batches]).mean(0))
    assert norm.momentum == 0.1
    assert not norm.training


def test_epochs_are_taken_in_the_order_of_their_numbers(folder):
    save(made(10, 100.0), folder)
    result, weights = averaged(folder, "exponential", 0.5)
    torch.testing.assert_close(weights["w"], torch.full((2,), 53.125))
    assert weights["n"] == result.epoch == 10
    _, weights = averaged(folder, last=2)
    torch.testing.assert_close(weights["w"], torch.full((2,), 55.0))


def test_tensors_keep_their_type_and_are_summed_in_double_precision(tmp_path):
    for epoch, value in enumerate((2048.0, 2050.0, 2050.0), 1):  # neighbours in half precision
        checkpoint = made(epoch, 0.0)
        checkpoint.weights["w"] = torch.full((2,), value, dtype=torch.float16)
        save(checkpoint, tmp_path)
    _, weights = averaged(tmp_path)
    assert torch.equal(weights["w"], torch.full((2,), 2050.0, dtype=torch.float16))


def test_an_interrupted_estimate_leaves_the_momentum(folder):
    model = nn.Sequential(nn.BatchNorm2d(2, momentum=0.3))

    def batches():
        yield torch.ones(1, 2, 3, 3)  # one image has no variance to estimate
        assert model[0].num_batches_tracked == 0
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - ours
        reestimate(model, batches())
    assert model[0].momentum == 0.3
    assert not model[0].training


def test_statistics_are_not_estimated_from_single_images():
    model = nn.Sequential(nn.BatchNorm2d(2))
    with pytest.raises(DataError, match="no two images"):
        reestimate(model, [torch.ones(1, 2, 3, 3)])


@pytest.mark.parametrize(("place", "error", "message"), [
    ("file/a.pt", UsageError, "cannot make the folder '.*file'"),
    ("/proc/nowhere/a.pt", UsageError, "cannot make the folder '/proc/nowhere'"),
    ("taken.pt", DataError, "it is a folder")])
def test_the_place_of_the_average_is_checked_first(folder, monkeypatch, place, error, message):
    (folder / "file").write_text("")
    (folder / "taken.pt").mkdir()
    monkeypatch.setattr(averaging, "load_stored", None)  # no checkpoint is read
    with pytest.raises(error, match=message):
        average(folder, "mean", 0.9, -1, folder / place)


@pytest.mark.parametrize(("given", "expected"), [
    ({"weight_avg_n": 4}, "'--keep-last 2' keeps are averaged, not the last 4"),
    ({}, "'--keep-last 2' keeps are averaged, not all"), ({"weight_avg_n": 2}, None),
    ({"keep_last": 0}, None), ({"weight_avg_strategy": "none"}, None)])
def test_checkpoints_that_are_removed_before_they_are_averaged_are_noted(given, expected):
    options = build(TrainOptions, {"keep_last": 2, "weight_avg_strategy": "mean", **given})
    notes = notes_on_idle(options, registry().get("dataset", "cifar10"), registry())
    found = [note for note in notes if "averaged" in note]
    assert [note.partition("that ")[2] for note in found] == ([expected] if expected else [])
