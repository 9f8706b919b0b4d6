"""ONNX operators up to opset 11, and PopART's own, as functions of torch tensors.

Each takes the node's attributes and the inputs, None where one is left out, and returns a tensor
or a tuple of them.
"""

import math

import torch
import torch.nn.functional as F

from popart._errors import popart_exception

_TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int64, 7: torch.int64,
          9: torch.bool, 10: torch.float16, 11: torch.float32}
NLL_EPSILON = 1e-7


def half(value):
    """Return a float32 tensor rounded to what a half can hold."""
    return value.half().float()


def _pads(attributes, rank):
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise NotImplementedError("the double has no auto_pad")
    pads = attributes.get("pads", [0] * 2 * rank)
    return pads[:rank], pads[rank:]


def _padded(x, before, after, value=0.0):
    around = [size for pair in zip(reversed(before), reversed(after)) for size in pair]
    return F.pad(x, around, value=value)


def _conv(attributes, x, weight, bias=None):
    rank = x.dim() - 2
    before, after = _pads(attributes, rank)
    if before != after:
        x, before = _padded(x, before, after), [0] * rank
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    return function(x, weight, bias, attributes.get("strides", [1] * rank), before,
                    attributes.get("dilations", [1] * rank), attributes.get("group", 1))


def _max_pool(attributes, x):
    before, after = _pads(attributes, 2)
    if before != after or any(2 * pad > size for pad, size in zip(before,
                                                                 attributes["kernel_shape"])):
        x, before = _padded(x, before, after, -math.inf), [0, 0]
    return F.max_pool2d(x, attributes["kernel_shape"], attributes.get("strides", [1, 1]), before,
                        ceil_mode=bool(attributes.get("ceil_mode", 0)))


def _average_pool(attributes, x):
    before, after = _pads(attributes, 2)
    counted = bool(attributes.get("count_include_pad", 0))
    if before != after:
        if not counted:
            raise NotImplementedError("the double averages without uneven padding only")
        x, before = _padded(x, before, after), [0, 0]
    return F.avg_pool2d(x, attributes["kernel_shape"], attributes.get("strides", [1, 1]), before,
                        bool(attributes.get("ceil_mode", 0)), counted)


class _SampleNorm(torch.autograd.Function):
    """Batch norm of ai.graphcore: its gradient is made with the variance of the sample.

    Source: PopART, willow/src/popx/op/batchnormx.cpp; the forward pass divides by that of the
    population.
    """

    @staticmethod
    def forward(ctx, x, scale, shift, epsilon):
        others = [0, *range(2, x.dim())]
        count = x.numel() // x.shape[1]
        mean = x.mean(others, keepdim=True)
        inverse = (x.var(others, unbiased=False, keepdim=True) + epsilon).rsqrt()
        sample = inverse * ((count - 1) / count) ** 0.5
        wide = scale.reshape(mean.shape)
        ctx.save_for_backward(x, wide, mean, sample)
        variance = sample.pow(-2) - epsilon
        statistics = mean.reshape(-1), variance.reshape(-1)
        ctx.mark_non_differentiable(*statistics)
        return ((x - mean) * inverse * wide + shift.reshape(mean.shape), *statistics)

    @staticmethod
    def backward(ctx, dy, _mean, _variance):
        x, scale, mean, inverse = ctx.saved_tensors
        others = [0, *range(2, x.dim())]
        white = (x - mean) * inverse
        by_scale, by_shift = (dy * white).sum(others, True), dy.sum(others, True)
        count = x.numel() // x.shape[1]
        dx = scale * inverse * (dy - by_shift / count - white * by_scale / count)
        return dx, by_scale.reshape(-1), by_shift.reshape(-1), None


def _sample_norm(attributes, x, scale, shift, mean, variance, outputs=1):
    epsilon, momentum = attributes.get("epsilon", 1e-5), attributes.get("momentum", 0.9)
    if outputs == 1:
        return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, epsilon)
    y, batch_mean, batch_variance = _SampleNorm.apply(x, scale, shift, epsilon)
    with torch.no_grad():
        kept = (momentum * mean + (1 - momentum) * batch_mean,
                momentum * variance + (1 - momentum) * batch_variance)
    return (y, *kept, batch_mean, batch_variance)


def _batch_norm(attributes, x, scale, shift, mean, variance, outputs=1):
    epsilon, momentum = attributes.get("epsilon", 1e-5), attributes.get("momentum", 0.9)
    if outputs == 1:
        return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, epsilon)
    others = [0, *range(2, x.dim())]
    with torch.no_grad():
        batch_mean, batch_variance = x.mean(others), x.var(others, unbiased=False)
        kept = (momentum * mean + (1 - momentum) * batch_mean,
                momentum * variance + (1 - momentum) * batch_variance)
    return (F.batch_norm(x, None, None, scale, shift, True, 0.0, epsilon), *kept, batch_mean,
            batch_variance)


