"""Options that check what the real ones check, and are frozen when a model was given them."""

import copy as _copy
import json as _json
import os as _os
from pathlib import Path as _Path

import torch as _torch

from poptorch import _enums
from poptorch._errors import failure as _failure

__all__ = ["Options", "PipelinedExecution", "ShardedExecution", "TensorLocationSettings"]

_CONTRACT = _Path(__file__).parents[1] / "contracts" / "poptorch-3.3.json"
_TYPES = {"bool": bool, "uint64": int, "double": float, "string": str,
          "container": (list, set, tuple, dict)}


class PipelinedExecution:
    def __init__(self, *args):
        if args:
            raise NotImplementedError("the double has no explicit stages")

    def backendOptions(self):
        return {"execution_mode": 0}


class ShardedExecution(PipelinedExecution):
    def backendOptions(self):
        return {"execution_mode": 1}


class _OptionsDict:
    """Only what was there at first can be set, to values of the same type."""

    def __init__(self, **values):
        self.__dict__.update(_frozen=False, _values=values, _parts=[])

    def _set(self, **values):
        self._check_frozen()
        for name, value in values.items():
            assert name in self._values, f"Invalid option {name}"
            assert isinstance(value, type(self._values[name])), (
                f"Unexpected type {type(value)} for option {name}")
        self._values.update(values)

    def _create_or_set(self, **values):
        self._check_frozen()
        for name, value in values.items():
            self._values.setdefault(name, value)
        self._set(**values)

    def _check_frozen(self):
        if self._frozen:
            raise AttributeError("Can't modify frozen Options")

    def _freeze(self, frozen=True):
        self.__dict__["_frozen"] = frozen
        for part in self._parts:
            part._freeze(frozen)

    def __getattr__(self, name):
        if name.startswith("_") or name not in self.__dict__.get("_values", {}):
            raise AttributeError(f"Invalid attribute {name}.")
        return self._values[name]

    def __setattr__(self, name, value):
        if name.startswith("_"):
            raise AttributeError(f"Invalid private attribute {name}.")
        self._set(**{name: value})


class _PopartOptions(_OptionsDict):
    def __init__(self):
        super().__init__()

    def set(self, key, value):
        self._check_frozen()
        self._values[key] = value
        return self

    def setEngineOptions(self, engine_options):
        return self.set("engineOptions", engine_options)

    def _check(self):
        """Refuse keys and types that PopART does not have, as compilation does."""
        known = _json.loads(_CONTRACT.read_text())["option_keys"]
        for key, value in self._values.items():
            fits = [kind for kind, wanted in _TYPES.items() if key in known[kind]
                    and isinstance(value, wanted) and isinstance(value, bool) == (kind == "bool")]
            if not fits:
                raise _failure(f"Unknown {type(value).__name__} option {key}")


class _TrainingOptions(_OptionsDict):
    def __init__(self, popart_options):
        super().__init__(gradient_accumulation=1, mean_reduction=True)
        self.__dict__["_popart_options"] = popart_options

    def gradientAccumulation(self, gradient_accumulation):
        assert gradient_accumulation > 0
        self._set(gradient_accumulation=gradient_accumulation)
        return self

    def accumulationAndReplicationReductionType(self, reduction_type):
        assert isinstance(reduction_type, _enums.ReductionType)
        if reduction_type is _enums.ReductionType.NoReduction:
            raise ValueError("Unsupported reduction type")
        self._set(mean_reduction=reduction_type is _enums.ReductionType.Mean)
        return self

    def setMeanAccumulationAndReplicationReductionStrategy(self, mean_reduction_strategy):
        assert isinstance(mean_reduction_strategy, _enums.MeanReductionStrategy)
        self._popart_options.set("meanAccumulationAndReplicationReductionStrategy",
                                 mean_reduction_strategy.value)
        return self

    def setAutomaticLossScaling(self, enabled):
        self._popart_options.set("automaticLossScalingSettings.enabled", enabled)
        return self


class TensorLocationSettings(_OptionsDict):
    def useOnChipStorage(self, use=True):
        self._create_or_set(onChip=int(use))
        return self

    def useReplicatedTensorSharding(self, use=True):
        self._create_or_set(useReplicatedTensorSharding=int(use))
        return self


class _DistributedOptions(_OptionsDict):
    """Which process of several this is; read from the environment as the real one does."""

    def __init__(self):
        super().__init__(num_distributed_processes=1, distributed_process_id=0,
                         ipuof_configs={})
        self.setEnvVarNames("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")

    def disable(self):
        return self.configureProcessId(0, 1)

    def setEnvVarNames(self, var_num_processes, var_process_id):
        return self.configureProcessId(int(_os.environ.get(var_process_id, "0")),
                                       int(_os.environ.get(var_num_processes, "1")))

    def configureProcessId(self, process_id, num_processes):
        self._set(distributed_process_id=process_id, num_distributed_processes=num_processes)
        return self

    @property
    def processId(self):
        return self.distributed_process_id

    @property
    def numProcesses(self):
        return self.num_distributed_processes


class _PrecisionOptions(_OptionsDict):
    def __init__(self, popart_options):
        super().__init__()
        self.__dict__["_popart_options"] = popart_options

    def setPartialsType(self, dtype):
        if dtype not in (_torch.float16, _torch.float32):
            raise ValueError("setPartialsType needs torch.float16 or torch.float32")
        word = "half" if dtype is _torch.float16 else "float"
        self._popart_options.set("partialsTypeMatMuls", word)
        self._popart_options.set("convolutionOptions", {"partialsType": word})
        return self

    def enableStochasticRounding(self, enabled):
        self._popart_options.set("enableStochasticRounding", enabled)
        return self

    def enableFloatingPointExceptions(self, enabled):
        self._popart_options.set("enableFloatingPointChecks", enabled)
        return self


