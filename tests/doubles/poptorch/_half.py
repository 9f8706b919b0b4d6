"""Half precision on a CPU: computed in float32 and rounded after every operation.

PyTorch 2.0 has no half convolution on the CPU; an IPU rounds results as this does.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

_SELDOM_COMPUTE = ("_to_copy", "copy_", "detach", "clone", "view", "_unsafe_view", "t", "permute",
                   "transpose", "expand", "slice", "select", "cat", "alias", "as_strided", "zeros",
                   "ones", "empty", "full", "unsqueeze", "squeeze", "empty_like", "zeros_like")
"""Operations that move or convert data: they work in any type."""


class MixedTypes(TorchFunctionMode):
    """A convolution takes its weights in the input's type; torch refuses other operands before."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.conv2d:
            _check_types(args[0], args[2] if len(args) > 2 else None, "bias")
            args = (args[0], args[1].to(args[0].dtype), *args[2:])
        elif func is torch.prelu:
            _check_types(*args, "weight")
        return func(*args, **(kwargs or {}))


def _check_types(value, parameter, name):
    if parameter is not None and parameter.dtype != value.dtype:
        raise RuntimeError(f"Input type ({value.dtype}) and {name} type ({parameter.dtype}) should "
                           "be the same")


class HalfArithmetic(TorchDispatchMode):
    def __enter__(self):
        self._mixed = MixedTypes()
        self._mixed.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._mixed.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor)]
        if name in _SELDOM_COMPUTE or not any(t.dtype == torch.float16 for t in tensors):
            return func(*args, **kwargs)
        if name == "convolution" and args[1].dtype != args[0].dtype:
            args = (args[0], *(a.to(args[0].dtype) if isinstance(a, torch.Tensor) else a
                               for a in args[1:]))  # parameters are taken in the input's type
        floating = [t for t in tensors if t.is_floating_point() and t.dim() > 0]
        rounded = name in ("convolution", "native_batch_norm", "_native_batch_norm_legit") or all(
            t.dtype == torch.float16 for t in floating)
        widened = tree_map(_widened, args)
        result = func(*widened, **tree_map(_widened, kwargs))
        if "native_batch_norm" in name and "backward" not in name:
            for mine, theirs in zip(args[3:5], widened[3:5]):  # running statistics, in place
                if isinstance(mine, torch.Tensor) and mine is not theirs:
                    mine.copy_(theirs)
        if rounded:
            result = tree_map(_rounded, result)
        if name.endswith("_") and not name.startswith("_"):
            return args[0].copy_(result)
        return result


def _widened(value):
    if isinstance(value, torch.Tensor) and value.dtype == torch.float16:
        return value.float()
    return value


def _rounded(value):
    if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
        return value.half()
    return value
