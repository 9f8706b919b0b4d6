"""Traces what each module call of a model computes, stores for the backward pass and passes on.

The model is called for two images on the meta device, in training mode, without computation or
memory use. The tensors that torch's autograd would save are counted once each; values are counted
for one image.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Any, Dict, Iterator, List, Sequence, Set, Tuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ipucnn.core.errors import UsageError
from ipucnn.models.tracing import called_on_meta

_IMAGES = 2  # batch norm needs two values per channel, and some networks end in one per image


@dataclass(frozen=True)
class Call:
    """One call of a module, until the next one begins.

    Attributes:
        path: of the module, `layer1/2`; empty for the model itself.
        multiply_adds: of convolutions and linear layers.
        parameters: number of weights that are first used here.
        stored: values that the backward pass needs and that no earlier call stored.
        passed_on: values that exist when the call begins and are used in it or after it.
        alive: values that exist during the call, without weights.
        largest: values of the largest tensor that is created in it.
    """

    path: str
    multiply_adds: int
    parameters: int
    stored: int
    passed_on: int
    alive: int
    largest: int


@dataclass(frozen=True)
class Trace:
    """All module calls of a model, in order.

    Attributes:
        calls: the first is the model's own.
        ends: by path of a module, the number of the call that follows its end, and the values of
            its output.
        leaves: paths of the modules without modules in them.
    """

    calls: Tuple[Call, ...]
    ends: Dict[str, Tuple[int, int]]
    leaves: Set[str]

    @cached_property
    def begins(self) -> Dict[str, int]:
        """By path of a module that is called once, the number of its call."""
        counts: Dict[str, List[int]] = {}
        for number, call in enumerate(self.calls):
            counts.setdefault(call.path, []).append(number)
        return {path: numbers[0] for path, numbers in counts.items() if len(numbers) == 1}

    @property
    def usable(self) -> List[str]:
        """The paths that can begin a pipeline stage, in order of execution."""
        first = next((number for number, call in enumerate(self.calls)
                      if call.path in self.leaves), len(self.calls))
        return [path for path, number in self.begins.items() if path and number > first]

    def parts(self, splits: Sequence[str]) -> List[Tuple[int, int]]:
        """Return the first call of each stage, and the one after its last; splits are resolved."""
        begins = [0, *(self.begins[path] for path in splits)]
        return list(zip(begins, [*begins[1:], len(self.calls)]))

    def total(self, name: str, begin: int, end: int) -> int:
        """Return the sum of `multiply_adds`, `parameters` or `stored` over some calls."""
        sums = self._sums[name]
        return sums[end] - sums[begin]

    def most(self, name: str, begin: int, end: int) -> int:
        """Return the largest value of an attribute over some calls."""
        return max((getattr(call, name) for call in self.calls[begin:end]), default=0)

    @cached_property
    def _sums(self) -> Dict[str, List[int]]:
        return {name: [0, *accumulate(getattr(call, name) for call in self.calls)]
                for name in ("multiply_adds", "parameters", "stored")}


def trace(model: nn.Module, input_size: int) -> Trace:
    """Return the calls of a model on images of that size.

    Raises:
        UsageError: the model does not run on the meta device, or not on images of this size.
    """
    try:
        recorder = _recorded(model, input_size, training=True)
    except UsageError:  # some networks return several outputs, or draw numbers, in training only
        recorder = _recorded(model, input_size, training=False)
    leaves = {name.replace(".", "/") for name, module in model.named_modules()
              if not module._modules}
    return Trace(recorder.calls(_parameters(model, recorder.paths)), recorder.ended, leaves)


def _recorded(model: nn.Module, input_size: int, training: bool) -> _Recorder:
    recorder = _Recorder()

    def attach() -> List[Any]:
        named = [(name.replace(".", "/"), module) for name, module in model.named_modules()]
        return [hook for path, module in named for hook in (
            module.register_forward_pre_hook(partial(recorder.begin, path)),
            module.register_forward_hook(partial(recorder.end, path)))]

    @contextmanager
    def recording(weights: Sequence[torch.Tensor], images: torch.Tensor) -> Iterator[None]:
        recorder.begin("", model)
        recorder.constants = {_key(tensor) for tensor in weights}
        recorder.made(images)
        with torch.enable_grad(), recorder, torch.autograd.graph.saved_tensors_hooks(
                recorder.saved, _unchanged):
            yield

    called_on_meta(model, input_size, attach, images=_IMAGES, training=training,
                   around=recording)
    return recorder


def _unchanged(value: Any) -> Any:
    return value


def _parameters(model: nn.Module, paths: Sequence[str]) -> List[int]:
    """Return the weights of each call: those of its module at its first call.

    Weights of a module that is never called are used by the next one around it.
    """
    first: Dict[str, int] = {}
    for number, path in enumerate(paths):
        first.setdefault(path, number)
    counts = [0] * len(paths)
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0].replace(".", "/")
        while owner not in first:
            owner = owner.rpartition("/")[0]
        counts[first[owner]] += parameter.numel()
    return counts


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records module calls and the tensors that they make, use and save.

    Tensors are identified by their storage, so that views and in-place operations count once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.paths: List[str] = []
        self.ended: Dict[str, Tuple[int, int]] = {}
        self.constants: Set[int] = set()
        self._operations: List[int] = []
        self._stored: List[int] = []
        self._created: Dict[int, int] = {}
        self._used: Dict[int, int] = {}
        self._values: Dict[int, int] = {}
        self._kept: Set[int] = set()
        self._held: List[Any] = []  # a storage that is freed might give its key to another

    def begin(self, path: str, *_: Any) -> None:
        """Begin the call of a module."""
        if not path and self.paths:
            return
        self.paths.append(path)
        self._operations.append(0)
        self._stored.append(0)

    def end(self, path: str, module: nn.Module, _: Any, output: Any) -> None:
        """End the call of a module."""
        if isinstance(module, (nn.Conv2d, nn.Linear)) and isinstance(output, torch.Tensor):
            self._operations[-1] += output.numel() * module.weight[0].numel()
        values = sum(tensor.numel() for tensor in _tensors(output))
        self.ended[path] = len(self.paths), values // _IMAGES

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in _tensors([args, list((kwargs or {}).values())]):
            self._used[_key(tensor)] = len(self.paths) - 1
        for tensor in _tensors(made):
            self.made(tensor)
        return made

    def made(self, tensor: torch.Tensor) -> None:
        """Record a tensor that exists from now on."""
        key = _key(tensor)
        if key not in self._created and key not in self.constants and tensor.is_floating_point():
            self._held.append(tensor)
            self._created[key] = len(self.paths) - 1
            self._values[key] = tensor.untyped_storage().nbytes() // tensor.element_size()
            self._used[key] = len(self.paths) - 1

    def saved(self, tensor: torch.Tensor) -> torch.Tensor:
        """Record a tensor that autograd saves."""
        key = _key(tensor)
        if key in self._values and key not in self._kept:
            self._kept.add(key)
            self._stored[-1] += self._values[key]
        return tensor

    def calls(self, parameters: Sequence[int]) -> Tuple[Call, ...]:
        """Return what was recorded.

        Args:
            parameters: weights that each call uses first.
        """
        count = len(self.paths)
        alive, passed, largest = [0] * (count + 1), [0] * (count + 1), [0] * count
        for key, values in self._values.items():
            created, used = self._created[key], self._used[key]
            alive[created] += values
            alive[used + 1] -= values
            if used > created:
                passed[created + 1] += values
                passed[used + 1] -= values
            largest[created] = max(largest[created], values)
        rows = zip(self.paths, self._operations, parameters, self._stored, accumulate(passed),
                   accumulate(alive), largest)
        return tuple(Call(path, operations // _IMAGES, weights,
                          *(values // _IMAGES for values in rest))
                     for path, operations, weights, *rest in rows)


def _key(tensor: torch.Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
