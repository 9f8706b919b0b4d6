"""Precedence of options that contradict each other in profiles and on the command line."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Sequence

from ipucnn.core.errors import UsageError

ABOUT_CHECKPOINTS: Mapping[str, Any] = {
    "checkpoint_path": None, "weight_avg_strategy": "none", "checkpoint_save_steps": None,
    "checkpoint_save_minutes": None, "keep_best": False, "keep_last": 0}
"""Options that `--no-checkpoints` contradicts, and their values without effect."""


def with_one_folder(source: Dict[str, Any]) -> Dict[str, Any]:
    """Return a source with `checkpoint_input_dir` replaced by `checkpoint_path`.

    The last release of the old trainer read the checkpoints that it validated and averaged after a
    training from one folder, and wrote them to another; here they are the same.

    Raises:
        UsageError: it names another folder.
    """
    place = source.get("checkpoint_input_dir")
    if not place:
        return source
    output = source.get("checkpoint_path") or place
    if os.path.abspath(output) != os.path.abspath(place):
        raise UsageError(f"'--checkpoint-input-dir {place}' is another folder than "
                         f"'--checkpoint-path {output}', and a training validates and averages "
                         "the checkpoints that it writes",
                         "leave it out; 'ipucnn validate' and 'ipucnn average' take other folders, "
                         "and '--weights' starts from their checkpoints")
    return {**{name: value for name, value in source.items() if name != "checkpoint_input_dir"},
            "checkpoint_path": output}


def without_overridden(sources: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return the sources without options that a later source contradicts.

    `--checkpoint-path` on the command line overrides a profile's `no_checkpoints`, and
    `--no-checkpoints` a profile's folder; likewise `--validation-mode` and `--no-validation`.

    Args:
        sources: option values by name; later sources override earlier ones. The first one may be
            those of a saved training, which contain both options of each pair.

    Raises:
        UsageError: a later source contains `--no-validation` and a time of validation.
    """
    kept: List[Dict[str, Any]] = []
    for number, source in enumerate(sources):
        mode = source.get("validation_mode")
        if number and source.get("no_validation") and mode not in (None, "none"):
            raise UsageError(f"'--no-validation' contradicts '--validation-mode {mode}'",
                             "leave one of them out")
        overridden = set()
        if source.get("no_checkpoints"):
            overridden = set(ABOUT_CHECKPOINTS)
        elif any(source.get(name, off) != off for name, off in ABOUT_CHECKPOINTS.items()):
            overridden = {"no_checkpoints"}
        if source.get("no_validation"):
            overridden.add("validation_mode")
        elif mode is not None:
            overridden.add("no_validation")
        kept = [{name: value for name, value in earlier.items() if name not in overridden}
                for earlier in kept]
        kept.append(source)
    return kept
