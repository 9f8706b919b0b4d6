"""Translations of single options of other programs, by the names that their tables use.

A rule of an option gets the translation in progress and the option as given.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import List

from ipucnn.core.errors import IpucnnError
from ipucnn.core.names import key
from ipucnn.core.registry.registry import registry
from ipucnn.migration.draft import PART, Draft, Outcome, number
from ipucnn.migration.old_arguments import Argument
from ipucnn.migration.shell_line import expands, quoted_word


def part_of_schedule(draft: Draft, argument: Argument) -> Outcome:
    """Leave it to the rule of the script."""
    return PART


part_of_rate = part_of_address = ema_switch = ema_decay = test_only = synthetic_steps = \
    part_of_schedule


def flag(draft: Draft, argument: Argument) -> Outcome:
    """Name an option that takes no value here."""
    return Outcome([argument.to])


def own_profile(draft: Draft, argument: Argument) -> Outcome:
    """Name the file that a configuration of options has to be converted to."""
    old = argument.value
    draft.problems.append(
        f"'ipucnn migrate --config {quoted_word(old)} --from {draft.script.family} --script "
        f"{draft.script.name} --out profiles' converts its options")
    if expands(old):
        return Outcome(["--config", old], "the name of the converted file")
    return Outcome(["--config", f"profiles/{key(Path(old).stem)}.yaml"], "the converted file")


def model(draft: Draft, argument: Argument) -> Outcome:
    """Name the model here."""
    old = argument.value
    bare = old.partition(".")[0]
    name = draft.script.models.get(bare, bare)
    untagged = "" if bare == old else "; the weights are those published for it here"
    try:
        name = registry().get("model", name).name
    except IpucnnError:
        draft.problem(f"no model {bare!r} is installed: a plugin can add it", bare)
        return Outcome(["--model", bare], "'ipucnn list-plugins models' lists those installed")
    return Outcome(["--model", name], untagged.lstrip("; "))


def training_crop(draft: Draft, argument: Argument) -> Outcome:
    """Name the input size of a training."""
    if draft.given("test-only"):
        return Outcome(None, "an option of trainings")
    return Outcome([argument.to, *argument.values])


def validation_crop(draft: Draft, argument: Argument) -> Outcome:
    """Name the input size of a test of a model."""
    if draft.given("test-only"):
        return Outcome([argument.to, *argument.values])
    return Outcome(None, f"training and validation have one '{argument.to}'")


def pretrained(draft: Draft, argument: Argument) -> Outcome:
    """Start with published weights, unless others are given."""
    if any(draft.given(name) for name in ("checkpoint", "initial-checkpoint")):
        return Outcome(None, "the weights of a file are taken")
    return Outcome(["--weights", "pretrained"])


def torchvision_weights(draft: Draft, argument: Argument) -> Outcome:
    """Name the version of published weights."""
    version = re.search(r"V(\d)$", argument.value)
    tag = f"pretrained:v{version.group(1)}" if version else "pretrained"
    return Outcome(["--weights", tag])


def resume(draft: Draft, argument: Argument) -> Outcome:
    """Start with the weights of another program's checkpoint."""
    if not argument.values or not argument.value:
        return Outcome(None, "it names no checkpoint")
    return Outcome(["--weights", *argument.values],
                   "its weights; the state of its optimizer is not read. 'ipucnn restore "
                   "--checkpoint-path DIR' continues a training of ipucnn")


def amp(draft: Draft, argument: Argument) -> Outcome:
    """Compute in half precision, with single-precision weights in a training."""
    training = draft.command == "train" and not draft.given("test-only")
    return Outcome(["--precision", "16.32" if training else "16.16"])


def model_dtype(draft: Draft, argument: Argument) -> Outcome:
    """Store the weights in a precision."""
    return Outcome(["--precision", "32.32" if argument.value == "float32" else "16.16"])


def device(draft: Draft, argument: Argument) -> Outcome:
    """Name the device of the backend `torch`."""
    return Outcome(["--device", *argument.values])


