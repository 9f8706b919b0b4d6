"""Builds options from defaults, a profile, saved values and the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import (
    Any,
    Dict,
    FrozenSet,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    Type,
    TypeVar,
    Union,
)

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean
from ipucnn.core.options.assignment import owned
from ipucnn.core.options.composition import (
    CommandOptions,
    Given,
    common_option,
    common_options,
    default_of,
    parts,
)
from ipucnn.core.options.conversion import builtin
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry

OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class Source:
    """Option values by any spelling, and where each comes from.

    Attributes:
        values: the values as given.
        origins: for messages (``"profile.yaml, line 3"``), by the same spellings.
        shipped: it is a profile that comes with the package, whose options of backends are for
            those that have them.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)
    shipped: bool = False


AnySource = Union[Source, Mapping[str, Any]]


def build(options_class: type[OptionsT], *sources: AnySource,
          registry: Optional[Registry] = None, restoring: bool = False) -> OptionsT:
    """Build validated options; later sources override earlier ones, all override the defaults.

    Args:
        options_class: a command's options, or one plain dataclass of options.
        sources: option values by any spelling.
        registry: where the selected plugins are looked up; this process's when not given.
        restoring: options that a restored training cannot change (`Option.fixed`) are kept; an
            error does not suggest to change them.

    Raises:
        UsageError: an unknown option, one that no selected plugin has, a value that is not
            allowed, or contradictory options.
        IpucnnError: an unknown plugin, or one whose options are broken.
    """
    values: List[Dict[str, Any]] = []
    others: List[List[Given]] = []
    for source in sources:
        known, unknown = _divided(options_class, source)
        values.append(known)
        others.append(unknown)
    if not issubclass(options_class, CommandOptions):
        _refuse_others(options_class, others)
        plain: OptionsT = options_class(
            **{name: value for source in values for name, value in source.items()})
        return plain
    registry = registry or current_registry()
    shipped, left_out = _of_profiles(options_class, sources, values, registry)
    together = options_class.combined(values, others, registry)
    made = {name: kind(**{item.name: together[item.name] for item in declared(kind)
                          if item.name in together})
            for name, kind in parts(options_class).items()}
    given = frozenset(name for source in values for name in source)
    if not options_class.kinds:
        _refuse_others(options_class, others)
        return options_class(shipped=shipped, left_out=left_out, given=given, **made)

    def value_of(name: str) -> Any:
        return together[name] if name in together else default_of(options_class, name)

    kept = [item.name for item in common_options(options_class) if item.option.fixed] \
        if restoring else []
    plugins = owned(options_class, value_of, others, registry, kept)
    return options_class(plugins=plugins, shipped=shipped, left_out=left_out, given=given, **made)


def _of_profiles(options_class: Type[CommandOptions], sources: Sequence[AnySource],
                 values: List[Dict[str, Any]],
                 registry: Registry) -> Tuple[FrozenSet[str], Tuple[str, ...]]:
    """Remove values of shipped profiles that do not suit what else is given, from `values`.

    Returns:
        The names of common options with the value of a shipped profile, and of those removed.
    """
    shipped: Set[str] = set()
    left_out: Tuple[str, ...] = ()
    for number, source in enumerate(sources):
        later = {name: value for other in values[number + 1:] for name, value in other.items()}
        if isinstance(source, Source) and source.shipped:
            left_out = options_class.unsuited(values[number], later, registry)
            values[number] = {name: value for name, value in values[number].items()
                              if name not in left_out}
            shipped = {*options_class.implied(values[number].keys() - later.keys())} - later.keys()
    return frozenset(shipped), left_out


def _refuse_others(options_class: type, others: List[List[Given]]) -> None:
    for given in (given for source in others for given in source):
        raise _unknown(options_class, given.spelling, given.where)


def common_values(options_class: type, source: AnySource) -> Dict[str, Any]:
    """Return the validated values of a command's own options by name; others are left out.

    Raises:
        UsageError: a value that is not allowed, or an option in two spellings.
    """
    return _divided(options_class, source)[0]


def _divided(options_class: type, source: AnySource) -> Tuple[Dict[str, Any], List[Any]]:
    """Return the values of the command's own options, and the remaining given ones."""
    if not isinstance(source, Source):
        source = Source(source)
    values: Dict[str, Any] = {}
    spelt: Dict[str, str] = {}
    others: List[Given] = []
    for spelling, value in source.values.items():
        item: Optional[Declared] = common_option(options_class, spelling)
        origin = source.origins.get(spelling, "")
        if item is None:
            others.append(Given(spelling, builtin(value), origin, source.shipped))
            continue
        if item.name in values:
            where = f" ({origin})" if origin else ""
            raise UsageError(f"{spelling!r} and {spelt[item.name]!r} are spellings of one "
                             f"option{where}", "keep one of them")
        values[item.name], spelt[item.name] = item.coerce(value, origin), spelling
    return values, others


def _unknown(options_class: type, spelling: str, where: str) -> UsageError:
    flags = [flag.lstrip("-") for item in common_options(options_class) for flag in item.flags]
    return UsageError(f"unknown option {spelling!r}{where}",
                      did_you_mean(spelling.lstrip("-"), flags)
                      or "the command's '--help' lists its options")
