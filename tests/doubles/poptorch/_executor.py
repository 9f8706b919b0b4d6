"""The model wrapper: captures a program once and executes it micro-batch by micro-batch."""

import copy
import time
import warnings
from contextlib import nullcontext

import torch

from poptorch import _blocks, _enums
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
        self.ipus = (max(trace.ipus) + 1) * options.replication_factor
        self.shapes = [(tensor.shape, tensor.dtype) for tensor in inputs]
        self.attached = False
        self.latency = (0.0, 0.0, 0.0)


class PoplarExecutor:
    def __init__(self, model, options, training, poptorch_version, optimizer=None,
                 user_model=None):
        if training or optimizer is not None:
            raise NotImplementedError("the double knows no training")
        if options is not None and not isinstance(options, Options):
            raise failure(f"Invalid type: 'options' is of type {type(options)}")
        options = Options() if options is None else options
        options._freeze()
        self._options = options.clone()
        if self._options.defaultOutputMode():
            self._options.outputMode(_enums.OutputMode.All)
        self._options._freeze()
        self._model = model
        self._user_model = user_model or model
        self._program = None

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
        if [(tensor.shape, tensor.dtype) for tensor in inputs] != program.shapes:
            raise failure("the inputs passed at runtime don't match the inputs used to compile "
                          "the model.")
        if MACHINE.fails is not None:
            raise MACHINE.fails
        return self._executed(inputs)

    def getLatency(self):
        return self._program.latency if self._program else (0.0, 0.0, 0.0)

    def destroy(self):
        self._program = None

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

    def detachFromDevice(self):
        if self._program is None:
            raise failure(NOT_COMPILED)
        if not self._program.attached:
            raise failure("Device is not attached")
        self._program.attached = False

    # -- internals ---------------------------------------------------------------------------

    def _parsed(self, args, kwargs):
        if kwargs:
            raise NotImplementedError("the double takes positional tensors only")
        if not all(tensor.is_contiguous() for tensor in args):
            warnings.warn("At least one input tensor is not contiguous", stacklevel=3)
        for tensor in args:
            assert not tensor.requires_grad
        return [tensor.to(_OUTSIDE.get(tensor.dtype, tensor.dtype)).contiguous()
                for tensor in args]

    def _micro_batches(self, inputs):
        """Return the inputs of each execution: iteration slowest, then replica."""
        count = self._options.device_iterations * self._options.replication_factor
        for tensor in inputs:
            assert tensor.shape[0] % count == 0, (
                f"Invalid batch dimension: {tensor.shape[0]} must be a multiple of {count}")
        return list(zip(*(tensor.chunk(count) for tensor in inputs)))

    def _compile(self, inputs):
        options = self._options
        first = self._micro_batches(inputs)[0]
        model = copy.deepcopy(self._model)
        trace = _blocks.Trace(first)
        _blocks.TRACE = trace
        try:
            output = _compute(model, first)
        finally:
            _blocks.TRACE = None
        program = Program(model, options, trace, inputs)
        self._check_overlap(trace, output)
        _check_device(program)
        options._Popart._check()
        pipelined = not isinstance(options._strategy, ShardedExecution)
        if pipelined and options.device_iterations < program.stages:
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
