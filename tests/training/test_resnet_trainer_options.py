"""Options of the old ResNet trainer, and what they stand for."""

from __future__ import annotations

import pytest

from ipucnn.core.errors import UsageError
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import settings
from ipucnn.core.options.profiles import resolve
from ipucnn.training.options.resnet_trainer import ResNetTrainerOptions
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.rates import learning_rate

FORMER = {"data": "cifar10", "batch_size": 1, "precision": "16.16", "epoch": 10, "lr": 0.01,
          "lr_schedule": "step", "warmup_epoch": 0.0, "validation_mode": "after",
          "validation_frequency": 4, "momentum": 0.0}
"""Defaults of a training with options that only the old trainer had."""


def meaning(**given):
    """Return the options that differ from the defaults when these are given."""
    options = build(TrainOptions, given)
    former = FORMER if set(given) & set(ResNetTrainerOptions.__dataclass_fields__) else {}
    return {**{name: value for name, (item, value) in settings(options).items()
               if value != former.get(name, item.default)}, **options.plugins.deferred}


@pytest.mark.parametrize(("given", "expected"), [
    ({"size": "20", "dataset": "CIFAR-10"}, {"model": "resnet20-cifar"}),
    ({"size": 110}, {"model": "resnet110-cifar"}),
    ({"size": "18", "dataset": "CIFAR-100"}, {"model": "resnet18-cifar", "data": "cifar100"}),
    ({"size": "x50"}, {"model": "resnext50-cifar"}),
    ({"size": "X50", "dataset": "imagenet"}, {"model": "resnext50", "data": "imagenet"}),
    ({"size": "50", "dataset": "ImageNet"}, {"model": "resnet50", "data": "imagenet"}),
    ({"size": "152", "data": "imagenet"}, {"model": "resnet152", "data": "imagenet"}),
    ({"size": "34", "dataset": "shapes"}, {"model": "resnet34", "data": "shapes"}),
    ({"dataset": "cifar_100"}, {"data": "cifar100"}),
    ({"base_learning_rate": -6, "batch_size": 32}, {"lr": 0.5, "batch_size": 32}),
    ({"base_learning_rate": "-5.5", "batch_size": 8, "gradient_accumulation_factor": 4},
     {"lr": 2**-5.5 * 8, "batch_size": 8, "gradient_accumulation": 4,
      "accumulation_reduction": "sum"}),
    ({"base_learning_rate": -5, "batch_size": 8, "gradient_accumulation": 4,
      "accumulation_reduction": "mean"},
     {"lr": 0.25, "batch_size": 8, "gradient_accumulation": 4}),
    ({"base_learning_rate": -6, "batch_size": 8, "replicas": 4},
     {"lr": 0.5, "batch_size": 8, "replicas": 4}),
    ({"base_learning_rate": -6, "batch_size": 32, "replication_factor": 4},
     {"lr": 0.5, "batch_size": 8, "replicas": 4}),
    ({"learning_rate_decay": "1,0.1,0.01", "learning_rate_schedule": "0.5,0.75", "epochs": 30},
     {"lr_factors": (1.0, 0.1, 0.01), "lr_epoch_decay": (15.0, 22.5), "epoch": 30}),
    ({"learning_rate_decay": "1 0.2", "epochs": 10},
     {"lr_factors": (1.0, 0.2), "lr_epoch_decay": (5.0,), "epoch": 10, "lr_schedule": "step"}),
    ({"learning_rate_schedule": "0.2"},
     {"lr_factors": (1.0, 0.1, 0.01), "lr_epoch_decay": (2.0,)}),
    ({"learning_rate_schedule": "0.2", "lr_decay": 0.1},
     {"lr_decay": 0.1, "lr_epoch_decay": (2.0,)}),
    ({"lr_factors": [1, 0.3], "lr_epoch_decay": [4]},
     {"lr_factors": (1.0, 0.3), "lr_epoch_decay": (4.0,), "lr_schedule": "step"}),
    ({"lr_epoch_decay": [4]}, {"lr_epoch_decay": (4.0,), "lr_schedule": "step"}),
    ({"norm_type": "NONE"}, {"normlayer": "NONE"}),
    ({"norm_type": "GROUP", "norm_groups": 16},
     {"normlayer": "GROUP", "groupnorm_group_num": 16}),
    ({"precision": 32}, {"precision": "32.32"}),
    ({"precision": "16"}, {"precision": "16.16"}),
    ({"prng": True, "fp_exceptions": True, "recompute": True},
     {"enable_stochastic_rounding": True, "enable_fp_exceptions": True, "enable_recompute": True}),
    ({"prng": False}, {}),
    ({"get_reports": True, "simulation": True}, {"profile": True, "ipu_model": True}),
    ({"syncless_collectives": "AUTO", "max_bytes_per_tile": 0},
     {"syncless_collectives": "auto", "max_bytes_per_tile": 0}),
    ({"batches_per_step": 250}, {"device_iterations": 250}),
    ({"valid_per_epoch": 1}, {"validation_mode": "during", "validation_frequency": 1}),
    ({"valid_per_epoch": 0.2}, {"validation_mode": "during", "validation_frequency": 5}),
    ({"log_dir_string": "net"}, {"log_dir": "logs/net"}),
    ({"log_dir": "here", "log_dir_string": "net"}, {"log_dir": "here/net"}),
    ({"num_ipus": 4, "replication_factor": 4, "batch_size": 4}, {"replicas": 4}),
    ({"num_ipus": 4, "replicas": 2, "pipeline_splits": "layer3", "gradient_accumulation": 3},
     {"replicas": 2, "pipeline_splits": ("layer3",), "gradient_accumulation": 3}),
    ({"num_ipus": 4, "pipeline": True, "replication_factor": 2, "batch_size": 2, "size": "20"},
     {"model": "resnet20-cifar", "replicas": 2, "pipeline_splits": ("layer2/1",),
      "pipeline": True, "gradient_accumulation": 3, "accumulation_reduction": "sum"}),
    ({"num_ipus": 4, "replication_factor": 2, "batch_size": 2, "size": "20"},
     {"model": "resnet20-cifar", "replicas": 2, "pipeline_splits": ("layer2/1",),
      "sharded": True}),
])
def test_what_they_stand_for(given, expected):
    assert meaning(**given) == expected