def momentum(draft: Draft, argument: Argument) -> Outcome:
    """Keep it for optimizers that have it."""
    chosen = draft.script.optimizers.get(draft.old("opt", "sgd").lower(), ["sgd"])
    item = "sgd" in chosen[0] or "rmsprop" in chosen[0]
    if not item:
        return Outcome(None, f"{chosen[0]} has none")
    return Outcome(["--momentum", *argument.values])


def optimizer(draft: Draft, argument: Argument) -> Outcome:
    """Name the optimizer here."""
    old = argument.value
    found = draft.script.optimizers.get(old.lower())
    if found is None:
        draft.problem(f"there is no optimizer {old!r}: a plugin can add it", old)
        return Outcome(["--optimizer", old], "'ipucnn list-plugins optimizers' lists those "
                                             "installed")
    nesterov = "momentum without Nesterov's" if "--no-nesterov" in found else ""
    return Outcome(["--optimizer", *found], nesterov)


timm_optimizer = torchvision_optimizer = optimizer


def betas(draft: Draft, argument: Argument) -> Outcome:
    """Give each decay an option of its own."""
    words: List[str] = []
    for name, value in zip(("--beta1", "--beta2"), argument.values):
        words += [name, value]
    return Outcome(words)


_CUTMIX = "'--cutmix-lambda-low' and '--cutmix-lambda-high'"


def _unread(draft: Draft, argument: Argument, options: str) -> Outcome:
    """Drop an option whose value is wrong, or only known to the shell."""
    value = argument.value
    draft.problem(f"'{' '.join(argument.words)}' has a wrong value", value)
    return Outcome(None, f"only the shell has its value: set {options} yourself"
                   if expands(value) else "its value is wrong")


def cutmix_alpha(draft: Draft, argument: Argument) -> Outcome:
    """Draw the share of an image from all shares."""
    alpha = number(argument.value)
    if alpha is None:
        return _unread(draft, argument, _CUTMIX)
    if alpha <= 0:
        return Outcome(None, "0 is no cutmix")
    words = ["--cutmix-lambda-low", "0", "--cutmix-lambda-high", "1"]
    if any(number(draft.old(name, "0")) != 0 for name in ("mixup", "mixup-alpha")):
        words += ["--cutmix-disable-prob", "0.5"]
    return Outcome(words, "the share is drawn uniformly" + (
        "" if alpha == 1 else f", not from Beta({alpha:g}, {alpha:g})"))


def cutmix_range(draft: Draft, argument: Argument) -> Outcome:
    """Turn the sides of the box into the share that is kept."""
    found = [value for value in map(number, argument.values) if value is not None]
    if len(found) != 2 or len(argument.values) != 2:
        return _unread(draft, argument, _CUTMIX)
    low, high = found
    return Outcome(["--cutmix-lambda-low", f"{1 - high * high:g}", "--cutmix-lambda-high",
                    f"{1 - low * low:g}"], "the share that is kept: 1 - side^2")


def auto_augment(draft: Draft, argument: Argument) -> Outcome:
    """Translate RandAugment; other policies have no counterpart."""
    policy = argument.value
    if expands(policy):
        return _unread(draft, argument, "'--rand-augment' and '--rand-augment-magnitude'")
    if policy == "ra":
        return Outcome(["--rand-augment", "2", "--rand-augment-magnitude",
                        draft.old("ra-magnitude", "9")])
    if not policy.startswith("rand"):
        return Outcome(None, "RandAugment is the only policy")
    numbers = dict(re.findall(r"-([mn])(\d+)", policy))
    rest = re.findall(r"-(mstd|w|p)", policy)
    magnitude = min(30, 3 * int(numbers.get("m", "10")))
    return Outcome(
        ["--rand-augment", numbers.get("n", "2"), "--rand-augment-magnitude", str(magnitude)],
        "the scale ends at 30, timm's at 10; timm leaves out half of the operations"
        + ("; without " + ", ".join(rest) if rest else ""))


def ra_magnitude(draft: Draft, argument: Argument) -> Outcome:
    """Leave it to the policy."""
    return PART if draft.old("auto-augment") == "ra" else Outcome(
        None, "it acts with RandAugment only")


