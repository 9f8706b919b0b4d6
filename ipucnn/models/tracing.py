"""In what order a model's modules run, and what follows from it: splits, recompute points, cost.

The model is called on the meta device, where nothing is computed and no memory is used.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import torch  # noqa: TID253
from torch import nn  # noqa: TID253

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean


def execution_order(model: nn.Module, input_size: int) -> List[str]:
    """Return the paths (`layer1/2`) of all modules, containers too, in order of their first call.

    A module that is never called is not in it.
    """
    return list(dict.fromkeys(_calls(model, input_size)))


def usable_splits(model: nn.Module, input_size: int) -> List[str]:
    """Return the paths that `resolve_splits` accepts, in execution order."""
    calls = _calls(model, input_size)
    return [path for position, path in enumerate(calls)
            if calls.count(path) == 1 and _leaf_among(model, calls[:position])]


def resolve_splits(model: nn.Module, splits: Sequence[str], input_size: int) -> List[str]:
    """Return the paths of the modules that begin pipeline stages 1, 2, ...

    Args:
        model: the model to be split.
        splits: module paths with `/` or `.` between the names, in order of execution.
        input_size: height and width of its images.

    Raises:
        UsageError: a split is unknown, repeated, out of order, not one place in the model, or
            leaves a stage without a layer.
    """
    if not splits:
        return []
    calls = _calls(model, input_size)
    known = {name.replace(".", "/") for name, _ in model.named_modules() if name}
    paths: List[str] = []
    begin = 0
    for split in splits:
        path = split.strip("/").replace(".", "/")
        if path not in known:
            raise UsageError(f"unknown pipeline split {split!r}",
                             did_you_mean(path, list(dict.fromkeys(calls))))
        if path in paths:
            raise UsageError(f"pipeline split {split!r} is repeated", "name each split once")
        if calls.count(path) != 1:
            raise UsageError(f"pipeline split {split!r} runs {calls.count(path)} times in one pass",
                             "name a module that runs once")
        position = calls.index(path)
        if position < begin:
            raise UsageError(f"pipeline split {split!r} runs before {paths[-1]!r}",
                             "name the splits in the order of execution")
        if not _leaf_among(model, calls[begin:position]):
            before = f"between {paths[-1]!r} and it" if paths else "before it"
            raise UsageError(f"pipeline split {split!r} leaves a stage empty: no layer runs "
                             f"{before}", "name a later module")
        paths.append(path)
        begin = position
    return paths


def _leaf_among(model: nn.Module, paths: Sequence[str]) -> bool:
    return any(not model.get_submodule(path.replace("/", "."))._modules for path in paths)


def recompute_points(model: nn.Module, patterns: Sequence[str]) -> List[str]:
    """Return the paths of the modules whose outputs are kept; the rest is recomputed backwards.

    Args:
        model: the model to be trained.
        patterns: regular expressions that match the beginning of a path: `.*conv` means every
            convolution of a ResNet, `conv` only those at its root.

    Raises:
        UsageError: a pattern is no regular expression, or matches nothing.
    """
    paths = [name.replace(".", "/") for name, _ in model.named_modules() if name]
    chosen = set()
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UsageError(f"recompute checkpoint {pattern!r} is no regular expression: {error}",
                             "'.*' stands for any characters") from None
        matches = [path for path in paths if expression.match(path)]
        if not matches:
            raise UsageError(
                f"recompute checkpoint {pattern!r} matches no module",
                did_you_mean(pattern, paths)
                or "a pattern matches from the beginning of a path: '.*conv', not 'conv'")
        chosen.update(matches)
    return [path for path in paths if path in chosen]


def count(model: nn.Module, input_size: int) -> Tuple[int, int]:
    """Return the number of parameters, and of multiply-adds for one image.

    Multiply-adds are those of convolutions and linear layers, as in torchvision's tables.
    """
    return (sum(parameter.numel() for parameter in model.parameters()),
            sum(operations for _, operations in costs(model, input_size)))


def costs(model: nn.Module, input_size: int) -> List[Tuple[str, int]]:
    """Return the path of every call of a module, in order, and the call's own multiply-adds.

    They are those of a convolution or linear layer for one image; other modules have 0. The path
    of the model itself is empty.
    """
    calls: List[Tuple[str, int]] = []

    def begin(path: str, *_: Any) -> None:
        calls.append((path, 0))

    def end(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        per_output = module.weight[0].numel()  # type: ignore[index]
        calls[-1] = (calls[-1][0], output.numel() * per_output)

    def attach() -> List[Any]:
        modules = list(model.named_modules())
        return [module.register_forward_pre_hook(partial(begin, name.replace(".", "/")))
                for name, module in modules] + [
            module.register_forward_hook(end) for _, module in modules
            if isinstance(module, (nn.Conv2d, nn.Linear))]

    _call(model, input_size, attach)
    return calls


def _calls(model: nn.Module, input_size: int) -> List[str]:
    """Return a path for every call of a module within the model, in order."""
    return [path for path, _ in costs(model, input_size) if path]


def _call(model: nn.Module, input_size: int, attach: Callable[[], List[Any]]) -> None:
    """Call the model for one image on the meta device, with the hooks that `attach` makes.

    Raises:
        UsageError: the model does not run there, or not on images of this size.
    """
    tensors: Dict[str, torch.Tensor] = {**dict(model.named_parameters()),
                                        **dict(model.named_buffers())}
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    images = torch.empty((1, 3, input_size, input_size), dtype=dtype, device="meta")
    with _evaluating(model), torch.no_grad():
        hooks = attach()
        try:
            torch.func.functional_call(
                model, {name: tensor.to("meta") for name, tensor in tensors.items()}, (images,))
        except (RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise UsageError(f"the model cannot be followed on images of {input_size} pixels: "
                             f"{reason}", "its layers must run on torch's meta device") from error
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode, and each module's own mode again afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
