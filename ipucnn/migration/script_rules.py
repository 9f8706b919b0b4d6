"""Translations that look at all options of a script together, by the names that tables use."""

from __future__ import annotations

from typing import List, Sequence, Tuple

from ipucnn.core.options.composition import common_option
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.registry.registry import registry
from ipucnn.inference.options import RunOptions
from ipucnn.migration.draft import Draft, Row
from ipucnn.terminal.launch import LaunchOptions

MILESTONES = 20
"""A step schedule with more drops than this is written as an exponential one."""

IMAGENET = "/localdata/datasets/imagenet-raw-data"
"""The default of Graphcore's '--imagenet-data-path'."""

_SET = "it cannot be computed here: set '{}' yourself"
"""The explanation where a value is only known to the shell, or wrong."""


def synthetic_benchmark(draft: Draft) -> None:
    """Turn the classes and norms of the benchmark into those of the command."""
    if draft.command == "train":
        draft.put(["--no-checkpoints", "--epoch", "1"])
        draft.rows.append(Row("--mode train", "--no-checkpoints --epoch 1", "one epoch of "
                                                                            "'--steps'"))


def imagenet_training(draft: Draft) -> None:
    """Name the folder that ImageNet was read from by default."""
    if draft.old("data") == "imagenet" and not draft.given("imagenet-data-path"):
        draft.explain((), ["--data-dir", IMAGENET])


def resnet_training(draft: Draft) -> None:
    """Name the default dataset, because a folder is otherwise read by its layout."""
    if draft.given("data-dir") and not draft.given("dataset"):
        draft.explain((), ["--dataset", "CIFAR-10"])


def bulk_inference(draft: Draft) -> None:
    """Limit the steps of synthetic data; other data was read once, whatever was given."""
    given = draft.given("iterations")
    if "--synthetic" in draft.options:
        draft.explain(("iterations",), ["--iterations", draft.old("iterations", "1")],
                      "" if given else "the default of '--synthetic'")
    elif given:
        draft.explain(("iterations",), [], "it had no effect without '--synthetic'")


