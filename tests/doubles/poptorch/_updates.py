"""The weight updates of the device, from the formulas in the notes on the IPU's interfaces."""

import numbers

import torch

from poptorch import optim
from poptorch._errors import failure


def kind(optimizer):
    for name, cls in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW),
                      ("adam", torch.optim.Adam), ("rmsprop", torch.optim.RMSprop),
                      ("lamb", optim.LAMB)):
        if isinstance(optimizer, cls):
            return name
    raise failure(f"Unsupported optimizer type {type(optimizer).__name__}")


def check(optimizer):
    """Assert what `python/_optimizer_attributes.py` asserts of the values of every group."""
    for group in optimizer.param_groups:
        for name in ("lr", "weight_decay", "momentum", "dampening", "eps", "max_weight_norm",
                     "alpha", "velocity_scaling"):
            assert isinstance(group.get(name, 0), numbers.Number), (
                f"Expected a number for {name} but got {group[name]} instead")
        if "betas" in group:
            betas = group["betas"]
            assert isinstance(betas, tuple), f"Expected a pair for betas but got {betas} instead"


def constants(optimizer):
    """Return what is compiled into the program and must stay as it is."""
    variable = getattr(optimizer, "variable_attrs", None)
    found = {name: getattr(optimizer, name, None) for name in (
        "use_combined_accum", "use_tf_variant", "bias_correction", "accum_type", "max_grad_norm")}
    for number, group in enumerate(optimizer.param_groups):
        for name, value in group.items():
            changing = name == "lr" or (variable is not None and not variable.isConstant(name))
            if name not in ("params", "initial_lr", "foreach", "fused", "maximize", "capturable",
                            "differentiable") and (not changing or name in ("alpha", "nesterov")):
                found[f"{name} of group {number}"] = value
    if variable is not None and variable.isConstant("loss_scaling"):
        found["loss_scaling"] = optimizer.loss_scaling
    return found


def update(optimizer, group, weight, gradient, state):
    """Update a weight in place; `gradient` is the mean, without loss scaling, in float32."""
    if getattr(optimizer, "max_grad_norm", float("inf")) != float("inf"):
        raise NotImplementedError("the double clips no gradients")
    with torch.no_grad():
        value = weight.float()
        new = _FORMULAS[kind(optimizer)](optimizer, group, value, gradient, state)
        weight.copy_(new)


def _sgd(optimizer, group, w, g, state):
    g = g + group["weight_decay"] * w
    if not group["momentum"]:
        return w - group["lr"] * g
    # PopART, willow/include/popart/sgd.hpp: nothing rescales a velocity that is stored. PopTorch,
    # popart_compiler/source/CompilerImpl.cpp: of separate tensors it has the loss scaling
    scale = group.get("velocity_scaling", 1.0) if optimizer.use_combined_accum \
        else optimizer.loss_scaling
    v = state.setdefault("velocity", torch.zeros_like(w))
    v.mul_(group["momentum"]).add_(g, alpha=scale * (1 - group["dampening"]))
    step = scale * g + group["momentum"] * v if group["nesterov"] else v
    return w - group["lr"] / scale * step


def _moments(group, g, state):
    first, second = group["betas"]
    state["step"] = state.get("step", torch.zeros(())) + 1
    m = state.setdefault("first", torch.zeros_like(g))
    v = state.setdefault("second", torch.zeros_like(g))
    m.mul_(first).add_(g, alpha=1 - first)
    v.mul_(second).addcmul_(g, g, value=1 - second)
    t = float(state["step"])
    return m / (1 - first**t), v / (1 - second**t)


def _adam(optimizer, group, w, g, state):
    m, v = _moments(group, g + group["weight_decay"] * w, state)
    return w - group["lr"] * m / (v.sqrt() + group["eps"])


def _adamw(optimizer, group, w, g, state):
    m, v = _moments(group, g, state)
    return w - group["lr"] * (m / (v.sqrt() + group["eps"]) + group["weight_decay"] * w)


def _lamb(optimizer, group, w, g, state):
    m, v = _moments(group, g, state)
    u = m / (v.sqrt() + group["eps"]) + group["weight_decay"] * w
    weight, length = w.norm().clamp(max=group["max_weight_norm"]), u.norm()
    trust = weight / length if weight > 0 and length > 0 else 1.0
    return w - group["lr"] * trust * u


def _rmsprop(optimizer, group, w, g, state):
    g = g + group["weight_decay"] * w
    tf = optimizer.use_tf_variant
    s = state.setdefault("mean_square", torch.ones_like(w) if tf else torch.zeros_like(w))
    s.mul_(group["alpha"]).addcmul_(g, g, value=1 - group["alpha"])
    step = group["lr"] * g / (s + group["eps"]).sqrt() if tf else g / (s.sqrt() + group["eps"])
    if group["momentum"]:
        b = state.setdefault("momentum", torch.zeros_like(w))
        b.mul_(group["momentum"]).add_(step)
        step = b
    return w - (step if tf else group["lr"] * step)


_FORMULAS = {"sgd": _sgd, "adam": _adam, "adamw": _adamw, "lamb": _lamb, "rmsprop": _rmsprop}
