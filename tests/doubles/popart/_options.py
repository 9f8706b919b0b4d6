"""Options, made from the contract: unknown names and values of other types are refused."""

import copy

from popart._contract import CONTRACT, number
from popart._enums import ENUMS
from popart._errors import popart_exception

_INTEGERS = ("int", "int64_t", "unsigned", "size_t")
_STRING = "std::string"


class _Settings:
    """Has the fields of one class of the contract, and no others."""

    _fields = {}
    _inits = [[]]

    def __init__(self, *args, **kwargs):
        overloads = [[arg.get("name") for arg in init] for init in self._inits]
        given = next((dict(zip(names, args), **kwargs) for names in overloads
                      if len(args) + len(kwargs) <= len(names)
                      and set(kwargs) <= set(names[len(args):])), None)
        if given is None:
            raise TypeError(f"{type(self).__name__}(): incompatible constructor arguments")
        for name, entry in self._fields.items():
            self.__dict__[name] = _default(name, entry)
        for name, value in given.items():
            setattr(self, name or "_value", value)

    def __setattr__(self, name, value):
        if name not in self._fields:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        kind = self._fields[name].get("cpp_type")
        if not _fits(value, kind):
            raise TypeError(f"{type(self).__name__}.{name}: incompatible argument: "
                            f"{value!r} is no {kind}")
        self.__dict__[name] = StringMap(value) if kind in _MAPS else copy.copy(value)

    def __repr__(self):
        return f"{type(self).__name__}({self.__dict__})"


class StringMap(dict):
    """A map from strings to strings, as PopART's wrapper around such an option is one."""

    def __init__(self, values=()):
        super().__init__()
        for key, value in dict(values).items():
            self[key] = value

    def __setitem__(self, key, value):
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"incompatible function arguments: {key!r}: {value!r}")
        super().__setitem__(key, value)


_MAPS = ("std::map<std::string, std::string>",)
_SETTINGS = {}


def _fits(value, kind):
    if kind == "bool":
        return isinstance(value, bool)
    if kind in _INTEGERS:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in ("float", "double"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == _STRING:
        return isinstance(value, str)
    if kind in ENUMS:
        return isinstance(value, ENUMS[kind])
    if kind in _SETTINGS:
        return isinstance(value, _SETTINGS[kind]) or (kind == "NumIOTiles" and _fits(value, "int"))
    if kind is not None and kind.startswith("std::map"):
        return isinstance(value, dict)
    if kind is not None and kind.startswith(("std::vector", "std::set")):
        return isinstance(value, (list, tuple, set))
    return True


def _default(name, entry):
    kind, text = entry.get("cpp_type"), entry.get("default", "")
    if kind in ENUMS:
        member = text.split("::")[-1]
        found = [m for m in ENUMS[kind] if m.name == member or (member, m.name) in _RENAMED]
        return found[0] if found else next(iter(ENUMS[kind]))
    if kind in _SETTINGS:
        return _SETTINGS[kind]()
    if kind == "bool":
        return text == "true"
    if kind in _INTEGERS or kind in ("float", "double"):
        return 1 if text.startswith("initial") else number(text or "0")
    if kind == _STRING:
        return text.strip('"{}')
    if kind in _MAPS:
        return StringMap()
    if kind is not None and kind.startswith("std::map"):
        return {}
    if kind is not None and kind.startswith(("std::vector", "std::set")):
        return [ENUMS["Instrumentation"].Outer] if "Instrumentation" in text else []
    return None


_RENAMED = {("None", "NoRecompute"), ("None", "Off"), ("None", "NoReduction")}


def _made(name, fields, inits):
    return type(name, (_Settings,), {"_fields": fields, "_inits": inits,
                                     "__module__": "popart"})


for _name in ("NumIOTiles", "ExperimentalSettings", "TensorLocation", "TensorLocationSettings",
              "AutomaticLossScalingSettings", "ReplicatedCollectivesSettings", "AutodiffSettings",
              "BatchSerializationSettings", "ExecutionPhaseSettings",
              "AccumulateOuterFragmentSettings"):
    _entry = CONTRACT["classes"]["popart." + _name]
    _SETTINGS[_name] = _made(_name, _entry.get("fields", {}), _entry["init"])
_SETTINGS["NumIOTiles"]._fields = {"_value": {"cpp_type": "int"}}
globals().update(_SETTINGS)


class SessionOptions(_Settings):
    _fields = CONTRACT["SessionOptions"]["fields"]

    def enableExplicitIR(self, enable):
        raise NotImplementedError("the double has no explicit intermediate representation")

    def getGlobalReplicationFactor(self):
        return max(self.replicatedGraphCount, 1) if self.enableReplicatedGraphs else 1


class Patterns(_Settings):
    _fields = {name: {"cpp_type": "bool", "default": "true"}
               for name in CONTRACT["classes"]["popart.Patterns"]["fields"]}

    def __init__(self, level=ENUMS["PatternsLevel"].Default):
        super().__init__()
        if not isinstance(level, (ENUMS["PatternsLevel"], list)):
            raise TypeError("Patterns(): incompatible constructor arguments")

    def isPatternEnabled(self, name):
        return getattr(self, name)

    def enablePattern(self, name, value):
        if name not in self._fields:
            raise popart_exception(f"Unknown pattern {name}")
        setattr(self, name, value)
        return self

    def enableRuntimeAsserts(self, b):
        if not isinstance(b, bool):
            raise TypeError("enableRuntimeAsserts(): incompatible function arguments")
        return self


def verify(options, device, training):
    """Refuse what PopART refuses about options alone.

    Raises:
        popart_exception: with PopART's words where it has some.
    """
    if options.accumulationFactor > 1 and not options.enableGradientAccumulation:
        raise popart_exception(
            "enableGradientAccumulation is false, but accumulationFactor > 1. Either enable "
            "gradient accumulation, or set the accumulation factor to 1")
    if options.enableGradientAccumulation and not training:
        raise popart_exception("Gradient Accumulation only available when training.")
    if options.accumulationFactor < 1 or options.replicatedGraphCount < 1:
        raise popart_exception("a factor is less than 1")
    if options.replicatedGraphCount > 1 and not options.enableReplicatedGraphs:
        raise popart_exception("enableReplicatedGraphs is false, but replicatedGraphCount > 1.")
    if device.numIpus % options.replicatedGraphCount:
        raise popart_exception("For replicated graphs, the number of IPUs must be divisible by the "
                               "replication factor.")
    if options.partialsTypeMatMuls not in ("", "half", "float"):
        raise popart_exception("partialsTypeMatMuls is neither half nor float")
    for field, found in options.__dict__.items():
        if field in _UNKNOWN and found != _default(field, SessionOptions._fields[field]):
            raise NotImplementedError(f"the effect of {field} is not in the double")


_UNKNOWN = ("enableDistributedReplicatedGraphs", "aliasZeroCopy", "updatableNamedBuffers",
            "compileEngine", "createImplicitPipeliningFwdOnlyProgram",
            "customCodelets", "globalReplicationFactor")
