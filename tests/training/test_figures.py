"""The best validation so far, ties between validations, and the rows of an epoch."""

from __future__ import annotations

import json

import pytest
from ranks import TINY

from ipucnn.__main__ import invoke
from ipucnn.training.metrics.figures import Figures, Standing
from ipucnn.training.metrics.validation import Validation


def validation(epoch, top1, loss):
    return Validation(epoch, "raw", 3, loss, top1, 100.0)


def test_of_equal_accuracies_the_smaller_loss_is_best():
    standing = Standing()
    offered = [standing.offer("top1", validation(*row)) for row in (
        (1, 0.0, 3.0), (2, 100.0, 0.7), (3, 100.0, 0.9), (4, 100.0, 0.1), (5, 66.7, 0.05),
        (6, 100.0, float("nan")))]
    assert offered == [True, True, False, True, False, False]
    assert standing.as_plain() == {"metric": "top1", "value": 100.0, "epoch": 4, "weights": "raw"}


def test_the_best_of_an_earlier_version_stays_until_it_is_beaten():
    saved = Figures().as_plain()
    saved["standing"] = {"metric": "top1", "value": 50.0, "epoch": 1, "weights": "raw", "waited": 2}
    standing = Figures.from_plain(saved).standing
    assert not standing.offer("top1", validation(2, 50.0, 0.1))
    assert standing.offer("top1", validation(3, 51.0, 0.9))


@pytest.mark.parametrize(("option", "expected"), [
    (["--logs-per-epoch", "1"], [5, 10]), (["--logs-per-epoch", "3"], [2, 4, 5, 7, 9, 10]),
    (["--logs-per-epoch", "8"], list(range(1, 11))), (["--steps-per-log", "2"], [2, 4, 7, 9])])
def test_an_epoch_has_the_rows_that_were_requested(tmp_path, option, expected):
    assert invoke([*TINY, "train", "--model", "tiny", "--data", "synthetic", "--iterations", "5",
                   "--batch-size", "2", "--epoch", "2", "--optimizer", "sgd", "--backend", "torch",
                   "--precision", "full", "--progress", "off", *option, "--log-dir",
                   str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == expected
