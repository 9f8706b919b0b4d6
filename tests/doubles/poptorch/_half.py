"""Half precision on a CPU: computed in float32 and rounded after every operation.

PyTorch 2.0 has no half convolution on the CPU; an IPU rounds results as this does.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

_SELDOM_COMPUTE = ("_to_copy", "copy_", "detach", "clone", "view", "_unsafe_view", "t", "permute",
                   "transpose", "expand", "slice", "select", "cat", "alias", "as_strided", "zeros",
                   "ones", "empty", "full", "unsqueeze", "squeeze", "empty_like", "zeros_like")
"""Operations that move or convert data: they work in any type."""


class HalfArithmetic(TorchDispatchMode):
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
        rounded = name in ("convolution", "native_batch_norm") or all(
            t.dtype == torch.float16 for t in floating)
        result = func(*tree_map(_widened, args), **tree_map(_widened, kwargs))
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
