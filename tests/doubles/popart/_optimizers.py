"""Optimizers: values that are constant or can change, and the update of one weight.

Formulas are those of PopART's own description; `gradient` is reduced over accumulation and
replicas, and free of loss scaling. States are tensors by id, as a session stores them.
"""

import torch

from popart import _enums
from popart._contract import CONTRACT
from popart._errors import popart_exception
from popart._tensors import DataType

_UNSET = CONTRACT["optimizer_unset_values"]
_NO_NEGATIVE = ("learningRate", "weightDecay", "momentum", "dampening", "beta1", "beta2", "alpha")
_POSITIVE = ("velocityScaling", "eps")
_PLAIN_KEYS = ("lossScaling", "nesterov")


class OptimizerValue:
    def __init__(self, val, isConst=True):
        self._val, self._const = float(val), bool(isConst)

    def val(self):
        return self._val

    def isConst(self):
        return self._const

    def _replaceable_by(self, other):
        return self._const == other._const and (not self._const or self._val == other._val)


class OptimizerValueMap:
    def __init__(self, default, specifics):
        self._default, self._specifics = default, specifics

    def getDefault(self):
        return self._default


class Optimizer:
    def __init__(self):
        raise TypeError(f"popart.{type(self).__name__}: No constructor defined!")

    def getLossScalingVal(self):
        return self._values["lossScaling"].val()


class _Valued(Optimizer):
    """Base of all optimizers: values by name, and separate values of some weights."""

    _family = ""
    _untyped = ()

    def _setup(self, values, clipping=()):
        unset = _UNSET[self._family]
        self._values = {name: OptimizerValue(value) for name, value in unset.items()}
        self._specific = {}
        keys = {name if name in _PLAIN_KEYS else "default" + name[0].upper() + name[1:]: name
                for name in unset}
        self._values.update(_read(self._family, keys, values))
        if len(clipping):
            raise NotImplementedError("the double clips no gradients")
        if not self._values["lossScaling"].val():
            raise popart_exception("Loss scaling cannot be 0")
        self._check(self._values)

    def insertSpecific(self, id, pyd):
        if id in self._specific:
            raise popart_exception("Attempt to insert specific value for optimization Tensor "
                                   f"{id} failed as there is already a specific value for {id}")
        keys = {name: name for name in self._values if name != "lossScaling"}
        self._specific[id] = {**{name: self._values[name] for name in keys},
                              **_read(f"{self._family}::insertSpecific", keys, pyd)}
        self._check(self._specific[id])

    def _check(self, values):
        for name, value in values.items():
            if name in _NO_NEGATIVE and value.val() < 0:
                raise popart_exception(f"Negative {name} ({value.val()}) in {self._family}, "
                                       "bailing as this might be a user error.")
            if name in _POSITIVE and value.val() <= 0:
                raise popart_exception(f"Non-positive {name} ({value.val()}) in {self._family} is "
                                       "not supported")
        if values["learningRate"].isConst() and not values["learningRate"].val():
            raise popart_exception(f"Constant, zero learning rate in {self._family}, bailing as "
                                   "this might be a user error.")

    def _in_weights_type(self, states):
        """Return those of the states that have the type of their weight."""
        return [name for name in states if name.startswith(self._untyped)]

    def _map(self, name):
        return OptimizerValueMap(self._values[name], {
            weight: values[name] for weight, values in self._specific.items()})

    def _of(self, weight):
        """Return the values for a weight as numbers."""
        return {name: value.val() for name, value in
                {**self._values, **self._specific.get(weight, {})}.items()}

    def _kind(self):
        """Return the choices that another optimizer has to share to take the place of this."""
        return {}

    def _compiled(self):
        """Return what is part of the program: the kind, and the values that are constant."""
        return type(self).__name__, str(self._hashed()), sorted(
            (weight, name, value.val() if value.isConst() else None)
            for weight, values in [("", self._values), *self._specific.items()]
            for name, value in values.items())

    def _hashed(self):
        return self._kind()

    def _check_replacement(self, other):
        if type(other) is not type(self) or self._kind() != other._kind():
            raise popart_exception("Can not replace optimizer: it is of another type or mode")
        if set(self._specific) != set(other._specific):
            raise popart_exception("Replacement OptimizerValueMap has a different number of "
                                   "specific tensors.")
        for mine, theirs in [(self._values, other._values), *(
                (values, other._specific[weight]) for weight, values in self._specific.items())]:
            for name, value in mine.items():
                if not value._replaceable_by(theirs[name]):
                    raise popart_exception(
                        f"{name} is not a valid replacement. Values are constant but do not match, "
                        "or a constant value would replace a non constant one.")

    def learningRates(self):
        return self._map("learningRate")

    def weightDecays(self):
        return self._map("weightDecay")


