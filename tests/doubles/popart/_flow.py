"""What goes in and out of a session: anchors, shapes of inputs, arrays."""

import numpy as np

from popart import _enums
from popart._errors import popart_exception, popart_runtime_error
from popart._tensors import TensorInfo

_IDS = _enums.AnchorReturnTypeId


class AnchorReturnType:
    def __init__(self, anchorReturnTypeString, *args, **kwargs):
        names = ["returnPeriod", "tileSet", "exchangeStrategy"]
        if args and not isinstance(args[0], int):
            names = names[1:]
        given = dict(zip(names, args), **kwargs)
        if len(args) > len(names) or not set(given) <= {"returnPeriod", *names}:
            raise TypeError("AnchorReturnType(): incompatible constructor arguments")
        found = [one for one in _IDS if one.name.lower() == anchorReturnTypeString.lower()]
        if not found:
            raise popart_exception(
                f"Invalid anchor return type ID supplied: {anchorReturnTypeString}")
        self._id, self._period = found[0], given.get("returnPeriod")
        self._tiles = given.get("tileSet", _enums.TileSet.Compute)
        self._exchange = given.get("exchangeStrategy", _enums.ExchangeStrategy.JustInTime)
        if self._id is _IDS.EveryN and self._period is None:
            raise popart_exception("Must specify return period with option 'EVERYN'")
        if self._id is _IDS.EveryN and self._period <= 0:
            raise popart_exception("Anchor return period must be greater than zero")
        if self._id is not _IDS.EveryN and self._period is not None:
            raise popart_exception("A return period should not be supplied for this anchor return "
                                   "type")

    def id(self):
        return self._id

    def rp(self):
        if self._period is None:
            raise popart_exception("A return period should not be supplied for this anchor return "
                                   "type")
        return self._period

    def tileSet(self):
        return self._tiles

    def exchangeStrategy(self):
        return self._exchange


class DataFlow:
    def __init__(self, batchesPerStep, anchorTensors=None, anchorReturnType=None, *,
                 anchorIds=None):
        given = anchorIds if anchorTensors is None else anchorTensors
        if isinstance(given, (list, tuple)):
            one = AnchorReturnType("All") if anchorReturnType is None else anchorReturnType
            given = dict.fromkeys(given, one)
        elif given is None or anchorIds is not None or anchorReturnType is not None:
            raise TypeError("DataFlow(): incompatible constructor arguments")
        if not all(isinstance(name, str) and isinstance(kind, AnchorReturnType)
                   for name, kind in given.items()):
            raise TypeError("DataFlow(): incompatible constructor arguments")
        self.setBatchesPerStep(batchesPerStep)
        self._anchors = dict(given)

    def isAnchored(self, anchorId):
        return anchorId in self._anchors

    def nAnchors(self):
        return len(self._anchors)

    def batchesPerStep(self):
        return self._steps

    def anchors(self):
        return list(self._anchors)

    def art(self, anchorId):
        if anchorId not in self._anchors:
            raise popart_exception(f"Tensor {anchorId} is not an anchor")
        return self._anchors[anchorId]

    def setBatchesPerStep(self, batchesPerStep):
        if not isinstance(batchesPerStep, int):
            raise TypeError("DataFlow(): incompatible constructor arguments")
        if batchesPerStep <= 0:
            raise popart_exception("'Batches per step' must be greater than zero")
        self._steps = batchesPerStep


class InputShapeInfo:
    def __init__(self):
        self._infos = {}

    def add(self, id, info):
        if not isinstance(info, TensorInfo):
            raise TypeError("add(): incompatible function arguments")
        self._infos[id] = info

    def get(self, id):
        return self._infos[id]

    def has(self, id):
        return id in self._infos


class InputSettings:
    def __init__(self, tileSet=_enums.TileSet.Compute,
                 exchangeStrategy=_enums.ExchangeStrategy.JustInTime):
        if isinstance(tileSet, _enums.ReplicatedStreamMode):
            raise NotImplementedError("the double gives no replica the same input")
        self._tiles, self._exchange = tileSet, exchangeStrategy

    def tileSet(self):
        return self._tiles

    def exchangeStrategy(self):
        return self._exchange

    def replicatedStreamMode(self):
        return _enums.ReplicatedStreamMode.Replicate


class IStepIO:
    pass


class IWeightsIO:
    pass


class PyStepIO(IStepIO):
    def __init__(self, inputs, outputs):
        for kind, arrays in (("input", inputs), ("output", outputs)):
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray):
                    raise TypeError("PyStepIO(): incompatible constructor arguments")
                if not array.flags.c_contiguous:
                    raise popart_exception(
                        f"PyStepIO is unable to use the numpy {kind} array for tensor '{name}' as "
                        "it is not c-contiguous (a data conversion here could have a significant "
                        "impact on performance and hence is not allowed)")
        self._inputs, self._outputs, self._asserts = dict(inputs), dict(outputs), True

    def enableRuntimeAsserts(self, b):
        self._asserts = bool(b)

    def _checked_input(self, name, info, count):
        if name not in self._inputs:
            raise popart_runtime_error(f"No tensor {name} provided in PyStepIO's inputs")
        return self._checked("input", self._inputs[name], name, info, count)

    def _checked_output(self, name, info, count):
        if name not in self._outputs:
            raise popart_runtime_error(f"No tensor {name} provided in PyStepIO's outputs")
        return self._checked("output", self._outputs[name], name, info, count)

    def _checked(self, kind, array, name, info, count):
        if array.dtype.name in ("float64", "complex64"):
            raise popart_exception(f"No numpy type {array.dtype} registered in map to DataType")
        if array.dtype != info.data_type_lcase():
            # the real one still narrows int64 with a warning; nothing should rely on that
            raise popart_runtime_error(f"Type discrepency for tensor {name}. User provided : "
                                       f"{array.dtype} and expected : {info.data_type_lcase()}")
        if self._asserts and array.size != count * info.nelms():
            raise popart_runtime_error(
                f"Unexpected number of {kind} elements for Tensor {name}. Expected "
                f"{count * info.nelms()}, but received {array.size}.")
        return array.reshape(count, *info.shape())


class PyWeightsIO(IWeightsIO):
    def __init__(self, weights):
        if not all(isinstance(array, np.ndarray) for array in weights.values()):
            raise TypeError("PyWeightsIO(): incompatible constructor arguments")
        self._weights = dict(weights)
