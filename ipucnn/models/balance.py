"""Splits a model into pipeline stages of balanced cost."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Dict, List, Optional, Tuple, TypeVar

from torch import nn

from ipucnn.core.errors import UsageError
from ipucnn.core.options.composition import CommandOptions
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.models.build import outline
from ipucnn.models.tracing import costs, usable_splits

OptionsT = TypeVar("OptionsT", bound=CommandOptions)

AUTOMATIC = "auto:"
"""What the value of `--pipeline-splits` begins with that states only the number of stages."""

MOST_STAGES = 1024


def model_balance(name: str, stages: int, *, input_size: Optional[int] = None,
                  options: Any = None, classes: Optional[int] = None,
                  registry: Optional[Registry] = None) -> List[str]:
    """Return the splits that divide the model called `name` into stages of balanced cost.

    Args:
        name: a model's name.
        stages: pipeline stages.
        input_size: height and width of its images; those of its record when not given.
        options: an instance of the model's options class; its defaults when None.
        classes: number of its outputs; that of its record when not given.
        registry: where names are looked up; this process's when not given.

    Raises:
        UsageError: an unknown name, or a model with too few blocks for the stages.
    """
    registry = registry or current_registry()
    spec = registry.get_typed(ModelSpec, name)
    model = outline(spec, registry, options, classes)
    try:
        return balanced_splits(model, stages, input_size or spec.input_size)
    except UsageError as error:
        raise UsageError(f"model {spec.name!r}: {error.message}", error.hint) from error


def with_balanced_splits(options: OptionsT, registry: Registry) -> OptionsT:
    """Return options in which ``--pipeline-splits auto:N`` is replaced by the splits themselves.

    Args:
        options: of a training or a run.
        registry: where the model is looked up.

    Raises:
        UsageError: N is no number of stages, or the model cannot be cut into as many.
    """
    given = options.get("pipeline_splits")
    if len(given) != 1 or not given[0].startswith(AUTOMATIC):
        return options
    text = given[0][len(AUTOMATIC):]
    if not text.isdecimal() or not 1 <= int(text) <= MOST_STAGES:
        raise UsageError(f"option '--pipeline-splits': {given[0]!r} states no number of stages",
                         f"write 'auto:4' for four stages; at most {MOST_STAGES}")
    spec = registry.get_typed(ModelSpec, options.get("model"))
    splits = model_balance(spec.name, int(text), input_size=options.get("input_size"),
                           options=options.plugins.of("model", spec.name),
                           classes=options.get("num_classes"), registry=registry)
    return options.with_values(pipeline_splits=tuple(splits))


def balanced_splits(model: nn.Module, stages: int, input_size: int) -> List[str]:
    """Return the modules that begin stages 1, 2, ..., minimising the largest stage.

    The cost of a stage is the number of multiply-adds of its layers. Models are split between
    blocks: between the modules of their outer sequences, not within a module that may have several
    branches.

    Raises:
        UsageError: the model has fewer blocks than stages.
    """
    begins = _cuts(model, input_size)
    if len(begins) < stages:
        raise UsageError(f"it can be cut into {len(begins)} stages at most, not into {stages}",
                         "use fewer IPUs for a replica, or '--pipeline-splits'")
    places = _partition([cost for _, cost in begins], stages)
    return [begins[place][0] for place in places]


def _cuts(model: nn.Module, input_size: int) -> List[Tuple[str, int]]:
    """Return the pieces that stages consist of: the first module of each, and its cost."""
    usable = set(usable_splits(model, input_size)) & set(_outer(model))
    pieces: List[Tuple[str, int]] = [("", 0)]
    for path, cost in costs(model, input_size):
        begun, before = pieces[-1]
        if path in usable and before:
            pieces.append((path, 0))
        elif path in usable and len(pieces) > 1 and not path.startswith(begun + "/"):
            pieces[-1] = (path, 0)  # modules between blocks cost nothing; blocks begin with a layer
        pieces[-1] = (pieces[-1][0], pieces[-1][1] + cost)
    return [piece for piece in pieces if piece[1]]


def _outer(model: nn.Module, prefix: str = "") -> List[str]:
    """Return the paths of the modules that are not within a block."""
    paths = []
    for name, child in model.named_children():
        paths.append(prefix + name)
        if type(child) in (nn.Sequential, nn.ModuleList):
            paths += _outer(child, f"{prefix}{name}/")
    return paths


def _partition(sizes: List[int], parts: int) -> List[int]:
    """Return where parts 1, 2, ... of a sequence begin, minimising the largest part."""
    sums = [0, *accumulate(sizes)]
    count = len(sizes)
    # for the first `end` pieces, the cost of the largest part and where the parts begin
    best: Dict[int, Tuple[int, List[int]]] = {i: (sums[i], []) for i in range(1, count + 1)}
    for _ in range(parts - 1):
        best = {end: min((max(best[begin][0], sums[end] - sums[begin]), [*best[begin][1], begin])
                         for begin in best if begin < end)
                for end in range(min(best) + 1, count + 1)}
    return best[count][1]
