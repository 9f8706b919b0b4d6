"""From a model to a program: what is captured, and what compilation refuses."""

import copy
import logging
from contextlib import nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from poptorch import _blocks, _enums, _training
from poptorch._errors import failure
from poptorch._half import HalfArithmetic
from poptorch._losses import marked
from poptorch._machine import MACHINE, model_enabled
from poptorch.options import ShardedExecution

log = logging.getLogger("poptorch")


class Program:
    """A compiled program: the weights at that time, the options, and its devices."""

    def __init__(self, model, options, trace, inputs):
        self.model = model
        self.options = options
        self.stages = trace.stages
        self.blocks = trace.block_ids
        self.overlaps = trace.overlaps
        self.modes = trace.modes
        self.kept = trace.kept
        # PopART's willow/src/ir.cpp: overlapped transfers put the operations into explicit loops
        # before it marks those of the main graph
        self.recomputes = bool(options._Popart._values.get("autoRecomputation")) and bool(
            options._Popart._values.get("explicitRecomputation") or not trace.overlaps)
        self.ipus = (max(trace.ipus) + 1) * options.replication_factor
        self.shapes = shapes(inputs)
        self.attached = False
        self.latency = (0.0, 0.0, 0.0)


class _Capture(TorchDispatchMode):
    """Tensors have a shape and no value while a program is captured."""

    def __init__(self, trace):
        super().__init__()
        self._trace = trace

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._trace.use(args)
        if func._schema.name == "aten::_local_scalar_dense":
            raise failure("a tensor's value is not known while the model is traced")
        return func(*args, **(kwargs or {}))


def shapes(inputs):
    return [None if tensor is None else (tensor.shape, tensor.dtype) for tensor in inputs]


def compiled(model, options, training, first, inputs):
    """Return the program of `model`, a copy that from now on belongs to the device."""
    trace = _blocks.Trace(first)
    _blocks.TRACE = trace
    try:
        with _Capture(trace):
            output = _captured(model, options, training, first)
    finally:
        _blocks.TRACE = None
    program = Program(model, options, trace, inputs)
    _check_overlap(options, trace, output)
    _check_device(program)
    options._Popart._check()
    if training and options._Popart._values.get("automaticLossScalingSettings.enabled") \
            and not _training.half(model, first):
        raise failure("[AutomaticLossScale transform] No tracked gradient tensors of type fp16 "
                      "were found.", "popart_exception")
    _check_stages(program, training)
    weights = sum(w.numel() * w.element_size() for w in model.parameters())
    if MACHINE.bytes_per_ipu is not None and weights / program.stages > MACHINE.bytes_per_ipu:
        raise failure("Out of memory: Cannot fit all variable data onto one or more tiles.",
                      "popart_exception")
    program.attached = options.connection_type != _enums.ConnectionType.Never
    MACHINE.programs.append(program)
    return program


def compute(model, micro_batch):
    tensors = [tensor for tensor in [*micro_batch, *model.parameters(), *model.buffers()]
               if tensor is not None]
    half = any(tensor.dtype == torch.float16 for tensor in tensors)
    with torch.no_grad(), HalfArithmetic() if half else nullcontext():
        return model(*micro_batch)


def _captured(model, options, training, first):
    """Run the program once to see what it does; it leaves no trace in its buffers."""
    trial = copy.deepcopy(model)
    if training:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), \
                HalfArithmetic() if _training.half(trial, first) else nullcontext():
            output = marked(trial, first)[0]
    else:
        output = compute(trial, first)
    if options.replication_factor > 1 and options.broadcast_buffers and any(
            not torch.equal(mine, theirs) for mine, theirs in zip(trial.buffers(),
                                                                  model.buffers())):
        raise failure("PopTorch does not support broadcasting buffers. If your model is able to "
                      "tolerate buffers becoming out of sync between replicas, you can disable "
                      "buffer broadcasting using poptorch.Options.broadcastBuffers(False).")
    return output


def _check_overlap(options, trace, output):
    if not trace.overlaps:
        return
    if not isinstance(options._strategy, ShardedExecution):
        raise failure("Overlapped IO is not supported with poptorch.PipelinedExecution.")
    if "numIOTiles" not in options.TensorLocations._values:
        raise failure("No IO tiles allocated.")
    if options.output_mode not in (_enums.OutputMode.All, _enums.OutputMode.Sum):
        raise failure("Unsupported output mode for overlapped IO.")
    outputs = list(output) if isinstance(output, (tuple, list)) else [output]
    for value in trace.outputs:
        returns = sum(value is given for given in outputs)
        if returns == 0:
            raise failure("poptorch.set_overlap_for_output applied on a node which is not a "
                          "tensor output to the model.")
        if returns > 1:
            raise failure("poptorch.set_overlap_for_output cannot be used with a tensor that is "
                          "returned twice.")


def _check_device(program):
    """Check what is checked before a device is given out."""
    options, count = program.options, program.ipus
    processes = options.Distributed.numProcesses
    if processes > 1:
        if not torch.distributed.is_initialized():  # PopDist's double starts it
            raise failure(f"the IPUs of {processes} processes share no partition: nothing "
                          "connected the processes")
        if not options._Popart._values.get("cachePath"):
            log.warning("Use poptorch.Options.enableExecutableCaching() to avoid compiling the "
                        "model once per process")
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
    if MACHINE.busy and options.connection_type == _enums.ConnectionType.OnDemand:
        raise failure("Failed to attach to device", "popart_exception")  # when it is loaded
    if MACHINE.busy or rounded > MACHINE.ipus:
        raise failure(f"Failed to acquire {rounded} IPU(s)")


def _check_stages(program, training):
    options, stages = program.options, program.stages
    if isinstance(options._strategy, ShardedExecution):
        return
    if training:
        needed = 2 * stages - 1
        if stages > 1 and options.Training.gradient_accumulation < needed:
            raise failure("poptorch.Options().Training.gradientAccumulation must be greater "
                          f"than or equal to the number of pipeline stages ({needed})")
    elif options.device_iterations < stages:
        raise failure("poptorch.Options().deviceIterations must be greater than or equal to "
                      f"the number of pipeline stages ({stages})")
