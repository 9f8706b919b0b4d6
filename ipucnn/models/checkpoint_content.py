"""Reads and checks the content of checkpoints, loads weights, and chooses a whole one."""

from __future__ import annotations

import logging
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict

from ipucnn.core.errors import DataError, IpucnnError
from ipucnn.core.files import kind_of
from ipucnn.models.card import is_plain
from ipucnn.models.checkpoint_files import CheckpointError, best_of, entries
from ipucnn.models.store_paths import present, shown_path

if TYPE_CHECKING:
    from torch import nn

    from ipucnn.core.execution.training_session import StateDict

log = logging.getLogger("ipucnn.checkpoints")

FORMAT = "ipucnn.checkpoint/1"

CLASS_COUNTS = "class_counts"
"""Key of the number of training images by output, in the description of the images (`data`); only
if the loss depends on it."""


def read_content(path: Path) -> Dict[str, Any]:
    """Return the content of a checkpoint of any format, after verifying checksums.

    The content of a checkpoint of ipucnn has all entries, with the right types.

    Raises:
        CheckpointError: it is missing, damaged or no checkpoint.
    """
    from ipucnn.models.weights_file import read_checkpoint, remedy_for_missing

    try:
        present(path)
    except DataError as error:
        raise CheckpointError(error.message, error.hint) from error
    if kind_of(path):
        raise CheckpointError(f"'{path}' is {kind_of(path)}", "name a file")
    if not os.path.exists(str(path)):  # Path.exists raises for a name that is too long
        raise CheckpointError(f"there is no checkpoint '{shown_path(path)}'",
                              remedy_for_missing(path, "check its name"))
    try:
        with zipfile.ZipFile(str(path)) as archive:
            bad = archive.testzip()  # torch.load checks no checksums
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError,
            ValueError) as error:  # damage looks like encryption, other compression, other text ...
        if isinstance(error, zipfile.BadZipFile) and not _is_zip(path):
            bad = ""  # written by torch before 1.6
        else:
            raise damaged(path, str(error)) from error
    if bad:
        raise damaged(path, f"the checksum of {bad!r} is wrong")
    try:
        content = read_checkpoint(path)
    except IpucnnError as error:
        raise CheckpointError(error.message, error.hint) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' is not a checkpoint", "name a file that a training wrote")
    if content.get("format") == FORMAT:
        _check(content, path)
    return content


def chosen(folder: Path) -> Path:
    """Return the checkpoint in a folder that validated best, or else the newest intact one.

    Raises:
        CheckpointError: there is none, or there are those of several trainings.
    """
    found = entries(folder)
    best = best_of(folder).get("file")
    for entry in [*(entry for entry in found if entry.path.name == best), *reversed(found)]:
        try:
            read_content(entry.path)
        except CheckpointError as error:
            log.warning("%s is skipped: %s", shown_path(entry.path), error.message)
        else:
            return entry.path
    raise CheckpointError(f"there are no {'whole ' if found else ''}checkpoints in "
                          f"'{shown_path(folder)}'",
                          "name a weights file, or a folder that '--checkpoint-path' of a "
                          "training wrote")


def damaged(path: Path, reason: str) -> CheckpointError:
    """Return the error for a file that was not written by a training."""
    return CheckpointError(f"checkpoint '{shown_path(path)}' is damaged or incomplete: {reason}",
                           "use another one, or the folder, for its newest complete checkpoint")


def load_state(module: nn.Module, weights: StateDict, place: str) -> None:
    """Load the weights of a checkpoint into the network that was built for it.

    Raises:
        CheckpointError: they are of another network.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the weights in '{place}' do not fit the network of its options: {reason}",
            "use the plugins of its training, in the same versions") from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"


def _check(content: Dict[str, Any], path: Path) -> None:
    """Raise `CheckpointError` when an entry of a checkpoint is missing or of another type."""
    for name, right in _ENTRIES.items():
        if name not in content:
            if name == "data":  # added after the first version of the format
                continue
            raise damaged(path, f"it has no {name!r}")
        if not right(content[name]):
            raise damaged(path, f"its {name!r} is not what a training wrote")


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def is_state(value: Any) -> bool:
    """Return whether a value is a state dictionary: tensors by name."""
    import torch

    return _is_named(value) and bool(value) and all(
        isinstance(item, torch.Tensor) for item in value.values())


def _is_position(value: Any) -> bool:
    return _is_named(value) and set(value) == {"epoch", "call", "consumed", "update"} and all(
        type(item) is int and item >= 0 for item in value.values())


def _are_options(value: Any) -> bool:
    return _is_named(value) and is_plain(value, 2)


def _is_description(value: Any) -> bool:
    if not _is_named(value) or not _are_counts(value.get(CLASS_COUNTS, [])):
        return False
    # checkpoints of the first version have none
    return not value or (_are_counts([value.get("images")]) and _is_text(value.get("fingerprint")))


def _are_counts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        type(count) is int and count >= 0 for count in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_ENTRIES: Dict[str, Callable[[Any], bool]] = {
    "model": is_state, "model_name": _is_text, "dataset": _is_text, "position": _is_position,
    "ema": lambda value: value is None or is_state(value),
    "session": lambda value: isinstance(value, dict), "progress": _is_named,
    "options": _are_options, "versions": _is_named, "data": _is_description,
    "class_names": lambda value: isinstance(value, (list, tuple)) and all(map(_is_text, value))}
