"""Averages the weights of several checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.execution.training_session import StateDict
from ipucnn.core.files import make_folder, require_writable
from ipucnn.core.log_folder import WRITTEN
from ipucnn.core.showing import Blocks, Facts, Shown
from ipucnn.models.checkpoint_files import CheckpointError, entries
from ipucnn.models.checkpoint_names import BEST, NAME
from ipucnn.models.store_paths import shown_path
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position, not_finite, save
from ipucnn.training.checkpoints.stored import StoredModel, load_stored


@dataclass(frozen=True, repr=False)
class AverageResult(Shown):
    """The averaged checkpoint, its sources, and notes about the images.

    `place` and `sources` name them, by their URLs where they are on a store.
    """

    path: Path
    files: Tuple[Path, ...]
    epoch: int
    strategy: str
    notes: Tuple[str, ...] = ()
    place: str = ""
    sources: Tuple[str, ...] = ()

    def as_dict(self) -> Dict[str, Any]:
        """Return the result as plain types, for JSON."""
        return {"format": "ipucnn.average/1", **dict(self.facts())}

    def facts(self) -> Facts:
        """Return the result as names and values, as text."""
        return [("path", self.place), ("strategy", self.strategy), ("epoch", self.epoch),
                ("files", list(self.sources))]

    def blocks(self) -> Blocks:
        """Return the facts; see `Shown`."""
        return [self.facts()]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per averaged checkpoint."""
        return [{"file": source, "averaged": self.place} for source in self.sources]


def averaged_paths(folder: Path, last: int) -> List[Path]:
    """Return the end-of-epoch checkpoints to average, in ascending order.

    Args:
        folder: of one training.
        last: number of latest checkpoints; -1 or 0 takes all.

    Raises:
        CheckpointError: there are none.
    """
    paths = [entry.path for entry in entries(folder) if not entry.step]
    if not paths:
        raise CheckpointError(f"there are no checkpoints to average in '{shown_path(folder)}'",
                              "name the folder that '--checkpoint-path' of a training wrote")
    return paths[-last:] if 0 < last < len(paths) else paths


def average(folder: Path, strategy: str, decay: float, last: int, output: Optional[Path] = None,
            changed: Optional[Callable[[StateDict], StateDict]] = None) -> AverageResult:
    """Average the end-of-epoch checkpoints; only one at a time is in memory.

    Earlier averages and checkpoints within an epoch are excluded. Floating tensors, running
    statistics included, are averaged in float64 and keep their type; other tensors are
    taken from the last checkpoint.

    Args:
        folder: of one training.
        strategy: `mean`, or `exponential`: ``a <- decay a + (1 - decay) w`` in ascending order.
        decay: of the exponential average.
        last: number of latest checkpoints; -1 or 0 takes all.
        output: the file to write; `<model>_<dataset>_<epoch>_averaged.pt` in the folder if None.
        changed: returns the weights to write from the average; the average itself when None.

    Raises:
        CheckpointError: there are no checkpoints, one is damaged or not finite, or they differ.
        IpucnnError: the file cannot be written, or is one of the training.
    """
    paths = averaged_paths(folder, last)
    target = output or folder / f"{paths[-1].stem}_averaged.pt"
    make_folder(str(target.parent), "--checkpoint-output-path")
    require_writable(str(target))
    _require_own_name(target, folder, paths)
    sums: Dict[str, torch.Tensor] = {}
    stored: Optional[StoredModel] = None
    for number, path in enumerate(paths):
        stored = load_stored(path)
        _require_finite(stored.weights, path)
        if sums and {n: v.shape for n, v in stored.weights.items()} != {
                n: v.shape for n, v in sums.items()}:
            raise CheckpointError(f"'{shown_path(path)}' is of another model than "
                                  f"'{shown_path(paths[0])}'",
                                  "average the checkpoints of one training; '--weight-avg-n "
                                  f"{len(paths) - number}' leaves earlier ones out, for example "
                                  "those with fewer classes")
        share = 1 - decay if strategy == "exponential" else 1 / (number + 1)
        for name, value in stored.weights.items():
            if not value.is_floating_point() or not number:
                sums[name] = value.double() if value.is_floating_point() else value
            else:
                sums[name] += share * (value.double() - sums[name])
    assert stored is not None
    weights = {name: value.to(stored.weights[name].dtype) for name, value in sums.items()}
    path = save(Checkpoint(
        stored.name, stored.dataset, Position(stored.epoch, update=stored.update),
        weights if changed is None else changed(weights),
        progress={"averaged": [path.name for path in paths], "strategy": strategy},
        options=stored.options, class_names=stored.class_names, card=stored.card,
        data=dict(stored.data)),
        target.parent, target.name)
    return AverageResult(path, tuple(paths), stored.epoch, strategy, place=shown_path(path),
                         sources=tuple(map(shown_path, paths)))


def _require_finite(weights: StateDict, path: Path) -> None:
    """Raise `CheckpointError` for weights of a checkpoint that would make the average NaN."""
    name = not_finite(weights)
    if name is not None:
        raise CheckpointError(
            f"checkpoint '{shown_path(path)}' cannot be averaged: {name!r} is not finite",
            "its training has diverged: move it, and others like it, to another folder")


def _require_own_name(target: Path, folder: Path, averaged: List[Path]) -> None:
    """Raise `UsageError` for a file that is one of the training, or named like one."""
    match = NAME.fullmatch(target.name)
    of_training = bool(match and not match["averaged"]) or target.name in (BEST, *WRITTEN)
    # copies of a folder on a store that is read and written are in two folders
    beside = target.parent.resolve() == folder.resolve() \
        or shown_path(target.parent) == shown_path(folder)
    if (beside and of_training) or target.resolve() in [path.resolve() for path in averaged]:
        raise UsageError(f"'{shown_path(target)}' is the name of a file of the training",
                         "name another file with '--checkpoint-output-path'")


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Re-estimate the running statistics of batch norm as the mean over batches.

    Averaged weights have other activations than any of the source models, so averaged statistics
    are only approximate (Izmailov et al., "Averaging Weights Leads to Wider Optima", 2018).

    Args:
        model: changed in place.
        batches: normalised float images `(n, 3, size, size)`; those of one image are not used.

    Raises:
        DataError: there is no batch of two images or more.
    """
    used = False
    norms: List[_BatchNorm] = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    try:
        for images in batches:
            if len(images) > 1:
                model(images)
                used = True
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
            norm.eval()
    if not used:
        raise DataError("there are no two images to estimate the statistics of batch norm from",
                        "add images, or leave '--reestimate-batch-norm' out")
