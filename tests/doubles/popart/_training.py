"""The training session: gradients by torch, over steps, accumulation and replicas."""

import copy

import torch

from popart import _enums, _executor, _options
from popart._errors import popart_exception, popart_runtime_error
from popart._flow import InputShapeInfo
from popart._operators import half
from popart._optimizers import SGD, Optimizer
from popart._session import _Session

_WORD = 2**32
_ONLY_FIRST = ("Clip", "Reshape", "Pad", "Slice", "Gather", "Nll", "Dropout", "Expand")
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
            if weight in self._graph.halves and isinstance(optimizer, SGD):
                self._graph.halves.update(states)
            self._host.update(states)
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
            raise NotImplementedError("the double does not know Nesterov's momentum with means")

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
                gradients = {}
                for _ in range(self.accumulationFactor):
                    for replica in range(self.replicationFactor):
                        values = self._differentiated(next(micro_batches), replica, gradients)
                        for name in anchors:
                            results[name].append(_executor.array(values[name], self._infos[name]))
                self._update(gradients)
        self._device.update(self._statistics[0])
        return results

    def _next_seed(self):
        """Each micro-batch adds the number of replicas to the lower word, and one to the upper."""
        upper, lower = divmod(self._seed, _WORD)
        return ((upper + self.accumulationFactor) % _WORD * _WORD
                + (lower + self.accumulationFactor * self.replicationFactor) % _WORD)

    def _differentiated(self, part, replica, gradients):
        """Run one micro-batch forwards and backwards, and add to the gradients."""
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
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        self._statistics[replica].update(
            (name, values[made].detach()) for name, made in follow.items())
        return values

    def _update(self, gradients):
        scale = self._optimizer.getLossScalingVal() * self._mean()
        for name, gradient in gradients.items():
            self._device[name] = self._optimizer._step(name, self._device[name], gradient / scale,
                                                       self._device)
        for name in self._graph.halves & set(self._device):
            self._device[name] = half(self._device[name])


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