@pytest.mark.parametrize(("given", "message", "hint"), [
    ({"size": "20", "dataset": "IMAGENET"}, "'--size 20' is for images of 32 pixels",
     "18, 34, 50, 101, 152, x50"),
    ({"size": "21"}, "'21' is not one of its values", "20, 32, 44"),
    ({"size": "20", "model": "resnet18"}, "'--size' contradicts '--model'", "leave one"),
    ({"dataset": "CIFAR-10", "data": "cifar10"}, "'--dataset' contradicts '--data'", "leave one"),
    ({"dataset": "CIFAR-1000"}, "unknown dataset 'CIFAR-1000'", "cifar100"),
    ({"base_learning_rate": -6, "lr": 0.01}, "'--base-learning-rate' contradicts '--lr'", ""),
    ({"base_learning_rate": "x"}, "'x' is not a number", ""),
    ({"base_learning_rate": 5000}, "5000 is too large", "64"),
    ({"learning_rate_schedule": "0.5", "lr_epoch_decay": "3"},
     "'--learning-rate-schedule' contradicts '--lr-epoch-decay'", ""),
    ({"learning_rate_schedule": "50"}, "'50' is too large", "1"),
    ({"learning_rate_decay": "1,0.1", "lr_decay": 0.1, "epoch": 9}, "'--lr-decay' contradicts",
     ""),
    ({"learning_rate_decay": "1,0.1"}, "whose length is not set", "--epoch N"),
    ({"learning_rate_decay": "1,0.5,0.2,0.1"}, "the 4 factors", "3 fractions"),
    ({"replication_factor": 3, "batch_size": 32}, "'--batch-size 32' cannot be shared by 3",
     "multiple of 3"),
    ({"replication_factor": 2, "replicas": 2}, "'--replication-factor' contradicts", ""),
    ({"num_ipus": 6, "replication_factor": 4, "batch_size": 4},
     "6 IPUs cannot be divided among 4 replicas", "multiple of 4"),
    ({"pipeline": True}, "needs a number of IPUs", "--num-ipus N"),
    ({"pipeline": True, "num_ipus": 2, "pipeline_splits": "layer2"},
     "'--pipeline' contradicts '--pipeline-splits'", ""),
    ({"num_ipus": 3, "pipeline_splits": "layer2"}, "contradicts 1 replicas of 2 stages", ""),
    ({"pipeline": True, "num_ipus": 99, "size": "8"}, "can be cut into 5 stages at most", "fewer"),
    ({"valid_per_epoch": 2}, "'--valid-per-epoch 2' is not once in a number of epochs", "0.5"),
    ({"valid_per_epoch": 0.3}, "'--valid-per-epoch 0.3'", ""),
    ({"valid_per_epoch": 1, "validation_mode": "after"}, "contradicts '--validation-mode'", ""),
    ({"valid_per_epoch": 1, "no_validation": True}, "contradicts '--no-validation'", ""),
    ({"steps_per_log": 1, "logs_per_epoch": 2}, "'--steps-per-log' contradicts", ""),
    ({"ckpt": "ckpt.onnx"}, "'--ckpt ckpt.onnx'", "--checkpoint-path"),
    ({"learning_rate_decay": "1,0.1", "lr_factors": "1,0.2"},
     "'lr_factors' and 'learning_rate_decay' are spellings of one option", "keep one"),
    ({"size": "20", "efficientnet_group_dim": 2}, "an option of models efficientnet-b0", ""),
    ({"pipeline": True, "num_ipus": 2, "size": "20", "expand_ratio": 2},
     "unknown option 'expand_ratio'", "efficientnet-expand-ratio"),
])
def test_what_cannot_be_meant(given, message, hint):
    with pytest.raises(UsageError) as caught:
        build(TrainOptions, given)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_more_drops_than_factors_are_refused():
    with pytest.raises(UsageError, match="3 milestones need 4 factors, and there are 3"):
        build(TrainOptions, {"learning_rate_schedule": "0.2,0.5,0.75"})


