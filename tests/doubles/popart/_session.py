"""Sessions: a model compiled for a device, and its runs."""

import copy
import os
import time

import numpy as np
import torch

from popart import (
    _caching,
    _enums,
    _executor,
    _models,
    _options,
    _placement,
    _shapes,
    _transfers,
    _types,
)
from popart._errors import OutOfMemoryException, popart_exception, popart_runtime_error
from popart._flow import DataFlow, InputShapeInfo, IStepIO, IWeightsIO
from popart._machine import MACHINE, DeviceInfo
from popart._tensors import TensorInfo

_IDS = _enums.AnchorReturnTypeId
_CLOCK = 1.33e9


class _Session:
    """Base of the sessions of training and inference.

    `_host` are the weights on the host, `_device` those that programs use, `_stream` what the
    device sent last; each is a dict of tensors by id.
    """

    _training = False
    _losses = ()

    def _prepare(self, fnModel, dataFlow, deviceInfo, inputShapeInfo, patterns, userOptions, name):
        for value, kind in ((dataFlow, DataFlow), (deviceInfo, DeviceInfo),
                            (inputShapeInfo, InputShapeInfo), (userOptions,
                                                               _options.SessionOptions)):
            if not isinstance(value, kind):
                raise TypeError(f"{type(self).__name__}(): {value!r} is no {kind.__name__}")
        if patterns is not None and not isinstance(patterns, _options.Patterns):
            raise TypeError(f"{type(self).__name__}(): {patterns!r} is no Patterns")
        self._flow, self._info, self.name = dataFlow, deviceInfo, name
        self._options = options = copy.deepcopy(userOptions)
        self._model = model = _models.shaped(
            _models.misread(_models.read(fnModel)), inputShapeInfo)
        self._program = model  # or that of a cache
        _options.verify(options, deviceInfo, self._training)
        if not self._training and not dataFlow.nAnchors():
            raise popart_exception("User must specify an anchor tensor when doing inference.")
        _models.check_operators(model, options.strictOpVersions, self._training)
        self._types = _types.types(model)
        self._infos = _shapes.infos(model, [*dataFlow.anchors(), *self._losses])
        self._check_anchors()
        self._stages = _placement.verify(model, options, deviceInfo, dataFlow.batchesPerStep(),
                                         self._training, self._losses)
        _transfers.verify(model, options, dataFlow)
        weights = {one.name for one in model.graph.initializer}
        self._inputs = [value.name for value in model.graph.input if value.name not in weights]
        self._graph = _executor.Graph(model, self._training)
        self._host = dict(self._graph.weights)
        self._device = self._stream = None
        self._prepared = self._loaded = False
        self._runs, self._seconds, self._seed = 0, 0.0, 0

    def _check_anchors(self):
        steps = self._flow.batchesPerStep()
        for name in self._flow.anchors():
            if name not in self._infos:
                raise popart_exception(f"Anchor tensor `{name}' not in Ir Tensors.")
            kind = self._flow.art(name)
            if kind.id() is _IDS.EveryN and steps % kind.rp():
                raise popart_exception("Return period must be a factor of the number of batches "
                                       "per step")

    # -- before a run ------------------------------------------------------------------------

    @property
    def dataFlow(self):
        return self._flow

    @property
    def replicationFactor(self):
        return self._options.replicatedGraphCount

    @property
    def accumulationFactor(self):
        return self._options.accumulationFactor

    def prepareDevice(self, loadEngine=True):
        self._check_memory()
        facts = {"session": type(self).__name__, "stages": self._stages,
                 "ipus": self._info.numIpus}
        path = self._cache_path()
        if path is not None and os.path.isfile(path):
            MACHINE.record("loaded", path=path, **facts)
            self._take_cached(path)
        else:
            MACHINE.record("compiled", **facts)
            if path is not None:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                torch.save((self._model.SerializeToString(), self._host,
                            _caching.unseen(self._options)), path)
        self._prepared = True
        if loadEngine:
            self._load()

    def loadEngineAndConnectStreams(self):
        self._load()

    def compileAndExport(self, filename):
        if self._info.type not in (_enums.DeviceType.Ipu, _enums.DeviceType.OfflineIpu):
            raise popart_exception(f"Executables for device type {self._info.type.name} cannot be "
                                   "saved")
        filename = os.path.expanduser(filename)
        os.makedirs(filename if os.path.isdir(filename) else os.path.dirname(filename),
                    exist_ok=True)
        self.prepareDevice(False)
        if os.path.isdir(filename):
            filename = os.path.join(filename, "executable.popef")
        with open(filename, "wb") as file:
            file.write(self._key().encode())

    def initAnchorArrays(self):
        return {name: np.empty([size for size in self._leading(name) if size != 1]
                               + self.getInfo(name).shape(), self.getInfo(name).data_type_lcase())
                for name in self._flow.anchors()}

    def getInfo(self, id):
        if id not in self._infos:
            raise popart_runtime_error(f"TensorInfo for `{id}' not set")
        return self._infos[id]

    def setRandomSeed(self, seedValue):
        self._need_engine()
        self._seed = seedValue

    def getRandomSeed(self):
        self._need_engine()
        return self._seed

    # -- weights -----------------------------------------------------------------------------

    def weightsFromHost(self):
        self._need_engine()
        self._device = {name: value.clone() for name, value in self._host.items()}

    def weightsToHost(self):
        self._need_engine()
        if self._device is None:
            raise popart_runtime_error("the double: weightsToHost before weightsFromHost")
        self._stream = {name: value.clone() for name, value in self._device.items()}

    def readWeights(self, weightsIo):
        if not isinstance(weightsIo, IWeightsIO):
            raise TypeError("readWeights(): incompatible function arguments")
        if self._constant():
            return  # they are part of the program, of which nothing is read
        if self._stream is None:
            raise popart_runtime_error("the double: readWeights before weightsToHost")
        for name, array in weightsIo._weights.items():
            if name in self._stream:
                self._check_array(name, array)
                array[...] = self._stream[name].numpy().astype(array.dtype)

    def writeWeights(self, weightsIo):
        if self._constant():
            raise popart_runtime_error("Cannot call writeWeights when constantWeights is set. Set "
                                       "`constantWeights` to False in the `SessionOption`s when "
                                       "initialising the session to enable this behaviour.")
        for name, array in weightsIo._weights.items():
            if name in self._host:
                self._check_array(name, array)
                self._host[name] = _executor.tensor(array)

    def resetHostWeights(self, modelProtoOrFilename,
                         ignoreWeightsInModelWithoutCorrespondingHostWeight=False):
        import onnx

        if self._constant():
            raise popart_runtime_error("Cannot call resetHostWeights when constantWeights is set")
        for one in _models.read(modelProtoOrFilename).graph.initializer:
            if one.name not in self._host and one.name not in self._graph.fixed:
                if ignoreWeightsInModelWithoutCorrespondingHostWeight:
                    continue
                raise popart_runtime_error(f"resetWeights, no tensor '{one.name}' in tensors")
            if one.name in self._host:
                array = onnx.numpy_helper.to_array(one)
                self._check_array(one.name, array)
                self._host[one.name] = _executor.tensor(array)
        self._device = None

    def modelToHost(self, fn):
        import onnx

        self.weightsToHost()
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        given = {one.name for one in model.graph.initializer}
        for name in sorted(set(self._stream) - given):
            model.graph.initializer.add(name=name)
        if not self._constant():
            for one in model.graph.initializer:
                if one.name in self._stream:
                    array = self._stream[one.name].numpy().astype(self._dtype(one.name))
                    one.CopyFrom(onnx.numpy_helper.from_array(array, one.name))
            self._host = dict(self._stream)
        with open(fn, "wb") as file:
            file.write(model.SerializeToString())

    # -- runs --------------------------------------------------------------------------------

    def run(self, stepio, debugName=""):
        if not isinstance(stepio, IStepIO):
            raise TypeError("run(): incompatible function arguments")
        if self._info.connectionType == _enums.DeviceConnectionType.Never:
            raise popart_runtime_error("Offline IPU device is not configured for execution")
        self._need_engine()
        if self._device is None and self._host:
            raise popart_runtime_error("Must call weightsFromHost before run as the model has "
                                       "initializers")
        MACHINE.check_run(self._info.driverIds, self._runs + 1)
        synthetic = self._options.syntheticDataMode is not _enums.SyntheticDataMode.Off
        inputs = self._taken(stepio, synthetic)
        anchors = self._flow.anchors()
        outputs = {} if synthetic else {
            name: stepio._checked_output(name, self._infos[name], self._count(name))
            for name in anchors}
        started = time.perf_counter()
        results = self._executed(inputs, anchors)
        self._seconds = time.perf_counter() - started
        self._runs += 1
        for name, array in outputs.items():
            array[...] = self._returned(name, results[name]).reshape(array.shape)

    def getCycleCount(self, id=""):
        if not self._runs:
            raise popart_runtime_error("Must call run before getCycleCount.")
        if not self._options.instrumentWithHardwareCycleCounter or id:
            raise popart_runtime_error(
                f"Invalid id for cycle counter, '{id}'. Make sure you have set "
                "SessionOption::hardwareInstrumentations correctly.")
        return int(self._seconds * _CLOCK)

    # -- internals ---------------------------------------------------------------------------

    def _load(self):
        if self._info.connectionType == _enums.DeviceConnectionType.Never:
            raise popart_runtime_error("Trying to load an engine on an offline device")
        if not self._prepared:
            raise popart_runtime_error("Trying to load an engine but no compiled engine. Did you "
                                       "forget to call prepareDevice()?")
        if not self._reachable() and not (
                self._info.connectionType == _enums.DeviceConnectionType.OnDemand
                and self._info.tryAttachUntilTimeout()):
            raise popart_runtime_error("Failed to attach to device")
        self._loaded = True

    def _need_engine(self):
        if not self._prepared:
            raise popart_runtime_error("Devicex::prepare() must be called before this: call "
                                       "prepareDevice")
        if not self._loaded:
            self._load()
        if not self._reachable():
            raise popart_runtime_error("the double: the device is detached")

    def _reachable(self):
        """Return whether programs can run; only hardware has to be attached for that."""
        return self._info.isAttached or self._info.type != _enums.DeviceType.Ipu

    def _constant(self):
        return self._options.constantWeights and not self._training

    def _check_memory(self):
        size = sum(value.numel() * (2 if name in self._graph.halves else 4)
                   for name, value in self._host.items())
        graphs = self._info.numIpus // self._options.replicatedGraphCount
        if self._options.virtualGraphMode is _enums.VirtualGraphMode.Off:
            graphs = 1
        memory = MACHINE.memory(self._info.driverIds)
        if memory is not None and size / graphs > memory:
            raise OutOfMemoryException(popart_exception(
                "Out of memory: Cannot fit all variable data onto one or more tiles."))

    def _take_cached(self, path):
        """A cached program is that of the session that it was made for, with all that it has."""
        model, self._host, settings = torch.load(path)
        halves = self._graph.halves
        self._program = _models.read(model)
        self._graph = _executor.Graph(self._program, self._training)
        self._graph.halves = halves
        for name, value in settings.items():
            setattr(self._options, name, value)

    def _key(self):
        return _caching.key(self._model, self._options, self._info, self._flow, self._compiled())

    def _compiled(self):
        """Return what else is part of the program."""
        return None

    def _cache_path(self):
        options = self._options
        on_ipu = self._info.type in (_enums.DeviceType.Ipu, _enums.DeviceType.OfflineIpu)
        if not options.enableEngineCaching or not options.cachePath or not on_ipu:
            return None
        return os.path.join(options.cachePath, self._key() + ".popef")

    def _dtype(self, name):
        return self._state_info(name).data_type_lcase()

    def _state_info(self, name):
        return TensorInfo("FLOAT16" if name in self._graph.halves else "FLOAT",
                          self._host[name].shape)

    def _check_array(self, name, array):
        if TensorInfo(array) != self._state_info(name):
            raise popart_runtime_error("Trying to reset weights using tensor with non matching "
                                       f"tensor info. Tensor ID: {name}")

    def _leading(self, name):
        kind, steps = self._flow.art(name), self._flow.batchesPerStep()
        if kind.id() in (_IDS.Final, _IDS.Sum):
            return [self.replicationFactor]
        if kind.id() is _IDS.EveryN:
            steps //= kind.rp()
        return [steps, self.accumulationFactor, self.replicationFactor]

    def _count(self, name):
        return int(np.prod(self._leading(name)))

    def _taken(self, stepio, synthetic):
        """Return the inputs of each micro-batch: step slowest, then accumulation, replica."""
        count = (self._flow.batchesPerStep() * self.accumulationFactor * self.replicationFactor)
        found = {}
        for name in self._inputs:
            info = self._infos[name]
            if synthetic:
                found[name] = np.zeros([count, *info.shape()], info.data_type_lcase())
            else:
                found[name] = stepio._checked_input(name, info, count)
        for name in stepio._inputs:
            if name not in self._inputs:
                raise popart_runtime_error(
                    f"The tensor '{name}' has been provided as one of the inputs to the stepIO, "
                    "but it is not registered as one of the inputs to the model. Please check this "
                    "tensor and your stepIO.")
        return [{name: array[place] for name, array in found.items()} for place in range(count)]

    def _returned(self, name, values):
        """Combine the values of micro-batches, [steps][accumulation][replicas] in one list."""
        kind = self._flow.art(name)
        steps, accumulation = self._flow.batchesPerStep(), self.accumulationFactor
        array = np.stack(values).reshape(steps, accumulation, self.replicationFactor,
                                         *self._infos[name].shape())
        if kind.id() is _IDS.Final:
            return array[-1, -1]
        if kind.id() is _IDS.Sum:
            return array.sum((0, 1)).astype(array.dtype)
        return array[kind.rp() - 1::kind.rp()] if kind.id() is _IDS.EveryN else array


