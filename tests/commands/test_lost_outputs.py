"""An output that cannot be written does not lose the others."""

from __future__ import annotations

import pytest

import ipucnn
from ipucnn.core.errors import IpucnnError

TRAINING = ["train", "--model", "resnet8-cifar", "--data", "shapes", "--batch-size", "8", "--epoch",
            "1", "--iterations", "1", "--lr", "0.1", "--progress", "off", "--seed", "2"]

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(autouse=True)
def _late(tmp_path, monkeypatch):
    """Files in a folder that becomes a file during the job, after they were checked."""
    (tmp_path / "late").write_text("")
    for module in ("core.options.parts", "training.checkpoints.checkpoint_folder"):
        monkeypatch.setattr(f"ipucnn.{module}.require_writable", lambda _path: None)


def test_of_a_run_and_of_validations(cli, tmp_path):
    code, out, err = cli("run", "--model", "resnet8-cifar", "--random-weights", "--data",
                         "synthetic", "--iterations", "1", "--progress", "off", "--result",
                         "late/r.json", "--report", "r.html")
    assert (code, "cannot write 'late/r.json'" in err) == (1, True), err
    assert (tmp_path / "r.html").is_file()
    assert "images" in out
    assert cli(*TRAINING, "--checkpoint-path", "a", "--no-validation")[0] == 0
    code, out, err = cli("validate", "--checkpoint-path", "a", "--result", "late/v.json",
                         "--report", "v.html", "--progress", "off")
    assert (code, "cannot write 'late/v.json'" in err) == (1, True), err
    assert (tmp_path / "v.html").is_file()
    assert "top-1" in out

    code, out, err = cli("validate", "--checkpoint-path", "a", "--confusion-matrix", "late/m.csv",
                         "--report", "w.html", "--progress", "off")
    assert (code, "cannot write 'late/m.csv'" in err) == (1, True), err
    assert (tmp_path / "w.html").is_file()
    assert "top-1" in out


def test_of_a_training(cli, tmp_path):
    code, out, err = cli(*TRAINING, "--log-dir", "log", "--result", "late/r.json")
    assert (code, "cannot write 'late/r.json'" in err) == (1, True), err
    assert (tmp_path / "log" / "report.html").is_file()
    assert "checkpoint" in out
    with pytest.raises(IpucnnError, match=r"cannot write 'late/r.json'") as caught:
        ipucnn.train(model="resnet8-cifar", data="shapes", batch_size=8, epoch=1, iterations=1,
                     lr=0.1, progress=False, log_dir="api", result="late/r.json")
    assert caught.value.partial.epochs == 1
    assert (tmp_path / "api" / "report.html").is_file()


def test_the_cause_of_a_failed_training_is_reported(cli, monkeypatch):
    def failing(*_):
        raise IpucnnError("the device failed")

    monkeypatch.setattr("ipucnn.training.validator.Validator.validate", failing)
    code, _out, err = cli(*TRAINING, "--no-checkpoints", "--result", "late/r.json")
    assert code == 1, err
    assert "note: cannot write 'late/r.json'" in err
    assert err.rstrip().endswith("error: the device failed")