def test_the_learning_rate_is_the_old_trainers():
    from ipucnn.core.registry.registry import registry

    rate = learning_rate(build(TrainOptions, {
        "base_learning_rate": -6, "batch_size": 32, "epochs": 30,
        "learning_rate_decay": "1,0.1,0.01", "learning_rate_schedule": "0.5,0.75"}), registry())
    assert [rate.at(epoch, epoch + 1) for epoch in (0, 14.9, 15, 22, 22.5, 29)] == [
        0.5, 0.5, 0.05, 0.05, 0.005, 0.005]


def test_the_command_line_replaces_what_a_profile_means(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: resnet50\nlr: 3.0\nreplicas: 2\nbatch_size: 16\n")
    options = resolve(TrainOptions, {"config": str(path), "size": "20", "replication_factor": "4",
                                     "base_learning_rate": "-4"}, "train")
    execution = options.execution
    assert (options.network.model, execution.replicas, execution.batch_size) == (
        "resnet20-cifar", 4, 4)
    assert options.optimisation.lr == 1.0


def test_a_wrong_option_of_a_plugin_keeps_its_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 20\nlr_decay: much\n")
    with pytest.raises(UsageError, match=r"'much' is not a number \(mine.yaml, line 2\)"):
        resolve(TrainOptions, {"config": str(path), "size": "20"}, "train")


@pytest.mark.parametrize("name", ["resnet20-cifar", "resnet-main-py"])
def test_the_profile_is_the_old_trainers_defaults(name):
    options = resolve(TrainOptions, {"config": name}, "train")
    old = resolve(TrainOptions, {
        "size": "20", "dataset": "CIFAR-10", "batch_size": "32", "norm_type": "group",
        "norm_groups": "16", "shortcut_type": "B", "precision": "16", "prng": True,
        "base_learning_rate": "-6", "learning_rate_decay": "1,0.1,0.01",
        "learning_rate_schedule": "0.5,0.75", "epochs": "30", "weight_decay": "0",
        "batches_per_step": "250", "valid_per_epoch": "1", "no_checkpoints": True}, "train")
    assert options.as_dict() == old.as_dict()


def test_spellings_of_the_last_release(tmp_path):
    options = build(TrainOptions, {"checkpoint_input_dir": "kept", "wandb": True,
                                   "wandb_weight_histogram": True, "reduction": "sum"})
    assert options.checkpoints.checkpoint_path == "kept"
    assert options.results.logger == ("files", "wandb")
    assert options.plugins.of("logger", "wandb").wandb_weight_histogram is True
    assert options.execution.accumulation_reduction == "mean"
    saved = options.as_dict()
    assert not {"checkpoint_input_dir", "wandb", "reduction"} & set(saved)
    build(TrainOptions, {"checkpoint_input_dir": "kept", "checkpoint_output_dir": "./kept/"})
    with pytest.raises(UsageError, match="another folder than '--checkpoint-path new'"):
        build(TrainOptions, {"checkpoint_input_dir": "kept", "checkpoint_path": "new"})


def test_the_old_reduction_has_a_note():
    from ipucnn.core.registry.registry import registry
    from ipucnn.training.setup.idle_options import notes_on_idle

    notes = notes_on_idle(build(TrainOptions, {"reduction": "sum"}),
                          registry().get("dataset", "cifar10"), registry())
    assert any(note.startswith("'--reduction sum' has no effect") for note in notes)


def test_only_what_they_stand_for_is_saved():
    saved = build(TrainOptions, {"size": "20", "base_learning_rate": -6,
                                 "learning_rate_schedule": "0.5"}).as_dict()
    assert not {"size", "base_learning_rate", "learning_rate_schedule"} & set(saved)
    assert build(TrainOptions, saved).as_dict() == saved
    assert build(TrainOptions, saved, {"lr": 0.25}).optimisation.lr == 0.25