def _steps_schedule(draft: Draft, length: Tuple[str, str], factor: str,
                    epochs: str) -> List[str]:
    """Return the schedule that multiplies the rate with a factor after every so many epochs.

    It is empty if their number is unknown.

    Args:
        draft: the translation.
        length: the option for this number, and its default.
        factor: the factor.
        epochs: the script's default of '--epochs'.
    """
    found = draft.numbers({f"--{length[0]}": draft.old(*length)})
    total = draft.numbers({"--epochs": draft.old("epochs", epochs)})
    if found is None:
        return []
    (every,) = found
    # an exponential schedule needs no number of epochs
    drops = int((total[0] - 1) // every) if total and every == int(every) else MILESTONES + 1
    if drops <= MILESTONES:
        marks = [str(int(every) * (number + 1)) for number in range(drops)]
        return ["--lr-schedule", "step", "--lr-decay", factor,
                *(["--lr-epoch-decay", *marks] if marks else [])]
    return ["--lr-schedule", "exponential", "--lr-decay", factor, "--lr-scheduler-freq",
            f"{1 / every:.6g}"]


def torchvision(draft: Draft) -> None:
    """Translate the schedule and the average, and a test of a model."""
    if draft.given("test-only"):
        _evaluation(draft)
        return
    names = ("lr-scheduler", "lr-step-size", "lr-gamma")
    if any(map(draft.given, names)) or draft.given("epochs"):
        text, factor = draft.old("lr-scheduler", "steplr"), draft.old("lr-gamma", "0.1")
        kind = text.lower()
        why = "" if any(map(draft.given, names)) else "its schedule, for these epochs"
        if kind == "cosineannealinglr":
            words = ["--lr-schedule", "cosine"]
        elif kind == "exponentiallr":
            words = ["--lr-schedule", "exponential", "--lr-decay", factor,
                     "--lr-scheduler-freq", "1"]
        elif kind == "steplr":
            words = _steps_schedule(draft, ("lr-step-size", "30"), factor, "90")
        else:
            draft.problem(f"there is no schedule {text!r}", text)
            words = ["--lr-schedule", text]
        draft.explain(names, words, why if words else _SET.format("--lr-schedule"))
    if draft.given("model-ema"):
        _torchvision_average(draft)
    elif draft.given("model-ema-decay"):
        draft.explain(("model-ema-decay",), [], "it acts with '--model-ema' only")


def _torchvision_average(draft: Draft) -> None:
    """Compute the decay of a weight update, as torchvision does."""
    found = draft.numbers({
        "--model-ema-steps": draft.old("model-ema-steps", "32"),
        "--model-ema-decay": draft.old("model-ema-decay", "0.99998"),
        "--nproc": draft.options.get("--nproc", (draft.old("world-size", "1"),))[0],
        "--batch-size": draft.old("batch-size", "32"), "--epochs": draft.old("epochs", "90")})
    names = ("model-ema", "model-ema-decay")
    if found is None:
        draft.explain(names, [], _SET.format("--ema-decay"))
        return
    every, decay, started, batch, epochs = found
    share = (1 - decay) * every * started * batch / epochs
    draft.explain(names, ["--ema-decay", f"{(1 - min(1.0, share)) ** (1 / every):.8g}"],
                  "for each weight update, as torchvision computes it from the batch size and the "
                  "epochs")


def timm(draft: Draft) -> None:
    """Translate the rate, the schedule and the average."""
    if not draft.given("lr") and not draft.given("config"):  # which may have the rate
        _timm_rate(draft)
    names = ("sched", "decay-epochs", "decay-milestones", "decay-rate")
    if any(map(draft.given, names)):
        _timm_schedule(draft, names)
    if draft.given("model-ema"):
        draft.explain(("model-ema", "model-ema-decay"),
                      ["--ema-decay", draft.old("model-ema-decay", "0.9998")])
    elif draft.given("model-ema-decay"):
        draft.explain(("model-ema-decay",), [], "it acts with '--model-ema' only")


def _timm_rate(draft: Draft) -> None:
    """Compute the rate from the samples of an update, as timm does where none is given."""
    names = ("lr-base", "lr-base-size", "lr-base-scale")
    found = draft.numbers({
        "--batch-size": draft.old("batch-size", "128"),
        "--grad-accum-steps": draft.old("grad-accum-steps", "1"),
        "--nproc": draft.options.get("--nproc", ("1",))[0],
        "--lr-base-size": draft.old("lr-base-size", "256"),
        "--lr-base": draft.old("lr-base", "0.1")})
    if found is None:
        draft.explain(names, [], _SET.format("--lr"))
        return
    micro_batch, accumulated, processes, size, base = found
    batch = micro_batch * accumulated * processes
    ratio = batch / size
    name = draft.old("opt", "sgd").lower()
    scale = draft.old("lr-base-scale") or (
        "sqrt" if "ada" in name or "lamb" in name else "linear")
    rate = base * (ratio ** 0.5 if scale == "sqrt" else ratio)
    draft.explain(names, ["--lr", f"{rate:.6g}"],
                  f"timm's rate for {batch:.0f} samples per update ({scale} scaling)")


def _timm_schedule(draft: Draft, names: Sequence[str]) -> None:
    kind, factor = draft.old("sched", "cosine"), draft.old("decay-rate", "0.1")
    why = ""
    if kind in ("cosine", "tanh"):
        words = ["--lr-schedule", "cosine"]
        why = "" if kind == "cosine" else "the nearest one"
    elif kind == "poly":
        words = ["--lr-schedule", "polynomial", "--lr-power", factor]
    elif kind == "multistep":
        marks = draft.old("decay-milestones", "90 180 270").split()
        words = ["--lr-schedule", "step", "--lr-decay", factor, "--lr-epoch-decay", *marks]
    elif kind in ("step", "exp", "plateau"):
        words = _steps_schedule(draft, ("decay-epochs", "90"), factor, "300")
        why = "" if kind != "plateau" else "there is no plateau schedule; this is the one with " \
                                           "fixed steps"
    else:
        draft.problem(f"there is no schedule {kind!r}", kind)
        words = ["--lr-schedule", kind]
    draft.explain(names, words, why if words else _SET.format("--lr-schedule"))


def timm_validate(draft: Draft) -> None:
    """Take published weights where timm does."""
    if not draft.given("checkpoint") and not draft.given("pretrained"):
        draft.explain((), ["--weights", "pretrained"], "where no checkpoint is given")
    _scored(draft)


def _scored(draft: Draft) -> None:
    """Compare the images of a folder with their labels, as an evaluation does."""
    if "--data-dir" in draft.options and "--data" not in draft.options:
        draft.explain((), ["--data", "image_folder"], "folders are classes; without it, the images "
                                                      "may be classified without an accuracy")


def _evaluation(draft: Draft) -> None:
    """Turn a training into an evaluation, without what only a training has."""
    draft.command = "run"
    draft.explain(("test-only",), [], "'ipucnn run', which needs no options of a training")
    kept = {flag: values for flag, values in draft.options.items() if _of_run(flag)}
    dropped = [flag for flag in draft.options if flag not in kept and flag != "--config"]
    draft.options.clear()
    draft.options.update(kept)
    draft.options.pop("--config", None)
    _scored(draft)
    draft.rows[:] = [row if row.becomes.split(" ")[0] not in dropped else
                     Row(row.given, "", "an option of trainings") for row in draft.rows]


def _of_run(flag: str) -> bool:
    """Return whether `ipucnn run` has an option, or a plugin that it may use."""
    found = [item for options in (RunOptions, LaunchOptions)
             for item in [common_option(options, flag)] if item is not None]
    return any(item.option.applies_to(RunOptions.job) for item in found) or any(
        owner.option(flag) for owner in builtin_owners(
            (*RunOptions.kinds, *LaunchOptions.kinds), registry()))