def _group_norm(attributes, x, scale, shift):
    groups, epsilon = attributes["num_groups"], attributes.get("epsilon", 1e-5)
    parts = x.reshape(x.shape[0] * groups, -1)
    mean, variance = parts.mean(1), parts.var(1, unbiased=False)
    return F.group_norm(x, groups, scale, shift, epsilon), mean, (variance + epsilon).rsqrt()


def _gemm(attributes, a, b, c=None):
    a = a.t() if attributes.get("transA", 0) else a
    b = b.t() if attributes.get("transB", 0) else b
    product = attributes.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + attributes.get("beta", 1.0) * c


def _clip(attributes, x, low=None, high=None):
    low = attributes.get("min") if low is None else low.item()
    high = attributes.get("max") if high is None else high.item()
    return x.clamp(low, high)


def _divided(attributes, a, b):
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _reduced(function):
    def reduce(attributes, x):
        axes = attributes.get("axes", list(range(x.dim())))
        return function(x, axes, bool(attributes.get("keepdims", 1))) if axes else x
    return reduce


def _largest(function):
    def of(x, axes, keep):
        for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
            x = function(x, axis, keep).values
        return x
    return of


def _flattened(function):
    """Softmax before opset 13 is over everything from an axis on."""
    def apply(attributes, x):
        axis = attributes.get("axis", 1) % max(x.dim(), 1)
        rows = x.reshape(math.prod(x.shape[:axis]), -1)
        return function(rows, 1).reshape(x.shape)
    return apply


def _flatten(attributes, x):
    axis = attributes.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _reshape(attributes, x, shape):
    return x.reshape([x.shape[place] if size == 0 else size
                      for place, size in enumerate(shape.tolist())])


def _slice(attributes, x, starts=None, ends=None, axes=None, steps=None):
    if starts is None:
        starts, ends = attributes["starts"], attributes["ends"]
        axes = attributes.get("axes", range(len(starts)))
    else:
        starts, ends = starts.tolist(), ends.tolist()
        axes = range(len(starts)) if axes is None else axes.tolist()
    steps = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, step in zip(axes, starts, ends, steps):
        place = range(x.shape[axis])[slice(start, max(end, -2**62), step)]
        x = x.index_select(axis, torch.tensor(list(place), dtype=torch.int64))
    return x


def _pad(attributes, x, pads=None, value=None):
    pads = attributes["pads"] if pads is None else pads.tolist()
    value = attributes.get("value", 0.0) if value is None else value.item()
    mode = attributes.get("mode", b"constant").decode()
    before, after = pads[:x.dim()], pads[x.dim():]
    if mode == "constant":
        return _padded(x, before, after, value)
    around = [size for pair in zip(reversed(before), reversed(after)) for size in pair]
    return F.pad(x, around[:2 * (x.dim() - 2)], {"edge": "replicate"}.get(mode, mode))


def _squeeze(attributes, x):
    axes = attributes.get("axes", [axis for axis, size in enumerate(x.shape) if size == 1])
    gone = {axis % x.dim() for axis in axes}
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in gone])


def _unsqueeze(attributes, x):
    for axis in sorted(axis % (x.dim() + len(attributes["axes"])) for axis in attributes["axes"]):
        x = x.unsqueeze(axis)
    return x


def _gather(attributes, x, indices):
    axis = attributes.get("axis", 0) % x.dim()
    found = x.index_select(axis, indices.reshape(-1) % x.shape[axis])
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1:])


