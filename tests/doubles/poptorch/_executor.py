"""The model wrapper: captures a program once and executes it micro-batch by micro-batch."""

import copy
import inspect
import time
import warnings
from contextlib import nullcontext

import torch

from poptorch import _blocks, _enums, _training, _updates, optim
from poptorch._errors import failure
from poptorch._half import HalfArithmetic
from poptorch._machine import MACHINE, model_enabled
from poptorch.options import Options, ShardedExecution

NOT_COMPILED = "Model has not been compiled or has been destroyed."
_OUTSIDE = {torch.int64: torch.int32, torch.float64: torch.float32, torch.bfloat16: torch.float32}


class Program:
    """What was compiled: the weights at that time, the options, and where it runs."""

    def __init__(self, model, options, trace, inputs):
        self.model = model
        self.options = options
        self.stages = trace.stages
        self.blocks = trace.block_ids
        self.overlaps = trace.overlaps
        self.kept = trace.kept
        self.ipus = (max(trace.ipus) + 1) * options.replication_factor
        self.shapes = _shapes(inputs)
        self.attached = False
        self.latency = (0.0, 0.0, 0.0)


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
        if _shapes(inputs) != program.shapes:
            raise failure("the inputs passed at runtime don't match the inputs used to compile "
                          "the model.")
        if MACHINE.fails is not None:
            raise MACHINE.fails
        return self._executed(inputs)

    def getLatency(self):
        return self._program.latency if self._program else (0.0, 0.0, 0.0)

    def destroy(self):
        if self._training and isinstance(self._user_model, _Wrapped):
            if self._program is not None:
                self.copyWeightsToHostIfNeeded()
                self._optimizer.state_dict()
            self._user_model.__class__ = self._plain_class
        self._program = None

    def setOptimizer(self, optimizer):
        _updates.kind(optimizer)
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
            self._program.model.load_state_dict(self._model.state_dict())

    @property
    def rng_state(self):
        if self._program is None:
            raise failure(NOT_COMPILED)
        if self._host_rng_state_is_dirty:
            self._host_rng_state_is_dirty = False
            self._cached_rng_state = [self._seed, self._device.calls]
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
        if self._training:
            self.copyWeightsToHostIfNeeded()
            self._optimizer.state_dict()
        self._program.attached = False

    # -- internals ---------------------------------------------------------------------------

    def _parsed(self, args, kwargs):
        bound = inspect.signature(self._model.forward).bind(*args, **kwargs)
        bound.apply_defaults()
        given = list(bound.arguments.values())
        if not all(tensor.is_contiguous() for tensor in given if tensor is not None):
            warnings.warn("At least one input tensor is not contiguous", stacklevel=3)
        for tensor in given:
            assert tensor is None or not tensor.requires_grad
        return [None if tensor is None
                else tensor.to(_OUTSIDE.get(tensor.dtype, tensor.dtype)).contiguous()
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
            assert tensor is None or tensor.shape[0] % count == 0, (
                f"Invalid batch dimension: {tensor.shape[0]} must be a multiple of {count}")
        # a whole number is 32 bits wide on the device; torch on a CPU wants 64 for indices
        return list(zip(*([None] * count if tensor is None else
                          [part.long() if part.dtype == torch.int32 else part
                           for part in tensor.chunk(count)] for tensor in inputs)))

    def _compile(self, inputs):
        options = self._options
        first = self._micro_batches(inputs)[0]
        model = copy.deepcopy(self._model)
        if self._training:
            model.__class__ = self._plain_class
        trace = _blocks.Trace(first)
        _blocks.TRACE = trace
        try:
            output = self._captured(model, first)
        finally:
            _blocks.TRACE = None
        program = Program(model, options, trace, inputs)
        self._check_overlap(trace, output)
        _check_device(program)
        options._Popart._check()
        pipelined = not isinstance(options._strategy, ShardedExecution)
        if pipelined and self._training:
            stages = 2 * program.stages - 1
            if program.stages > 1 and options.Training.gradient_accumulation < stages:
                raise failure("poptorch.Options().Training.gradientAccumulation must be greater "
                              f"than or equal to the number of pipeline stages ({stages})")
        elif pipelined and options.device_iterations < program.stages:
            raise failure("poptorch.Options().deviceIterations must be greater than or equal to "
                          f"the number of pipeline stages ({program.stages})")
        weights = sum(w.numel() * w.element_size() for w in model.parameters())
        if MACHINE.bytes_per_ipu is not None and \
                weights / program.stages > MACHINE.bytes_per_ipu:
            raise failure("Out of memory: Cannot fit all variable data onto one or more tiles.",
                          "popart_exception")
        program.attached = options.connection_type != _enums.ConnectionType.Never
        self._program = program
        MACHINE.programs.append(program)
        if self._training:
            self._constants = _updates.constants(self._optimizer)
            self._rates = copy.deepcopy(_rates(self._optimizer))
            self._device = _training.Device(model, options.replication_factor)
            names = {id(p): name for name, p in self._model.named_parameters()}
            self._device.groups = [[names[id(p)] for p in group["params"]]
                                   for group in self._optimizer.param_groups]
            if program.attached:
                self._on_attach()

    def _captured(self, model, first):
        """Run the program once to see what it does; training leaves no trace in its buffers."""
        if not self._training:
            return _compute(model, first)
        trial = copy.deepcopy(model)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), \
                HalfArithmetic() if _training.half(trial, first) else nullcontext():
            return _training.marked(trial, first)[0]

    def _check_overlap(self, trace, output):
        if not trace.overlaps:
            return
        options = self._options
        if not isinstance(options._strategy, ShardedExecution):
            raise failure("Overlapped IO is not supported with poptorch.PipelinedExecution.")
        if "numIOTiles" not in options.TensorLocations._values:
            raise failure("No IO tiles allocated.")
        if options.output_mode not in (_enums.OutputMode.All, _enums.OutputMode.Sum):
            raise failure("Unsupported output mode for overlapped IO.")
        if any(marked is not output for marked in trace.outputs):
            raise failure("poptorch.set_overlap_for_output applied on a node which is not a tensor "
                          "output to the model.")

    def _executed(self, inputs):
        options = self._options
        if self._training:
            return self._trained(inputs)
        times, outputs = [], []
        for micro_batch in self._micro_batches(inputs):
            started = time.perf_counter()
            outputs.append(_compute(self._program.model, micro_batch))
            times.append(time.perf_counter() - started)
        result = torch.cat(_returned(outputs, options))
        if options._Popart._values.get("syntheticDataMode"):
            return torch.full_like(result, float("nan"))  # no transfers: whatever was there
        self._program.latency = (min(times), max(times), sum(times) / len(times))
        return result.to(_OUTSIDE.get(result.dtype, result.dtype))


    def _trained(self, inputs):
        if _rates(self._optimizer) != self._rates:
            raise AssertionError("the double: hyper-parameters changed without setOptimizer()")
        self._write_state()
        outputs = _training.run(self._device, self._options, self._optimizer,
                                self._micro_batches(inputs), self._seed)
        self._host_rng_state_is_dirty = True
        self._dirty_host_weights = True
        self._optimizer.host_state_is_dirty = True
        results = []
        for values in zip(*outputs):
            values = _returned(list(values), self._options)
            if values[0].dim() == 0:
                results.append(values[0] if len(values) == 1 else torch.stack(values))
            else:
                results.append(torch.cat(values))
        if self._options._Popart._values.get("syntheticDataMode"):
            results = [torch.full_like(result, float("nan")) for result in results]
        return tuple(result.to(_OUTSIDE.get(result.dtype, result.dtype)) for result in results)


