"""Creates PopART optimizers with the formulas of the registered ones of the same names.

Learning rate and loss scaling can change while a program runs; other values are compiled in.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Mapping, Tuple

import popart

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.training_session import OptimizerChoice
from ipucnn.plugins.backends._ipu.optimizers import hyperparameters

Values = Dict[str, Tuple[float, bool]]
Maker = Callable[[Values, Mapping[str, Any]], Any]

_LARGEST_NORM = 65500.0
"""Upper limit of the norm of a weight in LAMB, large enough to have no effect; 10 in the paper."""


def make_optimizer(choice: OptimizerChoice, lr: float, loss_scaling: float,
                   velocity_scaling: float, undecayed: Iterable[str]) -> Any:
    """Return the device's optimizer of that name.

    Args:
        choice: the optimizer and its options.
        lr: learning rate.
        loss_scaling: factor on the loss.
        velocity_scaling: factor on the stored velocity of `sgd_combined`.
        undecayed: names of the weights without weight decay.

    Raises:
        UsageError: the device does not have the optimizer, or computes it differently.
    """
    maker = MAKERS.get(choice.name)
    if maker is None:
        raise UsageError(f"PopART has no optimizer {choice.name!r}",
                         "optimizers: " + ", ".join(MAKERS))
    given = hyperparameters(choice)
    values = {"defaultLearningRate": (lr, False),
              "defaultWeightDecay": (choice.weight_decay, True),
              "lossScaling": (loss_scaling, False)}
    if choice.name == "sgd_combined":
        values["defaultVelocityScaling"] = (velocity_scaling, False)
    optimizer = maker(values, given)
    if choice.weight_decay:
        for name in undecayed:
            optimizer.insertSpecific(name, {"weightDecay": (0.0, True)})
    return optimizer


def _sgd(accumulation: str) -> Maker:
    def make(values: Values, given: Mapping[str, Any]) -> Any:
        values["defaultMomentum"] = (given["momentum"], True)
        return popart.SGD(values, accumulatorAndMomentum=getattr(
            popart.SGDAccumulatorAndMomentum, accumulation))

    return make


def _adam(mode: str, decay: str) -> Maker:
    def make(values: Values, given: Mapping[str, Any]) -> Any:
        first, second = given["betas"]
        values.update(defaultBeta1=(first, True), defaultBeta2=(second, True),
                      defaultEps=(given["eps"], True),
                      defaultMaxWeightNorm=(_LARGEST_NORM, True))
        return popart.Adam(values, mode=getattr(popart.AdamMode, mode),
                           weight_decay_mode=getattr(popart.WeightDecayMode, decay))

    return make


def _rmsprop(tensorflow: bool) -> Maker:
    def make(values: Values, given: Mapping[str, Any]) -> Any:
        values.update(defaultAlpha=(given["alpha"], True), defaultEps=(given["eps"], True),
                      defaultMomentum=(given["momentum"], True))
        modes = popart.AdaptiveMode
        return popart.Adaptive(
            values, mode=modes.CenteredRMSProp if given.get("centered") else modes.RMSProp,
            weight_decay_mode=popart.WeightDecayMode.L2Regularization,
            # the updates are in single precision; a state in that of half weights may not take them
            accl3_type=popart.DataType.FLOAT, rmsprop_tf_variant=tensorflow)

    return make


MAKERS: Dict[str, Maker] = {
    "sgd": _sgd("Separate"), "sgd_combined": _sgd("Combined"),
    "adam": _adam("Adam", "L2Regularization"), "adamw": _adam("Adam", "Decay"),
    "rmsprop": _rmsprop(tensorflow=False), "rmsprop_tf": _rmsprop(tensorflow=True),
    "lamb": _adam("Lamb", "Decay")}
"""By the name of the registered optimizer that each computes."""
