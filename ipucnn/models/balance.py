"""Splits a model into pipeline stages of balanced cost."""

from __future__ import annotations

import functools
from dataclasses import replace
from itertools import accumulate
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

import torch
from torch import nn

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.composition import CommandOptions
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.models.build import DEFAULT_NORM_LAYER, outline
from ipucnn.models.footprint import Trace, trace
from ipucnn.models.stage_memory import (
    IPU,
    Device,
    Storing,
    device_of,
    recompute_checkpoints,
    storing,
)
from ipucnn.models.surgery import replace_norms

OptionsT = TypeVar("OptionsT", bound=CommandOptions)

AUTOMATIC = "auto:"
"""Prefix of a value of `--pipeline-splits` that states only the number of stages."""

MOST_STAGES = 1024

Fits = Callable[[int, int, int], bool]


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
    model = outline(spec, registry, options, classes, input_size)
    try:
        return balanced_splits(model, stages, input_size or spec.input_size)
    except UsageError as error:
        raise UsageError(f"model {spec.name!r}: {error.message}", error.hint) from error


def with_balanced_splits(options: OptionsT, registry: Registry, device: Optional[Device] = None,
                         input_size: Optional[int] = None) -> OptionsT:
    """Return options in which ``--pipeline-splits auto:N`` is replaced by the splits themselves.

    If possible, every stage fits into the estimated memory of the device.

    Args:
        options: of a training or a run.
        registry: where the model is looked up.
        device: the device of a stage; that of the named backend when None, if it is an IPU.
        input_size: height and width of the images; those of the options when None.

    Raises:
        UsageError: N is not a valid number of stages for the model.
    """
    given = options.get("pipeline_splits")
    if len(given) != 1 or not given[0].startswith(AUTOMATIC):
        return options
    text = given[0][len(AUTOMATIC):]
    if not text.isdecimal() or not 1 <= int(text) <= MOST_STAGES:
        raise UsageError(f"option '--pipeline-splits': {given[0]!r} states no number of stages",
                         f"write 'auto:4' for four stages; at most {MOST_STAGES}")
    spec = registry.get_typed(ModelSpec, options.get("model"))
    size = input_size or options.get("input_size") or spec.input_size
    model, traced = network_of(options.with_values(input_size=size), registry)
    device = device or device_of(options, registry)
    rule = None
    if device is not None:
        plan = replace(options.with_values(pipeline_splits=()).plan(False),  # type: ignore[attr-defined]
                       preprocessing=Preprocessing(input_size=size))
        rule = rule_of(options, plan, registry, device, (model, traced))
    try:
        splits = cheapest_splits(model, traced, int(text), rule)
    except UsageError as error:
        raise UsageError(f"model {spec.name!r}: {error.message}", error.hint) from error
    return options.with_values(pipeline_splits=tuple(splits))


def network_of(options: CommandOptions, registry: Registry) -> Tuple[nn.Module, Trace]:
    """Return the network that options name, without weights, and its trace.

    The latest result is cached, because a plan needs it several times.

    Raises:
        UsageError: an unknown name, or a model that cannot be traced.
    """
    spec = registry.get_typed(ModelSpec, options.get("model"))
    layer = registry.get_typed(NormLayerSpec, options.get("normlayer"))
    own, norm = (options.plugins.of(*one) for one in (("model", spec.name),
                                                      ("norm-layer", layer.name)))
    size = options.get("input_size") or spec.input_size
    classes = options.get("num_classes")
    choice = spec, layer, own, norm, size, classes
    if _latest and _latest[0][0] == choice:
        return _latest[0][1]
    model = outline(spec, registry, own, classes, size)
    if layer.name != DEFAULT_NORM_LAYER:
        with torch.device("meta"):
            replace_norms(model, functools.partial(registry.make, layer, options=norm))
    _latest[:] = [(choice, (model, trace(model, size)))]
    return _latest[0][1]


_latest: List[Tuple[Any, Tuple[nn.Module, Trace]]] = []


def rule_of(options: CommandOptions, plan: ExecutionPlan, registry: Registry, device: Device,
            network: Tuple[nn.Module, Trace]) -> Storing:
    """Return how a device stores the stages of a training or a run.

    Args:
        options: of the command.
        plan: of it, with the size of its images; where the options leave the precision to the
            device, that of an IPU is 16.16, and that of a GPU in training 16.32.
        registry: where names are looked up.
        device: the device of a stage.
        network: what `network_of` returns.
    """
    if options.get("precision") is None and (device.kind == IPU or plan.training):
        plan = replace(plan, precision="16.16" if device.kind == IPU else "16.32")
    model, traced = network
    begins = [traced.begins[path] for path in block_begins(model, traced) if path]
    blocks = tuple((call, traced.calls[call].passed_on) for call in begins)
    return storing(options, plan, registry, device,
                   recompute_checkpoints(model, traced, plan), blocks)