def _split(attributes, x, outputs=1):
    axis = attributes.get("axis", 0)
    return x.split(attributes.get("split") or x.shape[axis] // outputs, axis)


def _cast(attributes, x):
    kind = _TYPES[attributes["to"]]
    return half(x.float()) if kind is torch.float16 else x.to(kind)


def _dropout(attributes, x, training=False):
    return F.dropout(x, attributes.get("ratio", 0.5), training)


def _arg(function):
    def apply(attributes, x):
        return function(x, attributes.get("axis", 0), bool(attributes.get("keepdims", 1)))
    return apply


def _nll(attributes, values, labels):
    """PopART's own: rows of probabilities, or of their logarithms, and classes."""
    rows, labels = values.reshape(-1, values.shape[-1]), labels.reshape(-1)
    reduction, ignored = attributes["reduction"], attributes.get("ignoreIndex")
    kept = torch.ones_like(labels, dtype=torch.bool) if ignored is None else labels != ignored
    chosen = rows.gather(1, labels.where(kept, torch.zeros_like(labels))[:, None])[:, 0]
    if not attributes.get("inputIsLogProbability", 0):
        chosen = chosen.clamp(min=NLL_EPSILON).log()
    loss = -chosen * kept
    if reduction == b"None":
        return loss.reshape(values.shape[:-1])
    return loss.sum() / (kept.sum().clamp(min=1) if reduction == b"Mean" else 1)


def _loss(function):
    def apply(attributes, x):
        value = function(attributes, x)
        reduction = attributes["reduction"]
        return value if reduction == b"None" else (
            value.mean() if reduction == b"Mean" else value.sum())
    return apply


def _plain(function):
    return lambda attributes, *inputs: function(*inputs)


OPERATORS = {
    "Abs": _plain(torch.abs), "Add": _plain(torch.add), "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul), "Div": _divided, "Pow": _plain(torch.pow), "Neg": _plain(torch.neg),
    "Sqrt": _plain(torch.sqrt), "Exp": _plain(torch.exp), "Log": _plain(torch.log),
    "Erf": _plain(torch.erf), "Reciprocal": _plain(torch.reciprocal), "Floor": _plain(torch.floor),
    "Ceil": _plain(torch.ceil), "Relu": _plain(F.relu), "Sigmoid": _plain(torch.sigmoid),
    "Tanh": _plain(torch.tanh), "Softplus": _plain(F.softplus), "Identity": _plain(lambda x: x),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "HardSigmoid": lambda a, x: (a.get("alpha", 0.2) * x + a.get("beta", 0.5)).clamp(0, 1),
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    # PopART has no gradient for it, and does not report that
    "PRelu": _plain(lambda x, slope: torch.where(x < 0, slope * x, x).detach()), "Clip": _clip,
    "Max": _plain(lambda *x: torch.stack(torch.broadcast_tensors(*x)).amax(0)),
    "Min": _plain(lambda *x: torch.stack(torch.broadcast_tensors(*x)).amin(0)),
    "Sum": _plain(lambda *x: sum(x[1:], x[0])),
    "MatMul": _plain(torch.matmul), "Gemm": _gemm, "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": lambda a, x, scale, shift: F.instance_norm(
        x, weight=scale, bias=shift, eps=a.get("epsilon", 1e-5)),
    "LRN": lambda a, x: F.local_response_norm(x, a["size"], a.get("alpha", 1e-4),
                                              a.get("beta", 0.75), a.get("bias", 1.0)),
    "MaxPool": _max_pool, "AveragePool": _average_pool,
    "GlobalAveragePool": _plain(lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True)),
    "GlobalMaxPool": _plain(lambda x: x.amax(tuple(range(2, x.dim())), keepdim=True)),
    "ReduceMean": _reduced(torch.mean), "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(_largest(torch.max)), "ReduceMin": _reduced(_largest(torch.min)),
    "ReduceL2": _reduced(lambda x, axes, keep: x.pow(2).sum(axes, keep).sqrt()),
    "Softmax": _flattened(torch.softmax), "LogSoftmax": _flattened(torch.log_softmax),
    "ArgMax": _arg(torch.argmax), "ArgMin": _arg(torch.argmin), "Cast": _cast,
    "Concat": lambda a, *x: torch.cat(x, a["axis"]), "Flatten": _flatten, "Reshape": _reshape,
    "Slice": _slice, "Pad": _pad, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Gather": _gather,
    "Transpose": lambda a, x: x.permute(a.get("perm", list(range(x.dim()))[::-1])),
    "Shape": _plain(lambda x: torch.tensor(x.shape)), "Split": _split,
    "Expand": _plain(lambda x, shape: x * torch.ones(shape.tolist(), dtype=x.dtype)),
    "ConstantOfShape": lambda a, shape: torch.full(shape.tolist(), a["value"].item() if "value"
                                                   in a else 0.0),
    "Dropout": _dropout,
    "RandomUniformLike": lambda a, x: torch.empty_like(x, dtype=torch.float32).uniform_(
        a.get("low", 0.0), a.get("high", 1.0)),
    "Equal": _plain(torch.eq), "Greater": _plain(torch.gt), "Less": _plain(torch.lt),
    "And": _plain(torch.logical_and), "Where": _plain(torch.where),
    "Not": _plain(torch.logical_not),
}
"""The operators of ai.onnx."""

OWN = {
    "BatchNormalization": _sample_norm,
    "Nll": _nll, "IdentityLoss": _loss(lambda a, x: x),
    "L1": _loss(lambda a, x: a["lambda"] * x.abs()), "GroupNormalization": _group_norm,
    "Swish": _plain(F.silu), "Gelu": _plain(lambda x: F.gelu(x, approximate="tanh")),
    "GeluErf": _plain(F.gelu), "Scale": lambda a, x: a["scale"] * x,
    "Detach": _plain(torch.detach), "CheckpointOutput": lambda a, *x: x,
}
"""The operators of ai.graphcore."""


def operator(domain, name):
    found = (OPERATORS if domain in ("", "ai.onnx") else OWN).get(name)
    if found is None:
        raise popart_exception(f"the double has no operator {domain or 'ai.onnx'}.{name}")
    return found