def _read(where, keys, values):
    found = {}
    for key, pair in values.items():
        if key not in keys:
            raise popart_exception(f"Invalid {where} key, {key}, the allowed keys are "
                                   f"( {' '.join(keys)} )")
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], bool)):
            raise TypeError(f"{where}: {key}: {pair!r} is no pair of a value and whether it is "
                            "constant")
        found[keys[key]] = OptimizerValue(*pair)
    return found


class SGD(_Valued):
    _family = "SGD"

    def __init__(self, pyd, clip_norm_settings=(),
                 accumulatorAndMomentum=_enums.SGDAccumulatorAndMomentum.Combined,
                 accumType=DataType.UNDEFINED, accl1Type=DataType.UNDEFINED, debugContext="sgd"):
        _check_types(_enums.SGDAccumulatorAndMomentum, accumulatorAndMomentum, accumType,
                     accl1Type)
        self._untyped = ("Accl",) if accl1Type is DataType.UNDEFINED else ()
        self._separate = (accumulatorAndMomentum
                          is _enums.SGDAccumulatorAndMomentum.Separate)
        self._setup(pyd, clip_norm_settings)

    def _check(self, values):
        super()._check(values)
        if values["nesterov"].val() and values["dampening"].val():
            raise popart_exception("When enable nesterov momentum, dampening "
                                   f"({values['dampening'].val()}) in SGD shouled be zero")

    def momentums(self):
        return self._map("momentum")

    def dampenings(self):
        return self._map("dampening")

    def velocityScalings(self):
        return self._map("velocityScaling")

    def nesterov(self):
        return self._map("nesterov")

    def _kind(self):
        return {"separate": self._separate, "velocity": self._has_velocity(None)}

    def _has_velocity(self, weight):
        momentum = self._specific.get(weight, self._values)["momentum"]
        return not momentum.isConst() or momentum.val() != 0

    def _id(self, weight):
        return ("Accl1___" if self._separate else "Accl___") + weight

    def _initial(self, weight, value):
        if not self._has_velocity(weight):
            return {}
        # one tensor for both starts with the weight decay of the first step in it
        start = (torch.zeros_like(value) if self._separate
                 else self._decay(self._of(weight), value))
        return {self._id(weight): start}

    @staticmethod
    def _decay(of, value):
        return (1 - of["dampening"]) * of["weightDecay"] * of["velocityScaling"] * value

    def _step(self, weight, value, gradient, states):
        of = self._of(weight)
        rate, scale, kept = of["learningRate"], of["velocityScaling"], 1 - of["dampening"]
        if not self._has_velocity(weight):
            return value * (1 - rate * kept * of["weightDecay"]) - rate * kept * gradient
        velocity = states[self._id(weight)]
        if self._separate:
            velocity = of["momentum"] * velocity + self._decay(of, value)
        velocity = velocity + kept * scale * gradient
        step = velocity
        if of["nesterov"] and of["momentum"]:
            step = scale * (gradient + of["weightDecay"] * value) + of["momentum"] * velocity
        value = value - rate / scale * step
        if not self._separate:
            velocity = of["momentum"] * velocity + self._decay(of, value)
        states[self._id(weight)] = velocity
        return value


class ConstSGD(SGD):
    def __init__(self, learning_rate, weight_decay=0.0, loss_scaling=1.0, clip_norm_settings=()):
        super().__init__({"defaultLearningRate": (learning_rate, True),
                          "defaultWeightDecay": (weight_decay, True),
                          "lossScaling": (loss_scaling, True)}, clip_norm_settings)


class Adam(_Valued):
    _family = "Adam"

    def __init__(self, values, mode=_enums.AdamMode.Adam,
                 weight_decay_mode=_enums.WeightDecayMode.Decay, accum_type=DataType.UNDEFINED,
                 accl1_type=DataType.FLOAT, accl2_type=DataType.FLOAT, clip_norm_settings=(),
                 scaled_optimizer_state=False, debugContext="adam"):
        _check_types(_enums.AdamMode, mode, accum_type, accl1_type, accl2_type)
        if scaled_optimizer_state:
            raise NotImplementedError("the double scales no optimizer state")
        self._mode, self._decay_mode = mode, _checked_decay(weight_decay_mode)
        self._untyped = tuple(f"Accl{number}___" for number, given in enumerate(
            (accl1_type, accl2_type), 1) if given is DataType.UNDEFINED)
        self._setup(values, clip_norm_settings)

    def beta1s(self):
        return self._map("beta1")

    def beta2s(self):
        return self._map("beta1")  # as the real binding has it

    def epss(self):
        return self._map("eps")

    def maxWeightNorms(self):
        return self._map("maxWeightNorm")

    def _kind(self):
        return {"mode": self._mode, "decay": self._decay_mode}

    def _initial(self, weight, value):
        states = {f"{prefix}___{weight}": torch.zeros_like(value) for prefix in ("Accl1", "Accl2")}
        if not self._mode.name.endswith("NoBias"):
            states[f"Step___{weight}"] = torch.zeros(())
        return states

    def _step(self, weight, value, gradient, states):
        of, mode = self._of(weight), self._mode.name
        if self._decay_mode is _enums.WeightDecayMode.L2Regularization:
            gradient = gradient + of["weightDecay"] * value
        first, second = f"Accl1___{weight}", f"Accl2___{weight}"
        states[first] = of["beta1"] * states[first] + (1 - of["beta1"]) * gradient
        states[second] = (torch.maximum(of["beta2"] * states[second], gradient.abs())
                          if mode == "AdaMax" else
                          of["beta2"] * states[second] + (1 - of["beta2"]) * gradient**2)
        mean, square = states[first], states[second]
        if not mode.endswith("NoBias"):
            states[f"Step___{weight}"] = states[f"Step___{weight}"] + 1
            time = states[f"Step___{weight}"].item()
            mean = mean / (1 - of["beta1"] ** time)
            square = square if mode == "AdaMax" else square / (1 - of["beta2"] ** time)
        step = mean / ((square if mode == "AdaMax" else square.sqrt()) + of["eps"])
        if self._decay_mode is _enums.WeightDecayMode.Decay:
            step = step + of["weightDecay"] * value
        trust = 1.0
        if mode.startswith("Lamb"):
            length = value.norm().clamp(max=of["maxWeightNorm"]), step.norm()
            trust = length[0] / length[1] if min(length) > 0 else 1.0
        return value - trust * of["learningRate"] * step


