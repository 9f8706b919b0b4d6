"""Traces the order in which modules run; finds split and recomputation points, and costs.

The model is called on the meta device, without computation or memory use.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import nn

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean

Around = Callable[[Sequence[torch.Tensor], torch.Tensor], ContextManager[Any]]


def execution_order(model: nn.Module, input_size: int) -> List[str]:
    """Return the paths (`layer1/2`) of all modules, containers too, in order of their first call.

    Modules that are never called are left out.
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
        UsageError: a split is unknown, repeated, out of order, not called exactly once, or leaves
            a stage without a layer.
    """
    return resolved(model, splits, _calls(model, input_size)) if splits else []


def resolved(model: nn.Module, splits: Sequence[str], calls: Sequence[str]) -> List[str]:
    """Return what `resolve_splits` returns, given the path of every module call in order.

    Raises:
        UsageError: see `resolve_splits`.
    """
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
    """Return the paths of modules whose outputs are kept; others are recomputed.

    Args:
        model: the model to be trained.
        patterns: regular expressions that match the beginning of a path: `.*conv` means every
            convolution of a ResNet, `conv` only those at its root.

    Raises:
        UsageError: a pattern is not a regular expression, or matches nothing.
    """
    paths = [name.replace(".", "/") for name, _ in model.named_modules() if name]
    chosen = set()
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UsageError(f"recompute checkpoint {pattern!r} is not a regular expression: "
                             f"{error}",
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

    Multiply-adds of convolutions and linear layers are counted, as in torchvision's tables.
    """
    return (sum(parameter.numel() for parameter in model.parameters()),
            sum(operations for _, operations in costs(model, input_size)))


def costs(model: nn.Module, input_size: int) -> List[Tuple[str, int]]:
    """Return the path and the multiply-adds of every module call, in order.

    Convolutions and linear layers are counted, for one image; other modules have 0. The path of the
    model itself is empty.
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

    call_on_meta(model, input_size, attach)
    return calls


def outputs(model: nn.Module, input_size: int) -> List[Tuple[str, int]]:
    """Return the path and the number of output values of every layer's call, for one image.

    Layers that overwrite their input are left out.
    """
    found: List[Tuple[str, int]] = []

    def end(path: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append((path, output.numel() if isinstance(output, torch.Tensor) else 0))

    call_on_meta(model, input_size, lambda: [
        module.register_forward_hook(partial(end, name.replace(".", "/")))
        for name, module in model.named_modules()
        if not module._modules and not getattr(module, "inplace", False)])
    return found


def _calls(model: nn.Module, input_size: int) -> List[str]:
    """Return a path for every call of a module within the model, in order."""
    return [path for path, _ in costs(model, input_size) if path]


def call_on_meta(model: nn.Module, input_size: int, attach: Callable[[], List[Any]]) -> None:
    """Call the model for one image in evaluation mode; see `called_on_meta`."""
    with torch.no_grad():
        called_on_meta(model, input_size, attach)


def called_on_meta(model: nn.Module, input_size: int, attach: Callable[[], List[Any]],
                   images: int = 1, training: bool = False,
                   around: Optional[Around] = None) -> None:
    """Call the model on the meta device, with the hooks returned by `attach`.

    Args:
        model: the model to be called; its tensors and modes do not change.
        input_size: height and width of its images.
        attach: registers hooks and returns them; they are removed afterwards.
        images: how many.
        training: call it in training mode.
        around: a function of the model's tensors on the meta device and the images that returns a
            context in which the model is called.

    Raises:
        UsageError: the model does not run on the meta device, or not on images of this size.
    """
    tensors: Dict[str, torch.Tensor] = {
        name: tensor.to("meta") for name, tensor in (*model.named_parameters(),
                                                     *model.named_buffers())}
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    batch = torch.empty((images, 3, input_size, input_size), dtype=dtype, device="meta")
    with _in_mode(model, training):
        hooks = attach()
        try:
            with around(list(tensors.values()), batch) if around else nullcontext():
                torch.func.functional_call(model, tensors, (batch,))
        except (RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise UsageError(f"the model cannot be followed on images of {input_size} pixels: "
                             f"{reason}", "its layers must run on torch's meta device") from error
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Set training or evaluation mode, and restore each module's mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