class InferenceSession(_Session):
    def __init__(self, fnModel, dataFlow, deviceInfo, inputShapeInfo=None, patterns=None,
                 userOptions=None, name="inference"):
        self._prepare(fnModel, dataFlow, deviceInfo,
                      InputShapeInfo() if inputShapeInfo is None else inputShapeInfo, patterns,
                      _options.SessionOptions() if userOptions is None else userOptions, name)
        self._runtime = None

    def _executed(self, inputs, anchors):
        results = {name: [] for name in anchors}
        for part in inputs:
            for name, value in self._computed(part, anchors).items():
                results[name].append(value)
        return results

    def _computed(self, part, anchors):
        own = any(node.domain == _models.DOMAIN for node in self._program.graph.node)
        # a normalisation in its training form takes the statistics of the batch
        halves = _types.FLOAT16 in self._types.values()
        if not own and not halves and not self._graph.statistics:
            return self._by_runtime(part, anchors)
        with torch.no_grad():
            values = self._graph.run(_executor.tensors(part), self._device, anchors)
        return {name: _executor.array(value, self._infos[name]) for name, value in values.items()}

    def _by_runtime(self, part, anchors):
        """Compute with ONNX Runtime, which supports more of ONNX than the executor here."""
        if self._runtime is None or self._runtime[0] is not self._device:
            self._runtime = (self._device, _runtime(self._program, self._device, anchors))
        values = self._runtime[1].run(anchors, part)
        return {name: value.astype(self._infos[name].data_type_lcase())
                for name, value in zip(anchors, values)}


def _runtime(model, weights, anchors):
    import onnx
    import onnxruntime

    made = onnx.ModelProto()
    made.CopyFrom(model)
    for one in made.graph.initializer:
        if one.name in weights:
            one.CopyFrom(onnx.numpy_helper.from_array(weights[one.name].numpy(), one.name))
    names = {value.name for value in made.graph.output}
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in anchors
                             if name not in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    options.log_severity_level = 3
    # releases 1.19 and 1.20 merge padding into average pools, which then do not count it
    options.add_session_config_entry("optimization.disable_specified_optimizers", "Pad_Fusion")
    return onnxruntime.InferenceSession(made.SerializeToString(), options,
                                        providers=["CPUExecutionProvider"])
