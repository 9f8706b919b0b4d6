"""Shipped profiles keep their meaning whatever the defaults of training and runs become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipucnn.commands.config import PROFILED
from ipucnn.core.errors import UsageError
from ipucnn.core.options import profiles
from ipucnn.core.options.building import build
from ipucnn.core.options.profiles import resolve
from ipucnn.training.options.train_options import TrainOptions

FORMER = json.loads((Path(__file__).parent / "former_profiles.json").read_text())
"""What each profile stands for: what all of a command's have in common, and the rest."""

NAMES = [(command, name) for command in FORMER for name in FORMER[command]["profiles"]]


@pytest.mark.parametrize(("command", "name"), NAMES, ids="/".join)
def test_a_profile_keeps_its_meaning(command, name):
    former = {**FORMER[command]["all"], **FORMER[command]["profiles"][name]}
    now = resolve(PROFILED[command], {"config": name}, command).as_dict()
    now["config"] = None
    assert {option: now[option] for option in former} == former
    if command == "train":  # checkpoints were written only to a folder that was named
        assert now["no_checkpoints"] == (former["checkpoint_path"] is None)


@pytest.mark.parametrize("profile", profiles.available("train"), ids=lambda p: p.name)
def test_every_training_profile_is_valid_and_has_a_summary(profile):
    assert profile.summary
    resolve(TrainOptions, {"config": profile.name}, "train").plan(synthetic=False)


def test_a_folder_of_checkpoints_overrides_a_profile_that_writes_none():
    options = resolve(TrainOptions, {"config": "resnet50", "checkpoint_path": "here"}, "train")
    assert options.checkpoints.checkpoint_path == "here"
    assert not options.checkpoints.no_checkpoints


def test_no_checkpoints_overrides_the_folder_of_a_profile():
    options = resolve(TrainOptions, {"config": "efficientnet-b0-g16-gn-pod16",
                                     "no_checkpoints": True}, "train")
    assert options.checkpoints.checkpoint_path is None
    assert options.checkpoints.weight_avg_strategy == "none"


def test_validation_on_the_command_line_overrides_a_profile(tmp_path):
    (tmp_path / "without.yaml").write_text("no_validation: true\n")
    (tmp_path / "after.yaml").write_text("validation_mode: after\n")

    def mode(name, **given):
        return resolve(TrainOptions, {"config": str(tmp_path / name), **given},
                       "train").validation.mode

    assert mode("without.yaml") == "none"
    assert mode("without.yaml", validation_mode="during", early_stopping=2) == "during"
    assert mode("after.yaml", no_validation=True) == "none"
    # those of a checkpoint, which contain both options
    saved = build(TrainOptions, {"no_validation": True}).as_dict()
    assert build(TrainOptions, saved, {"validation_mode": "after"}, restoring=True
                 ).validation.mode == "after"
    assert build(TrainOptions, saved, {}, restoring=True).validation.mode == "none"
    with pytest.raises(UsageError, match="needs validation") as caught:
        mode("without.yaml", early_stopping=2)
    assert "'--no-validation' out; '--validation-mode during' overrides" in caught.value.hint


def test_both_in_one_source_contradict_each_other():
    with pytest.raises(UsageError, match="no-checkpoints"):
        resolve(TrainOptions, {"no_checkpoints": True, "checkpoint_path": "here"}, "train")
    for mode in ("during", "after"):
        both = {"no_validation": True, "validation_mode": mode}
        with pytest.raises(UsageError, match=f"contradicts '--validation-mode {mode}'"):
            resolve(TrainOptions, both, "train")
        with pytest.raises(UsageError, match=f"contradicts '--validation-mode {mode}'"):
            build(TrainOptions, build(TrainOptions, {}).as_dict(), both, restoring=True)
    both["validation_mode"] = "none"
    assert resolve(TrainOptions, both, "train").validation.mode == "none"