class Adaptive(_Valued):
    _family = "Adaptive"

    def __init__(self, values, mode=_enums.AdaptiveMode.RMSProp,
                 weight_decay_mode=_enums.WeightDecayMode.Decay, accum_type=DataType.UNDEFINED,
                 accl1_type=DataType.FLOAT, accl2_type=DataType.FLOAT,
                 accl3_type=DataType.UNDEFINED, rmsprop_tf_variant=False,
                 debugContext="adaptive"):
        _check_types(_enums.AdaptiveMode, mode, accum_type, accl1_type, accl2_type, accl3_type)
        self._mode, self._decay_mode = mode, _checked_decay(weight_decay_mode)
        self._tf = rmsprop_tf_variant
        self._untyped = tuple(f"Accl{number}___" for number, given in enumerate(
            (accl1_type, accl2_type, accl3_type), 1) if given is DataType.UNDEFINED)
        self._setup(values)

    def alphas(self):
        return self._map("alpha")

    def momentums(self):
        return self._map("momentum")

    def epss(self):
        return self._map("eps")

    def _kind(self):
        return {**self._hashed(), "tf": self._tf}

    def _hashed(self):
        return {"mode": self._mode, "decay": self._decay_mode}

    def _has_momentum(self, weight):
        momentum = self._specific.get(weight, self._values)["momentum"]
        return not momentum.isConst() or momentum.val() != 0

    def _initial(self, weight, value):
        two = self._mode.name in ("CenteredRMSProp", "AdaDelta")
        states = {f"Accl1___{weight}": torch.full_like(value, float(self._tf))}
        if two:
            states[f"Accl2___{weight}"] = torch.zeros_like(value)
        if self._has_momentum(weight):
            states[f"Accl3___{weight}"] = torch.zeros_like(value)
        return states

    def _step(self, weight, value, gradient, states):
        of, mode = self._of(weight), self._mode.name
        if self._decay_mode is _enums.WeightDecayMode.L2Regularization:
            gradient = gradient + of["weightDecay"] * value
        first, second, third = (f"Accl{number}___{weight}" for number in (1, 2, 3))
        alpha, eps = of["alpha"], of["eps"]
        states[first] = (states[first] + gradient**2 if mode == "AdaGrad" else
                         alpha * states[first] + (1 - alpha) * gradient**2)
        square = states[first]
        if mode == "AdaDelta":
            step = gradient * (states[second] + eps).sqrt() / (square + eps).sqrt()
            states[second] = alpha * states[second] + (1 - alpha) * step**2
        else:
            if mode == "CenteredRMSProp":
                states[second] = alpha * states[second] + (1 - alpha) * gradient
                square = square - states[second] ** 2
            step = gradient / ((square + eps).sqrt() if self._tf else square.sqrt() + eps)
        rate, inside = of["learningRate"], False
        if self._has_momentum(weight):
            inside = self._tf
            states[third] = of["momentum"] * states[third] + (rate * step if inside else step)
            step = states[third]
        change = step if inside else rate * step
        if self._decay_mode is _enums.WeightDecayMode.Decay:
            change = change + of["weightDecay"] * value * (1 if inside else rate)
        return value - change


def _check_types(kind, value, *types):
    if not isinstance(value, kind) or not all(isinstance(one, DataType) for one in types):
        raise TypeError("incompatible constructor arguments")
    if any(one not in (DataType.UNDEFINED, DataType.FLOAT) for one in types):
        raise NotImplementedError("the double keeps optimizer states as float32 or as the weight")


def _checked_decay(mode):
    if not isinstance(mode, _enums.WeightDecayMode):
        raise TypeError("incompatible constructor arguments")
    return mode