def _shapes(inputs):
    return [None if tensor is None else (tensor.shape, tensor.dtype) for tensor in inputs]


class _Wrapped:
    """What a model is while a training wrapper has it."""


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


def _compute(model, micro_batch):
    tensors = [*micro_batch, *model.parameters(), *model.buffers()]
    half = any(tensor.dtype == torch.float16 for tensor in tensors)
    with torch.no_grad(), HalfArithmetic() if half else nullcontext():
        return model(*micro_batch)


def _returned(outputs, options):
    """Return the micro-batches that the output mode sends to the host."""
    replicas = options.replication_factor
    if options.output_mode == _enums.OutputMode.All:
        return outputs
    if options.output_mode == _enums.OutputMode.Final:
        return outputs[-replicas:]
    if options.output_mode == _enums.OutputMode.Sum:
        return [sum(outputs[replica::replicas]) for replica in range(replicas)]
    period = options.output_return_period
    return [output for index, output in enumerate(outputs)
            if index // replicas % period == period - 1]


def _check_device(program):
    """Check what is checked before a device is given out."""
    options, count = program.options, program.ipus
    assert count <= 64, f"{count} IPUs are more than a process can use"
    offline = options.connection_type == _enums.ConnectionType.Never
    if options._values.get("use_model", model_enabled()):
        if offline:
            raise failure("ConnectionType.Never / poptorch.Options.useOfflineIpuTarget not "
                          "supported for the IPU model")
        return
    if offline:
        return
    rounded = 1 << (count - 1).bit_length()
    if rounded != count and not options.auto_round_num_ipus:
        raise failure(f"The model specifies the use of {count} IPUs, however PopTorch must reserve "
                      f"a minimum of {rounded}")
    if MACHINE.busy or rounded > MACHINE.ipus:
        raise failure(f"Failed to acquire {rounded} IPU(s)")
