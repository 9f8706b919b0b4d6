"""The model wrapper: captures a program once and executes it micro-batch by micro-batch."""

import copy
import inspect
import time
import warnings

import torch

from poptorch import _enums, _training, _updates, optim
from poptorch._compiling import compiled, compute, shapes
from poptorch._errors import failure
from poptorch._machine import MACHINE
from poptorch._outputs import narrowed, returned
from poptorch.options import Options

NOT_COMPILED = "Model has not been compiled or has been destroyed."


class PoplarExecutor:
    def __init__(self, model, options, training, poptorch_version, optimizer=None,
                 user_model=None):
        if options is not None and not isinstance(options, Options):
            raise failure(f"Invalid type: 'options' is of type {type(options)}")
        options = Options() if options is None else options
        options._freeze()
        self._options = options.clone()
        if self._options.defaultOutputMode():
            self._options.outputMode(_enums.OutputMode.Final if training
                                     else _enums.OutputMode.All)
        self._options._freeze()
        if not training and self._options.Training.gradient_accumulation != 1:
            raise failure("You must set poptorch.Options().Training.gradientAccumulation to 1")
        self._model = model
        self._user_model = user_model or model
        self._program = None
        self._training = training
        self._device = None
        self._dirty_host_weights = False
        self._constants = None
        self._optimizer = None
        self._seed = self._options._values.get("random_seed", 0)
        self._cached_rng_state = [self._seed] if "random_seed" in self._options._values else None
        self._host_rng_state_is_dirty = False
        if training:
            self._wrap()
            self.setOptimizer(optimizer or optim.SGD(model.parameters(), lr=0.01))

    @property
    def model(self):
        return self._user_model

    @property
    def options(self):
        return self._options

    def compile(self, *args, **kwargs):
        if self._program is not None:
            warnings.warn("Call to compile() ignored: the executable is already compiled",
                          stacklevel=2)
            return
        self._compile(self._parsed(args, kwargs))

    def __call__(self, *args, **kwargs):
        options = self._options
        assert options.connection_type != _enums.ConnectionType.Never, (
            "Trying to run a model on an offline device (ConnectionType.Never)")
        inputs = self._parsed(args, kwargs)
        if self._program is None:
            self._compile(inputs)
        program = self._program
        if not program.attached:
            self.attachToDevice()
        if shapes(inputs) != program.shapes:
            raise failure("the inputs passed at runtime don't match the inputs used to compile "
                          "the model.")
        if MACHINE.fails is not None:
            raise MACHINE.fails
        return self._executed(inputs)

    def getLatency(self):
        return self._program.latency if self._program else (0.0, 0.0, 0.0)

    def destroy(self):
        if self._program is None:  # a model that was not compiled stays wrapped
            return
        if self._training:
            self.copyWeightsToHostIfNeeded()
            self._optimizer.state_dict()
            self._user_model.__class__ = self._plain_class
        self._program = None

    def setOptimizer(self, optimizer):
        _updates.kind(optimizer)
        _updates.check(optimizer)
        if isinstance(optimizer, optim.Optimizer):
            optimizer.state_dict = self._read_state
        if self._program is not None:
            if _updates.constants(optimizer) != self._constants:
                raise failure("a constant attribute of the optimizer has changed")
            if optimizer is not self._optimizer and isinstance(optimizer, optim.Optimizer):
                optimizer.ipu_state_is_dirty = True
        self._optimizer = optimizer
        self._rates = None if self._program is None else copy.deepcopy(_rates(optimizer))
        if self.isAttachedToDevice():
            self._write_state()

    def load_state_dict(self, state_dict, strict=True):
        found = self._user_model.load_state_dict(state_dict, strict)
        if self.isAttachedToDevice():
            self.copyWeightsToDevice()
        return found

    def copyWeightsToHostIfNeeded(self):
        if not self._dirty_host_weights:
            return False
        self.copyWeightsToHost()
        return True

    def copyWeightsToHost(self):
        if self._program is None:
            raise failure(NOT_COMPILED)
        self._dirty_host_weights = False
        self._device.give(self._model)

    def copyWeightsToDevice(self):
        if self._program is None:
            raise failure(NOT_COMPILED)
        self._dirty_host_weights = False
        if self._training:
            self._optimizer.state_dict()
            self._device.take(self._model)
        else:
            _training.upload(self._program.model, self._model)

    @property
    def rng_state(self):
        if self._program is None:
            raise failure(NOT_COMPILED)
        if self._host_rng_state_is_dirty:
            self._host_rng_state_is_dirty = False
            self._cached_rng_state = [
                self._seed, *[self._device.calls] * self._options.replication_factor]
        return self._cached_rng_state

    @rng_state.setter
    def rng_state(self, state):
        if self._program is None:
            raise failure(NOT_COMPILED)
        self._host_rng_state_is_dirty = False
        self._cached_rng_state = list(state)
        if self.isAttachedToDevice():
            self._copy_rng_state()

    def _copy_rng_state(self):
        words, expected = len(self._cached_rng_state) - 1, self._options.replication_factor
        if words not in (0, expected):  # PopART, willow/src/popx/devicex.cpp
            raise failure(f"Devicex::setRngStateValue received rngState of size {words}; was "
                          f"expecting size {expected}")
        self._seed, self._device.calls = (*self._cached_rng_state, 0)[:2]

    def isCompiled(self):
        return self._program is not None

    def isAttachedToDevice(self):
        return self._program is not None and self._program.attached

    def attachToDevice(self):
        if self._program is None:
            raise failure(NOT_COMPILED)
        assert self._options.connection_type != _enums.ConnectionType.Never
        if self._program.attached:
            raise failure("Device is already attached")
        self._program.attached = True
        self._on_attach()

    def detachFromDevice(self):
        if self._program is None:
            raise failure(NOT_COMPILED)
        if not self._program.attached:
            raise failure("Device is not attached")
        self.rng_state  # noqa: B018
        if self._training:
            self.copyWeightsToHostIfNeeded()
            self._optimizer.state_dict()
        self._program.attached = False

    # -- internals ---------------------------------------------------------------------------

    def _parsed(self, args, kwargs):
        bound = inspect.signature(self._model.forward).bind(*args, **kwargs)
        bound.apply_defaults()
        given = list(bound.arguments.values())
        if any(tensor is not None and not tensor.is_contiguous() for tensor in given):
            warnings.warn("At least one input tensor is not contiguous", stacklevel=3)
        if any(tensor is not None and tensor.requires_grad for tensor in given):
            warnings.warn("Input tensor has requires_grad=True set", stacklevel=3)
        return [None if tensor is None else narrowed(tensor.detach()).contiguous()
                for tensor in given]

    def _wrap(self):
        if isinstance(self._user_model, _Wrapped):
            raise RuntimeError("Model has already been wrapped: call destroy() first")
        self._plain_class = type(self._user_model)
        executor = self

        class PoptorchModel(_Wrapped, self._plain_class):
            def state_dict(self, *args, **kwargs):
                executor.copyWeightsToHostIfNeeded()
                return super().state_dict(*args, **kwargs)

        self._user_model.__class__ = PoptorchModel

    def _read_state(self):
        """Stands for the optimizer's `state_dict`: reads what the device has first."""
        if self._optimizer.host_state_is_dirty:
            if self._program is None:
                raise failure(NOT_COMPILED)
            self._optimizer.set_state_dict({
                **_training.state_of(self._device),
                **torch.optim.Optimizer.state_dict(self._optimizer)})
            self._optimizer.ipu_state_is_dirty = False
        return self._optimizer.get_state_dict()

    def _write_state(self):
        if self._optimizer.ipu_state_is_dirty:
            assert not self._optimizer.host_state_is_dirty
            if self._optimizer.has_state():
                self.copyWeightsToHostIfNeeded()
                _training.take_state(self._device, self._optimizer.state_dict())
            self._optimizer.ipu_state_is_dirty = False

    def _on_attach(self):
        if not self._training:
            self.copyWeightsToDevice()
            return
        self.copyWeightsToDevice()
        if self._optimizer.has_state():
            self._optimizer.ipu_state_is_dirty = True
            self._write_state()
        else:
            self._optimizer.host_state_is_dirty = True
            self._optimizer.ipu_state_is_dirty = False
        if self._cached_rng_state is not None:
            self._copy_rng_state()

    def _micro_batches(self, inputs):
        """Return the inputs of each execution: iteration slowest, then accumulation, replica."""
        count = self._options.device_iterations * self._options.replication_factor \
            * self._options.Training.gradient_accumulation
        for tensor in inputs:
            assert tensor is None or tensor.dim() == 0 or tensor.shape[0] % count == 0, (
                f"Invalid batch dimension: {tensor.shape[0]} must be a multiple of {count}")
        # a whole number is 32 bits wide on the device; torch on a CPU needs 64 for indices
        return list(zip(*([tensor] * count if tensor is None or tensor.dim() == 0 else
                          [part.long() if part.dtype == torch.int32 else part
                           for part in tensor.chunk(count)] for tensor in inputs)))

    def _compile(self, inputs):
        model = copy.deepcopy(self._model)
        if self._training:
            model.__class__ = self._plain_class
        _check_saved(model)
        self._program = program = compiled(model, self._options, self._training,
                                           self._micro_batches(inputs)[0], inputs)
        if self._training:
            self._constants = _updates.constants(self._optimizer)
            self._rates = copy.deepcopy(_rates(self._optimizer))
            self._device = _training.Device(model, self._options.replication_factor)
            names = {id(p): name for name, p in self._model.named_parameters()}
            self._device.groups = [[names[id(p)] for p in group["params"]]
                                   for group in self._optimizer.param_groups]
        if program.attached:
            self._on_attach()

    def _executed(self, inputs):
        parts, started = self._micro_batches(inputs), time.perf_counter()
        if self._training:
            results = self._trained(parts)
            seconds = time.perf_counter() - started
            times = [seconds] * self._options.replication_factor
        else:
            outputs, times = [], []
            for part in parts:
                started = time.perf_counter()
                outputs.append(compute(self._program.model, part))
                times.append(time.perf_counter() - started)
            results = returned(outputs, self._options)
        if not self._options._Popart._values.get("syntheticDataMode"):
            self._program.latency = (min(times), max(times), sum(times) / len(times))
        return results

    def _trained(self, parts):
        if _rates(self._optimizer) != self._rates:
            raise AssertionError("the double: hyper-parameters changed without setOptimizer()")
        self._write_state()
        outputs = _training.run(self._device, self._options, self._optimizer, parts, self._seed)
        self._host_rng_state_is_dirty = True
        self._dirty_host_weights = True
        self._optimizer.host_state_is_dirty = True
        return tuple(returned(list(values), self._options) for values in zip(*outputs))


def _check_saved(model):
    """Refuse a `state_dict` that computes, which is called while the tensors are on the IPU."""
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor) and id(value) not in own:
            raise failure(f"the double: 'state_dict(keep_vars=True)' computes {name!r} of an IPU "
                          "tensor before it is traced")


class _Wrapped:
    """Base of a model's class while a training wrapper holds it."""


def _rates(optimizer):
    return [getattr(optimizer, "loss_scaling", 1.0), *(
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups)]


def trainingModel(model, options=None, optimizer=None):
    if isinstance(model, PoplarExecutor):
        model = model._user_model
    return PoplarExecutor(model=model, options=options, training=True,
                          poptorch_version="3.3.0-double", optimizer=optimizer)


def inferenceModel(model, options=None):
    if isinstance(model, PoplarExecutor):
        model = model._user_model
    return PoplarExecutor(model=copy.copy(model), options=options, training=False,
                          poptorch_version="3.3.0-double")