def timm_dataset(draft: Draft, argument: Argument) -> Outcome:
    """Name the dataset; that of a folder is recognised."""
    kind, _, name = argument.value.rpartition("/")
    if name.startswith("cifar"):
        return Outcome(["--data", name])
    if kind == "wds":
        return Outcome(["--data", "webdataset"], "shards with a 'metadata.json', which 'ipucnn "
                                                 "data convert' writes")
    if kind in ("", "torch") and name in ("", "imagenet", "folder", "image_folder"):
        return Outcome(None, "a folder's layout is recognised")
    draft.problem(f"there is no dataset {argument.value!r}: a plugin can add it",
                  argument.value)
    return Outcome(["--data", name], "'ipucnn list-plugins datasets' lists those installed")


def split(draft: Draft, argument: Argument) -> Outcome:
    """Leave the splits of a folder to its dataset."""
    name = argument.value
    if name in ("train", "training", "val", "valid", "validation", "test"):
        return Outcome(None, "the folders of a dataset are recognised")
    return Outcome(None, "'--validation-data-dir DIR' names the folder of validation images")


def timm_input_size(draft: Draft, argument: Argument) -> Outcome:
    """Take the height of a square input."""
    channels, height, width = [*argument.values, "", "", ""][:3]
    if channels != "3" or height != width:
        draft.problem(f"the input {argument.value!r} is not a square RGB image",
                      argument.value)
    return Outcome(["--input-size", height])


def no_augmentation(draft: Draft, argument: Argument) -> Outcome:
    """Prepare training images as validation images."""
    return Outcome(["--augmentation", "none"])


def crop_area(draft: Draft, argument: Argument) -> Outcome:
    """Take the least area of a crop."""
    if not argument.values:
        return Outcome(None, "it has no value")
    return Outcome(["--min-crop-area", argument.values[0]], "" if argument.values[-1] in (
        "1", "1.0") else "the largest area is that of the image")


def flip(draft: Draft, argument: Argument) -> Outcome:
    """Compare with the share of images that are flipped."""
    if number(argument.value) == 0.5:
        return Outcome(None, "half of the images are flipped")
    return Outcome(None, "half of the images are flipped; '--augmentation none' flips and crops "
                         "none")


def binary_cross_entropy(draft: Draft, argument: Argument) -> Outcome:
    """Name the loss."""
    return Outcome(["--loss", "binary-cross-entropy"])


def output_folder(draft: Draft, argument: Argument) -> Outcome:
    """Join the folder with the name of the experiment."""
    return Outcome(["--checkpoint-path", str(Path(argument.value, draft.old("experiment")))],
                   "a folder of this training")


def experiment(draft: Draft, argument: Argument) -> Outcome:
    """Name a folder of the training where none is given."""
    if draft.given("output"):
        return PART
    return Outcome(["--checkpoint-path", str(Path("output", "train", argument.value))])


def recovery_interval(draft: Draft, argument: Argument) -> Outcome:
    """Drop the interval that saves nothing, which is timm's default."""
    if number(argument.value) == 0:
        return Outcome(None, "0 saves nothing within an epoch")
    return Outcome([argument.to, *argument.values])


def metric(draft: Draft, argument: Argument) -> Outcome:
    """Keep the metrics that there are."""
    if argument.value in ("top1", "top5", "loss"):
        return Outcome(["--best-metric", *argument.values])
    return Outcome(None, "the best validation is chosen by top1, top5 or loss")


def processes(draft: Draft, argument: Argument) -> Outcome:
    """Start processes; a word for their number is the default."""
    if not argument.value.isdigit() and not expands(argument.value):
        return Outcome(None, "as many processes as GPUs are started")
    return Outcome(["--nproc", *argument.values])


def rendezvous(draft: Draft, argument: Argument) -> Outcome:
    """Join the address and the port."""
    port = draft.old("master_port") or draft.old("main_process_port", "29500")
    return Outcome(["--rdzv-endpoint", f"{argument.value}:{port}"])