class _TensorLocationOptions(_OptionsDict):
    def numIOTiles(self, num_tiles):
        assert isinstance(num_tiles, int)
        assert num_tiles in range(32, 194, 2), (
            "numIOTiles must be an even number between 32 and 192.")
        self._create_or_set(numIOTiles=num_tiles)
        return self

    def setOptimizerLocation(self, location):
        assert isinstance(location, TensorLocationSettings)
        self._create_or_set(location_optimizer=dict(location._values))
        return self


class Options(_OptionsDict):
    def __init__(self):
        super().__init__(
            replication_factor=1, broadcast_buffers=True, device_iterations=1,
            auto_round_num_ipus=False, output_mode=_enums.OutputMode.Default.value,
            output_return_period=1, connection_type=_enums.ConnectionType.Always.value,
            available_memory_proportion={})
        popart = _PopartOptions()
        self.__dict__.update(
            _popart=popart, _precision=_PrecisionOptions(popart),
            _locations=_TensorLocationOptions(), _training=_TrainingOptions(popart),
            _distributed=_DistributedOptions(), _strategy=PipelinedExecution(),
            _progress_bar=True)
        self._parts.extend([popart, self._precision, self._locations, self._training,
                            self._distributed])
        popart.set("instrumentWithHardwareCycleCounter", False)
        popart.set("rearrangeAnchorsOnHost", False)
        if _os.environ.get("POPTORCH_CACHE_DIR"):
            self.enableExecutableCaching(_os.environ["POPTORCH_CACHE_DIR"])

    @property
    def _Popart(self):
        return self.__dict__["_popart"]

    @property
    def Precision(self):
        return self.__dict__["_precision"]

    @property
    def Training(self):
        return self.__dict__["_training"]

    @property
    def TensorLocations(self):
        return self.__dict__["_locations"]

    @property
    def Distributed(self):
        return self.__dict__["_distributed"]

    def showCompilationProgressBar(self, show=True):
        self._check_frozen()
        self.__dict__["_progress_bar"] = show
        return self

    def autoRoundNumIPUs(self, auto_round_num_ipus=True):
        self._set(auto_round_num_ipus=auto_round_num_ipus)
        return self

    def deviceIterations(self, device_iterations):
        self._set(device_iterations=device_iterations)
        return self

    def setExecutionStrategy(self, strategy):
        self._check_frozen()
        assert isinstance(strategy, PipelinedExecution)
        self.__dict__["_strategy"] = strategy
        return self

    def setAvailableMemoryProportion(self, available_memory_proportion):
        shares = {}
        for name, share in available_memory_proportion.items():
            assert name.startswith("IPU"), f"Invalid key: {name}"
            assert 0 < share <= 1
            shares[int(name[3:])] = share
        self._set(available_memory_proportion=shares)

    def replicationFactor(self, replication_factor):
        self._set(replication_factor=replication_factor)
        return self

    def broadcastBuffers(self, broadcast_buffers=True):
        self._set(broadcast_buffers=broadcast_buffers)
        return self

    def enableExecutableCaching(self, path):
        if path is None:
            self._Popart.set("enableEngineCaching", False)
        else:
            self._Popart.set("cachePath", path).set("enableEngineCaching", True)
        return self

    def useIpuModel(self, use_model):
        self._create_or_set(use_model=use_model)
        return self

    def connectionType(self, connection_type):
        assert isinstance(connection_type, _enums.ConnectionType)
        self._set(connection_type=connection_type.value)
        return self

    def useOfflineIpuTarget(self, ipu_version=2):
        self.connectionType(_enums.ConnectionType.Never)
        self._create_or_set(ipu_version=ipu_version)
        return self

    def outputMode(self, output_mode, output_return_period=None):
        assert isinstance(output_mode, _enums.OutputMode)
        if output_mode is _enums.OutputMode.EveryN:
            assert (output_return_period or 0) > 0
        else:
            output_return_period = 1
        self._set(output_mode=output_mode.value, output_return_period=output_return_period)
        return self

    def defaultOutputMode(self):
        return self.output_mode == _enums.OutputMode.Default

    def randomSeed(self, random_seed):
        assert isinstance(random_seed, int)
        _torch.manual_seed(random_seed)
        self._create_or_set(random_seed=random_seed)
        return self

    def enableStableNorm(self, enabled):
        self._Popart.set("enableStableNorm", enabled)
        return self

    def enableSyntheticData(self, enabled):
        assert isinstance(enabled, bool)
        self._Popart.set("syntheticDataMode", 2 if enabled else 0)
        return self

    def enableProfiling(self, profile_dir=None):
        engine = dict(self._Popart._values.get("engineOptions", {}))
        engine.update({"debug.allowOutOfMemory": "true", "autoReport.all": "true",
                       "autoReport.directory": profile_dir or "."})
        self._Popart.setEngineOptions(engine)
        return self

    def toDict(self):
        return {**self._values, **self.TensorLocations._values,
                **self._strategy.backendOptions()}

    def clone(self):
        copied = _copy.deepcopy(self)
        copied._freeze(False)
        return copied
