"""Optimizers: containers of hyper-parameters, whose `step` never runs on the device."""

import torch as _torch

__all__ = ["LAMB", "SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "VariableAttributes"]

_TYPES = (_torch.float16, _torch.float32)


class VariableAttributes:
    def __init__(self, variable_attributes, allowed_attributes):
        self._variable = list(variable_attributes)
        self._allowed = allowed_attributes

    def isConstant(self, attr):
        return attr not in self._variable

    def markAsConstant(self, attr):
        assert attr in self._allowed, f"Unknown attribute {attr}"
        self._variable = [name for name in self._variable if name != attr]

    def markAsVariable(self, attr):
        assert attr in self._allowed, f"Unknown attribute {attr}"
        self._variable.append(attr)


class Optimizer:
    def __init__(self):
        self._state_dict = {"ipu_state": None, "ipu_param": None}
        self.ipu_state_is_dirty = False
        self.host_state_is_dirty = False

    def state_dict(self):
        return self.get_state_dict()

    def load_state_dict(self, state):
        _torch.optim.Optimizer.load_state_dict(self, state)
        self.set_state_dict(state)

    def get_state_dict(self):
        return {**self._state_dict, **_torch.optim.Optimizer.state_dict(self)}

    def set_state_dict(self, state):
        if not state:
            raise RuntimeError("Cannot load optimizer state dictionary because it is empty.")
        if not ("ipu_state" in state and "ipu_param" in state):
            raise RuntimeError("Only IPU optimizer states can be loaded onto the IPU.")
        self._state_dict = state
        self.ipu_state_is_dirty = True
        self.host_state_is_dirty = False

    def has_state(self):
        return self._state_dict.get("ipu_state") is not None


def _split(given, own):
    """Return the arguments of torch's class, and the names of all that were given."""
    given = {name: value for name, value in given.items()
             if name not in ("self", "__class__") and value is not None}
    return {name: value for name, value in given.items() if name not in own}, list(given)


def _finish(optimizer, names, own, **attributes):
    if optimizer.defaults.get("amsgrad"):
        raise ValueError("Only non-amsgrad Adam/AdamW optimizers are supported.")
    for name, value in attributes.items():
        if name.endswith("accum_type"):
            value = _torch.float32 if value is None else value
            assert value in _TYPES, "Accumulation types must be float32 or float16"
        setattr(optimizer, name, value)
    optimizer.variable_attrs = VariableAttributes(names, [*optimizer.defaults, *own])


class SGD(Optimizer, _torch.optim.SGD):
    def __init__(self, params, lr, momentum=None, dampening=None, weight_decay=None,
                 nesterov=None, maximize=None, foreach=None, differentiable=None,
                 loss_scaling=None, velocity_scaling=None, use_combined_accum=None,
                 accum_type=None, velocity_accum_type=None, max_grad_norm=None):
        parent, names = _split(locals(), (
            "loss_scaling", "velocity_scaling", "use_combined_accum", "accum_type",
            "velocity_accum_type", "max_grad_norm"))
        Optimizer.__init__(self)
        _torch.optim.SGD.__init__(self, **parent)
        if use_combined_accum:
            self.defaults["velocity_scaling"] = velocity_scaling or 1.0
            for group in self.param_groups:
                group.setdefault("velocity_scaling", velocity_scaling or 1.0)
        _finish(self, names, ["loss_scaling"], loss_scaling=loss_scaling or 1.0,
                use_combined_accum=bool(use_combined_accum), accum_type=accum_type,
                velocity_accum_type=velocity_accum_type,
                max_grad_norm=max_grad_norm or float("inf"))


_MOMENTS = ("accum_type", "first_order_momentum_accum_type", "second_order_momentum_accum_type")


class Adam(Optimizer, _torch.optim.Adam):
    def __init__(self, params, lr=None, betas=None, eps=None, weight_decay=None, amsgrad=None,
                 foreach=None, maximize=None, capturable=None, differentiable=None, fused=None,
                 loss_scaling=None, accum_type=None, first_order_momentum_accum_type=None,
                 second_order_momentum_accum_type=None, max_grad_norm=None):
        given = dict(locals())
        parent, names = _split(given, ("loss_scaling", "max_grad_norm", *_MOMENTS))
        Optimizer.__init__(self)
        _torch.optim.Adam.__init__(self, **parent)
        _finish(self, names, ["loss_scaling"], loss_scaling=loss_scaling or 1.0,
                max_grad_norm=max_grad_norm or float("inf"),
                **{name: given[name] for name in _MOMENTS})


class AdamW(Optimizer, _torch.optim.AdamW):
    def __init__(self, params, lr=None, betas=None, eps=None, weight_decay=None, amsgrad=None,
                 maximize=None, foreach=None, capturable=None, differentiable=None, fused=None,
                 loss_scaling=None, bias_correction=None, accum_type=None,
                 first_order_momentum_accum_type=None, second_order_momentum_accum_type=None,
                 max_grad_norm=None):
        given = dict(locals())
        parent, names = _split(given, ("loss_scaling", "bias_correction", "max_grad_norm",
                                       *_MOMENTS))
        Optimizer.__init__(self)
        _torch.optim.AdamW.__init__(self, **parent)
        # without the correction the device corrects all the same (contract)
        _finish(self, names, ["loss_scaling"], loss_scaling=loss_scaling or 1.0,
                bias_correction=True if bias_correction is None else bias_correction,
                max_grad_norm=max_grad_norm or float("inf"),
                **{name: given[name] for name in _MOMENTS})


class RMSprop(Optimizer, _torch.optim.RMSprop):
    def __init__(self, params, lr=None, alpha=None, eps=None, weight_decay=None, momentum=None,
                 centered=None, foreach=None, maximize=None, differentiable=None,
                 loss_scaling=None, accum_type=None, first_order_momentum_accum_type=None,
                 second_order_momentum_accum_type=None, use_tf_variant=None):
        given = dict(locals())
        parent, names = _split(given, ("loss_scaling", "use_tf_variant", *_MOMENTS))
        Optimizer.__init__(self)
        _torch.optim.RMSprop.__init__(self, **parent)
        _finish(self, names, ["loss_scaling"], loss_scaling=loss_scaling or 1.0,
                use_tf_variant=bool(use_tf_variant), **{name: given[name] for name in _MOMENTS})


class LAMB(Optimizer, _torch.optim.Optimizer):
    def __init__(self, params, lr=None, betas=None, eps=None, weight_decay=None,
                 bias_correction=None, loss_scaling=None, max_weight_norm=None, accum_type=None,
                 first_order_momentum_accum_type=None, second_order_momentum_accum_type=None):
        given = dict(locals())
        _, names = _split(given, ())
        defaults = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2,
                    "max_weight_norm": 65500.0}
        defaults.update({name: given[name] for name in defaults if given[name] is not None})
        Optimizer.__init__(self)
        _torch.optim.Optimizer.__init__(self, params, defaults)
        _finish(self, names, ["loss_scaling"], loss_scaling=loss_scaling or 1.0,
                bias_correction=True if bias_correction is None else bias_correction,
                **{name: given[name] for name in _MOMENTS})

    def step(self, closure=None):
        raise NotImplementedError("the device makes the steps")