def balanced_splits(model: nn.Module, stages: int, input_size: int) -> List[str]:
    """Return the modules that begin stages 1, 2, ..., minimising the largest stage.

    The cost of a stage is the number of multiply-adds of its layers. Models are split between
    blocks: between the modules of their outer sequences, not within a module that may have several
    branches.

    Raises:
        UsageError: the model has fewer blocks than stages.
    """
    return cheapest_splits(model, trace(model, input_size), stages)


def cheapest_splits(model: nn.Module, traced: Trace, stages: int,
                    rule: Optional[Storing] = None) -> List[str]:
    """Return the splits whose largest stage has the fewest multiply-adds; see `balanced_splits`.

    Args:
        model: the model.
        traced: its trace.
        stages: how many.
        rule: how a stage is stored; if possible, each stage fits into the device.

    Raises:
        UsageError: the model has fewer blocks than stages.
    """
    begins = block_begins(model, traced)
    if len(begins) < stages:
        raise UsageError(f"it can be cut into {len(begins)} stages at most, not into {stages}",
                         "use fewer IPUs for a replica, or '--pipeline-splits'")
    places = [traced.begins[path] if path else 0 for path in begins]
    ends = [*places, len(traced.calls)]
    sizes = [traced.total("multiply_adds", *part) for part in zip(ends, ends[1:])]

    def fits(first: int, last: int, stage: int) -> bool:
        assert rule is not None
        memory = rule.memory(traced, (ends[first], ends[last]), stage, stages)
        return memory.total <= rule.device.memory

    found = partition(sizes, stages, fits if rule else None) or partition(sizes, stages)
    assert found is not None  # there are at least as many blocks as stages
    return [begins[place] for place in found]


def block_begins(model: nn.Module, traced: Trace) -> List[str]:
    """Return the first module of each of the pieces that stages consist of."""
    usable = set(traced.usable) & set(_outer(model))
    pieces: List[Tuple[str, int]] = [("", 0)]
    for call in traced.calls:
        begun, before = pieces[-1]
        if call.path in usable and before:
            pieces.append((call.path, 0))
        elif call.path in usable and len(pieces) > 1 and not call.path.startswith(begun + "/"):
            # modules between blocks cost nothing; blocks begin with a layer
            pieces[-1] = (call.path, 0)
        pieces[-1] = (pieces[-1][0], pieces[-1][1] + call.multiply_adds)
    return [path for path, cost in pieces if cost]


def _outer(model: nn.Module, prefix: str = "") -> List[str]:
    """Return the paths of the modules that are not within a block."""
    paths = []
    for name, child in model.named_children():
        paths.append(prefix + name)
        if type(child) in (nn.Sequential, nn.ModuleList):
            paths += _outer(child, f"{prefix}{name}/")
    return paths


def partition(sizes: Sequence[int], parts: int, fits: Optional[Fits] = None
              ) -> Optional[List[int]]:
    """Return where parts 1, 2, ... of a sequence begin, minimising the largest part.

    The search is exact: for every number of parts and every end, the best begin of the last part is
    found from the results for one part fewer.

    Args:
        sizes: of the pieces; a part has at least one.
        parts: how many.
        fits: whether the pieces from `first` to before `last` may be part number `part`.

    Returns:
        None if there are no such parts.
    """
    sums = [0, *accumulate(sizes)]
    count = len(sizes)
    # by the end of the parts so far: the size of the largest, and where each begins
    best: Dict[int, Tuple[int, Tuple[int, ...]]] = {0: (0, ())}
    for part in range(parts):
        ends = [count] if part == parts - 1 else range(part + 1, count - parts + part + 2)
        found: Dict[int, Tuple[int, Tuple[int, ...]]] = {}
        for end in ends:
            for begin, (largest, begins) in best.items():
                if begin >= end:
                    continue
                made = max(largest, sums[end] - sums[begin]), (*begins, begin)
                if (end not in found or made < found[end]) and (
                        fits is None or fits(begin, end, part)):
                    found[end] = made
        best = found
    return list(best[count][1][1:]) if count in best else None
