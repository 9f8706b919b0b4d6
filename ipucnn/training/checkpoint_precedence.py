"""Settles `--no-checkpoints` against a profile, and a profile's against the command line."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

ABOUT_CHECKPOINTS: Mapping[str, Any] = {
    "checkpoint_path": None, "weight_avg_strategy": "none", "checkpoint_save_steps": None,
    "checkpoint_save_minutes": None, "keep_best": False, "keep_last": 0}
"""Options that `--no-checkpoints` contradicts, and their values without effect."""


def without_overridden(sources: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return the sources without options of checkpoints that a later source contradicts.

    `--checkpoint-path` on the command line overrides a profile's `no_checkpoints`, and
    `--no-checkpoints` a profile's folder.

    Args:
        sources: option values by name; later sources override earlier ones.
    """
    kept: List[Dict[str, Any]] = []
    for source in sources:
        overridden = set()
        if source.get("no_checkpoints"):
            overridden = set(ABOUT_CHECKPOINTS)
        elif any(source.get(name, off) != off for name, off in ABOUT_CHECKPOINTS.items()):
            overridden = {"no_checkpoints"}
        kept = [{name: value for name, value in earlier.items() if name not in overridden}
                for earlier in kept]
        kept.append(source)
    return kept
