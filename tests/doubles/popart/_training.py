"""The training session: gradients by torch, over steps, accumulation and replicas."""

import copy

import numpy as np
import torch

from popart import _enums, _executor, _options, _types
from popart._errors import popart_exception, popart_runtime_error
from popart._flow import InputShapeInfo
from popart._operators import half
from popart._optimizers import SGD, Optimizer
from popart._session import _Session

_WORD = 2**32
_ONLY_FIRST = ("Cast", "Clip", "Reshape", "Pad", "Slice", "Gather", "Nll", "Dropout", "Expand")
"""Operators of whose inputs only the first one has a gradient."""
_NONE = ("Detach", "ArgMax", "ArgMin", "Shape", "ConstantOfShape", "Equal", "Greater", "Less")


class TrainingSession(_Session):
    _training = True

    def __init__(self, fnModel, dataFlow, loss, optimizer, deviceInfo, inputShapeInfo=None,
                 patterns=None, userOptions=None, name="training"):
        import onnx

        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"TrainingSession(): {optimizer!r} is no Optimizer")
        self._losses = [loss]
        self._loss, self._optimizer = loss, copy.deepcopy(optimizer)
        self._prepare(fnModel, dataFlow, deviceInfo,
                      InputShapeInfo() if inputShapeInfo is None else inputShapeInfo, patterns,
                      _options.SessionOptions() if userOptions is None else userOptions, name)
        self._check_loss()
        self._check_reduction()
        self._trained = [one for one in _with_gradient(self._model, loss)
                         if one in self._graph.weights]
        for weight in self._trained:
            states = self._optimizer._initial(weight, self._host[weight])
            if weight in self._graph.halves:
                self._graph.halves.update(self._optimizer._in_weights_type(states))
            self._host.update(states)
        scaling = self._options.automaticLossScalingSettings.enabled
        if scaling and not _types.has_half_gradient(self._model, self._types, self._trained):
            raise popart_exception("[AutomaticLossScale transform] No tracked gradient tensors of "
                                   "type fp16 were found.")
        self._host.update(_executor.tensors({
            one.name: onnx.numpy_helper.to_array(one) for one in self._model.graph.initializer
            if one.name in self._host}))

    def weightsFromHost(self):
        super().weightsFromHost()
        self._statistics = [{name: self._device[name] for name in self._graph.statistics}
                            for _ in range(self.replicationFactor)]

    def updateOptimizerFromHost(self, optimizer):
        if not isinstance(optimizer, Optimizer):
            raise TypeError("updateOptimizerFromHost(): incompatible function arguments")
        self._optimizer._check_replacement(optimizer)
        self._optimizer = copy.deepcopy(optimizer)

    # -- internals ---------------------------------------------------------------------------

    def _compiled(self):
        return self._loss, self._optimizer._compiled()

    def _check_loss(self):
        if self._loss not in self._infos:
            raise popart_exception(f"Could not find loss tensor '{self._loss}' in main graph "
                                   "tensors")
        if self._infos[self._loss].shape():
            raise popart_exception(f"Loss tensor, '{self._loss}', must be a scalar tensor")
        for node in self._model.graph.node:
            if node.op_type == "BatchNormalization" and len(node.output) != 5:
                raise popart_exception(
                    f'BatchNorm Op "{node.name}" has {len(node.output)} output(s) which means it '
                    "is in inference mode, but its gradient Op is being created. To use the "
                    "BatchNorm Op in inference mode during training, it has to be detached first.")

    def _check_reduction(self):
        options = self._options
        if options.accumulationAndReplicationReductionType is _enums.ReductionType.NoReduction:
            raise popart_exception("Unsupported reduction type")
        if isinstance(self._optimizer, SGD) and self._optimizer._values["nesterov"].val() and (
                self._mean() != 1):
            raise NotImplementedError("the double has no Nesterov momentum with means")

    def _mean(self):
        """Return what the sum of gradients is divided by."""
        kind = self._options.accumulationAndReplicationReductionType
        return (self.accumulationFactor * self.replicationFactor
                if kind is _enums.ReductionType.Mean else 1)

    def _executed(self, inputs, anchors):
        results, micro_batches = {name: [] for name in anchors}, iter(inputs)
        with torch.random.fork_rng(devices=[]):
            for _ in range(self._flow.batchesPerStep()):
                torch.manual_seed(self._seed)
                self._seed = self._next_seed()
                sums = [_Sums(self) for _ in range(self.replicationFactor)]
                for _ in range(self.accumulationFactor):
                    for replica in range(self.replicationFactor):
                        values = self._differentiated(next(micro_batches), replica, sums[replica])
                        for name in anchors:
                            results[name].append(_executor.array(values[name], self._infos[name]))
                self._update({name: sum(part.values[name] for part in sums)
                              for name in sums[0].values})
        self._device.update(self._statistics[0])
        return results

    def _next_seed(self):
        """Each micro-batch adds the number of replicas to the lower word, and one to the upper."""
        upper, lower = divmod(self._seed, _WORD)
        return ((upper + self.accumulationFactor) % _WORD * _WORD
                + (lower + self.accumulationFactor * self.replicationFactor) % _WORD)

    def _differentiated(self, part, replica, sums):
        """Run one micro-batch forwards and backwards, and accumulate the gradients."""
        weights = {**self._device, **self._statistics[replica]}
        leaves = {name: weights[name].detach().requires_grad_() for name in self._trained}
        follow = self._graph.statistics
        wanted = {*self._flow.anchors(), self._loss, *follow.values()}
        values = self._graph.run(_executor.tensors(part), {**weights, **leaves}, wanted)
        scale = self._optimizer.getLossScalingVal()
        found = torch.autograd.grad(scale * values[self._loss], list(leaves.values()),
                                    allow_unused=True)
        for name, gradient in zip(leaves, found):
            if gradient is None:
                raise popart_runtime_error(f"the double: {name} has no gradient")
        sums.add(dict(zip(leaves, found)))
        self._statistics[replica].update(
            (name, half(values[made].detach()) if name in self._graph.halves
             else values[made].detach()) for name, made in follow.items())
        return values

    def _update(self, gradients):
        scale = self._optimizer.getLossScalingVal() * self._divisor()
        for name, gradient in gradients.items():
            self._device[name] = self._optimizer._step(name, self._device[name], gradient / scale,
                                                       self._device)
        for name in sorted(self._graph.halves & set(self._device)):
            self._device[name] = (self._rounded_at_random(self._device[name])
                                  if self._options.enableStochasticRounding
                                  else half(self._device[name]))

    def _divisor(self):
        """Return what sums are divided by at the end; a running mean has been divided already."""
        if self._running():
            return self.replicationFactor
        return self._mean()

    def _running(self):
        options = self._options
        return (options.meanAccumulationAndReplicationReductionStrategy
                is _enums.MeanReductionStrategy.Running and self._mean() == (
                    self.accumulationFactor * self.replicationFactor)
                and options.accumulationAndReplicationReductionType is _enums.ReductionType.Mean)

    def setRandomSeed(self, seedValue):
        super().setRandomSeed(seedValue)
        # rounding is seeded here and nowhere else, unlike dropout and random operators
        self._rounding = torch.Generator().manual_seed(seedValue % 2**63)

    def _rounded_at_random(self, value):
        """Round to one of the two nearest halves, the nearer the more likely."""
        nearest = half(value)
        away = torch.where(value > nearest, torch.full_like(value, float("inf")),
                           torch.full_like(value, float("-inf")))
        # torch cannot step between halves; NumPy can
        other = torch.from_numpy(np.nextafter(nearest.numpy().astype(np.float16),
                                              away.numpy().astype(np.float16))).float()
        chance = torch.where(other == nearest, torch.zeros_like(value),
                             (value - nearest) / (other - nearest))
        drawn = torch.rand(value.shape, generator=self._rounding)
        return torch.where((drawn < chance) & (value != nearest), other, nearest)


class _Sums:
    """The gradients of a replica, accumulated in the type of their weights."""

    def __init__(self, session):
        self.values, self._count = {}, 0
        self._halves, self._running = session._graph.halves, session._running()

    def add(self, found):
        self._count += 1
        for name, gradient in found.items():
            before = self.values.get(name)
            rounded = half if name in self._halves else _kept
            if before is None:
                self.values[name] = rounded(gradient)
            elif self._running:  # the mean so far, which cannot overflow
                share = 1 / self._count
                self.values[name] = rounded((1 - share) * before + share * rounded(gradient))
            else:
                self.values[name] = rounded(before + rounded(gradient))


def _kept(value):
    return value


def _with_gradient(model, loss):
    """Return the ids that the loss can be differentiated by."""
    found = {loss}
    for node in reversed(model.graph.node):
        if node.op_type in _NONE or not found & set(node.output):
            continue
        inputs = list(node.input)
        if node.op_type == "BatchNormalization":
            inputs = inputs[:3]
        elif node.op_type in _ONLY_FIRST:
            inputs = inputs[:1]
        found.update(inputs)
    return [one.name for one in model.graph.initializer if one.name in found]
