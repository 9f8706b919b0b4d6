"""Loads weights into a model: published ones, a checkpoint or a safetensors file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

import torch
from torch import nn

from ipucnn.core.errors import UsageError, WeightsError
from ipucnn.core.names import listed
from ipucnn.core.options.parts import names_published
from ipucnn.core.registry.records import ModelSpec, PublishedWeights
from ipucnn.core.registry.targets import import_target
from ipucnn.data.remote.download import sha256
from ipucnn.models.built import WeightsReport
from ipucnn.models.checkpoint_files import best_of
from ipucnn.models.layer_rates import head_of
from ipucnn.models.store_paths import shown_path
from ipucnn.models.weights_file import StateDict, read_weights
from ipucnn.models.weights_source import named_weights, published_file, weights_path

_WRAPPERS = ("module.", "_orig_mod.", "model.")
_COUNT_OF_AVERAGES = "n_averaged"  # of torch's AveragedModel, which adds the prefix "module."
_COUNTER = "num_batches_tracked"  # missing in older files, and not needed
_PARTIAL = "'--weights-partial' loads what fits and leaves the rest random"
_ANOTHER_MODEL = 0.1
"""Share of mismatched entries from which a file counts as one of another model."""


def load_weights(model: nn.Module, spec: ModelSpec, weights: str, partial: bool = False,
                 num_classes: Optional[int] = None, ema: Optional[bool] = None) -> WeightsReport:
    """Load weights into a model; on failure, the model is unchanged.

    Args:
        model: built from `spec`, perhaps with another head or other norm layers.
        spec: the model's record.
        weights: `random`, `pretrained` (the record's first), `pretrained:TAG` or a file: a
            safetensors file, or a PyTorch state dictionary or checkpoint without code in it. A
            file may be a path, a URL of a file or a store, or ``package:module/file``.
        partial: accept entries that are missing, unexpected or of another shape.
        num_classes: number of outputs that the user requested; if published weights have another
            number, the head keeps random weights. None if the head must match.
        ema: whether to load the moving average of a checkpoint's weights. If None, the weights
            with the best validation, as recorded beside the checkpoint, or else not the average.

    Raises:
        WeightsError: they cannot be downloaded, read, or loaded into this model.
        UsageError: there are no such published weights.
    """
    if weights == "random":
        return WeightsReport(source="random")
    if not names_published(weights):
        path, state = _read(model, weights, ema)
        fit = _Fit(model, state)
        if not partial:
            fit.require_all(f"weights {weights!r}", spec)
        return fit.load(source=shown_path(path), path=path)
    if ema is not None:
        raise UsageError("'--ema' is for checkpoints, and published weights have no moving average",
                         "leave it out")
    published = named_weights(spec, weights)
    address, path, state = _read_published(model, spec, published)
    fit = _Fit(model, state)
    if not partial:
        fit.require_body(f"published weights '{published.tag}'", spec, num_classes)
    return fit.load(source=address, path=path, tag=published.tag, licence=published.licence)


def load_by_output(model: nn.Module, spec: ModelSpec, weights: str,
                   outputs: Sequence[Optional[int]], ema: Optional[bool] = None) -> WeightsReport:
    """Load the weights of a file into a model with other outputs; on failure, it is unchanged.

    Args:
        model: built from `spec`.
        spec: the model's record.
        weights: a file, see `load_weights`.
        outputs: the file's output for each output of the model; None keeps the model's own weights.
        ema: see `load_weights`.

    Raises:
        WeightsError: the weights cannot be read, or do not match in another layer.
    """
    path, state = _read(model, weights, ema)
    own, head = model.state_dict(), head_of(model) + "."
    for name in own:
        if name.startswith(head) and name in state and own[name].shape[1:] == state[name].shape[1:]:
            state[name] = torch.stack([own[name][row] if output is None else
                                       state[name][output].to(own[name].dtype)
                                       for row, output in enumerate(outputs)])
    fit = _Fit(model, state)
    fit.require_all(f"weights {weights!r}", spec)
    return replace(fit.load(source=shown_path(path), path=path), new_head=True)


def _read(model: nn.Module, weights: str, ema: Optional[bool]) -> Tuple[Path, StateDict]:
    """Return the path of a weights file, and its entries under the model's names."""
    path = weights_path(weights)
    if ema is None:
        best = best_of(path.parent)
        ema = best.get("file") == path.name and best.get("weights") == "ema"
    return path, dict(unwrapped(read_weights(path, ema), model))


def _read_published(model: nn.Module, spec: ModelSpec,
                    published: PublishedWeights) -> Tuple[str, Path, StateDict]:
    """Return the source of published weights, their file and their entries."""
    if published.reader:
        file, state = import_target(published.reader)(published, model)
        return published.url, Path(file), state
    address, path = published_file(published, spec)
    return address, path, unwrapped(read_weights(path), model)


def unwrapped(state: StateDict, model: nn.Module) -> StateDict:
    """Return `state` without name parts added by wrappers, if the model lacks them.

    Prefixes come from parallel, compiled and normalising wrappers; within names, the old training
    application's recomputation added `layer` and its single-precision norms `1`.
    """
    state = _without_prefix(state, model)
    wanted = set(model.state_dict())
    plain = {}
    for name, value in state.items():
        known = name if name in wanted else next(
            (short for short in _shortened(name) if short in wanted and short not in state), name)
        plain[known] = value
    return plain


def _shortened(name: str) -> Iterator[str]:
    """Yield `name` without the levels that wrappers within a model add."""
    parts = name.split(".")
    for extra in (("layer",), ("1",), ("layer", "1")):
        for count in range(1, sum(part in extra for part in parts) + 1):
            kept, left = [], count
            for part in reversed(parts):  # wrappers are next to the leaves
                if part in extra and left:
                    left -= 1
                else:
                    kept.append(part)
            yield ".".join(reversed(kept))


def _without_prefix(state: StateDict, model: nn.Module) -> StateDict:
    """Return `state` without a wrapper's prefix if the model has the entries without it."""
    wanted = model.state_dict()
    for name in state:
        prefix = _wrapper(name, wanted)
        if prefix:
            break
        if name in wanted:
            return state
    else:
        prefix = _attribute(state, wanted)
    return {entry[len(prefix):] if entry.startswith(prefix) else entry: value
            for entry, value in state.items() if not prefix or entry != _COUNT_OF_AVERAGES}


def _attribute(state: StateDict, wanted: StateDict) -> str:
    """Return the prefix of the only part of a network that has all entries of the model, if any.

    That is its attribute in a module of a training library (`net.`, `backbone.`).
    """
    first = next(iter(wanted), "")
    found = [name[:-len(first)] for name in state if name.endswith(f".{first}")]
    whole = [prefix for prefix in found
             if all(prefix + name in state or name.endswith(_COUNTER) for name in wanted)]
    return whole[0] if len(whole) == 1 else ""


def _wrapper(name: str, wanted: StateDict) -> str:
    """Return the prefixes without which `name` is an entry of the model, or an empty string."""
    rest = name
    while rest not in wanted:
        prefix = next((p for p in _WRAPPERS if rest.startswith(p)), None)
        if prefix is None:
            return ""
        rest = rest[len(prefix):]
    return name[:len(name) - len(rest)]


class _Fit:
    """The match between the entries of a file and a model."""

    def __init__(self, model: nn.Module, state: StateDict) -> None:
        self.model = model
        self.state = state
        self.own: StateDict = model.state_dict()
        self.misshapen = [name for name, value in self.own.items()
                          if name in state and state[name].shape != value.shape]
        self.missing = [name for name in self.own
                        if name not in state and not name.endswith(_COUNTER)]
        self.unexpected = [name for name in state if name not in self.own]

    def require_all(self, what: str, spec: ModelSpec) -> None:
        """Raise `WeightsError` unless every entry matches."""
        self._require(what, spec, self.misshapen, self.unexpected,
                      "'--num-classes {}' makes a model with as many outputs; '--weights-partial' "
                      "leaves the last layer random, to train it")

    def require_body(self, what: str, spec: ModelSpec, num_classes: Optional[int]) -> None:
        """Raise `WeightsError` unless only a new head and replaced norms do not match."""
        head = [] if num_classes is None else self._head(num_classes)
        self._require(what, spec, [name for name in self.misshapen if name not in head],
                      [name for name in self.unexpected if not self._of_replaced_norm(name)],
                      "'--num-classes {}' keeps their outputs; another number, given, makes a new "
                      "head with random weights")

    def _require(self, what: str, spec: ModelSpec, misshapen: Sequence[str],
                 unexpected: Sequence[str], head_hint: str = _PARTIAL) -> None:
        wrong = len(misshapen) + len(unexpected) + len(self.missing)
        if not wrong:
            return
        details = _details([(self.missing, "missing"), (unexpected, "unexpected"),
                            (misshapen, "of another shape")])
        if len(misshapen) == wrong and list(misshapen) == self._head():
            classes = [state[misshapen[-1]].shape[0] for state in (self.state, self.own)]
            if not classes[0]:
                raise WeightsError(f"{what} have no head ({details})", "'--num-classes "
                                   f"{classes[1]}' makes one with random weights, to train it")
            raise WeightsError(f"{what} are for {classes[0]} classes, the model has {classes[1]} "
                               f"({details})", head_hint.format(classes[0]))
        if wrong > _ANOTHER_MODEL * len({*self.own, *self.state}):
            raise WeightsError(f"{what} are of another model than {spec.name!r}: {details}",
                               "use the model, model options and norm layer that they were made "
                               "for, or '--weights random'")
        raise WeightsError(f"{what} do not fit model {spec.name!r}: {details}", _PARTIAL)

    def _head(self, outputs: Optional[int] = None) -> List[str]:
        """Return the entries of layers that differ only in the number of their outputs.

        That is the same number for all of them, and `outputs` if it is given. A layer within the
        network is none: its outputs are another layer's inputs, which differ as well and are
        of another shape than the file's in more than their outputs.
        """
        found = [name for name in self.misshapen if self._differs_in_outputs(name)
                 and outputs in (None, self.own[name].shape[0])]
        if not found:
            return []
        file, model = (state[found[-1]].shape[0] for state in (self.state, self.own))
        return [name for name in found if (self.state[name].shape[0], self.own[name].shape[0])
                == (file, model)]

    def _differs_in_outputs(self, name: str) -> bool:
        theirs, ours = self.state[name].shape, self.own[name].shape
        return len(theirs) == len(ours) > 0 and theirs[1:] == ours[1:]

    def _of_replaced_norm(self, name: str) -> bool:
        """Return whether the entry belongs to a batch norm that was replaced in the model."""
        layer = name.rpartition(".")[0]
        return (f"{layer}.running_mean" in self.state and f"{layer}.running_mean" not in self.own
                and layer in dict(self.model.named_modules()))

    def load(self, source: str, path: Path, tag: str = "", licence: str = "") -> WeightsReport:
        """Load the matching entries.

        Raises:
            WeightsError: no entry matches, or one has no dense values.
        """
        fitting = {name: value for name, value in self.state.items()
                   if name in self.own and name not in self.misshapen}
        if not fitting:
            raise WeightsError(f"weights '{path}' have no entry that fits the model",
                               "choose the model that they were made for with '--model'")
        special = [name for name, value in fitting.items() if value.is_meta or value.is_quantized
                   or value.layout is not torch.strided
                   or (self.own[name].is_floating_point() and not value.is_floating_point())]
        if special:
            raise WeightsError(f"weights '{path}' contain tensors that are sparse, quantised, of "
                               "whole or complex numbers, or without values "
                               f"({listed(special, 3)})",
                               "save them as dense tensors of floating-point numbers")
        self.model.load_state_dict(fitting, strict=False)
        return WeightsReport(
            source=source, tag=tag, path=str(path), sha256=sha256(path), licence=licence,
            loaded=len(fitting), kept_random=(*self.missing, *self.misshapen),
            dropped=tuple(self.unexpected), new_head=bool(self._head()))


def _details(groups: Sequence[Tuple[Sequence[str], str]]) -> str:
    return ", ".join(f"{len(names)} {what} ({listed(names, 3)})"
                     for names, what in groups if names)
