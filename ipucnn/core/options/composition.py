"""Composes a command's options from its own parts and those of the selected plugins.

A command's options class derives from `CommandOptions`. Its fields are *parts*: small frozen
dataclasses of options that check themselves, so that a function takes only the part it needs. For
every kind in `kinds`, the plugins that the options select add the options of their records
(`PluginOptions`). Flags, profile keys, keyword arguments of the Python interface and saved options
are flat: one name, one value.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field, replace
from typing import (
    TYPE_CHECKING,
    AbstractSet,
    Any,
    ClassVar,
    Collection,
    Dict,
    FrozenSet,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
)

from ipucnn.core.names import flag_of, key, without_secrets
from ipucnn.core.options.declaration import declared, once_per_class, spellings
from ipucnn.core.options.declared_option import Declared

if TYPE_CHECKING:
    from ipucnn.core.registry.registry import Registry

OptionsT = TypeVar("OptionsT", bound="CommandOptions")
PartT = TypeVar("PartT")


def part(options_class: Type[PartT]) -> PartT:
    """Declare a part of a command's options as a field of its class."""
    made: PartT = field(default_factory=options_class, metadata={"part": options_class})
    return made


@dataclass(frozen=True)
class Given:
    """The value of an option that is not one of the command's own.

    Attributes:
        spelling: the spelling as given.
        value: the value as given.
        origin: its source, for messages.
        shipped: its source is a shipped profile, which is for all backends.
    """

    spelling: str
    value: Any
    origin: str = ""
    shipped: bool = False

    @property
    def flag(self) -> str:
        """Its spelling on the command line."""
        return flag_of(self.spelling.lstrip("-"))

    @property
    def bare(self) -> str:
        """Its spelling without the qualifier (``beta2`` of ``optimizer.beta2``)."""
        return self.spelling.lstrip("-").rpartition(".")[2]

    @property
    def qualifier(self) -> str:
        """The owner named in its spelling (``optimizer``); empty if there is none."""
        return self.spelling.lstrip("-").rpartition(".")[0]

    @property
    def where(self) -> str:
        """Its origin in brackets, or an empty string."""
        return f" ({self.origin})" if self.origin else ""


def in_options(plugin: str) -> str:
    """Return a plugin's name for flags, where a slash would separate the two forms of a flag."""
    return key(plugin).replace("/", "-")


@dataclass(frozen=True)
class PluginOptions:
    """The options of the selected plugins.

    Attributes:
        owned: an instance of the options class of every selected record that has one, by kind and
            record name.
        deferred: options given before the plugin is selected, such as those of backends with
            `--backend auto`, and all options given to a command that `defers`.
        undecided: the declarations of the deferred options, by name.
        shipped: names of the deferred options whose value is that of a shipped profile.
        left_out: names of options of a shipped profile that the selected backend lacks.
    """

    owned: Mapping[Tuple[str, str], Any] = field(default_factory=dict)
    deferred: Mapping[str, Any] = field(default_factory=dict)
    undecided: Mapping[str, Declared] = field(default_factory=dict)
    shipped: FrozenSet[str] = frozenset()
    left_out: Tuple[str, ...] = ()

    def of(self, kind: str, name: str) -> Any:
        """Return the options of the record `name` of a kind, or None when it has none."""
        return self.owned.get((kind, name))

    def value(self, name: str) -> Any:
        """Return the value of the option called `name` of any selected plugin, or None."""
        found = {item.name: value for _, item, value in self.declared()}
        return {**found, **self.deferred}.get(name)

    def given(self, role: str) -> Dict[str, Any]:
        """Return the options with a role (`Option.role`) that are not at their default, by name."""
        rows = [(item, value) for _, item, value in self.declared()]
        rows += [(item, self.deferred[name]) for name, item in self.undecided.items()]
        return {item.name: value for item, value in rows
                if item.option.role == role and value != item.default}

    def without(self, names: Collection[str]) -> PluginOptions:
        """Return a copy without some deferred options."""
        return replace(
            self, shipped=self.shipped - set(names),
            deferred={name: value for name, value in self.deferred.items() if name not in names},
            undecided={name: item for name, item in self.undecided.items() if name not in names})

    def declared(self) -> Iterator[Tuple[str, Declared, Any]]:
        """Yield the kind, declaration and value of every option of the selected plugins."""
        for (kind, _), options in self.owned.items():
            for item in declared(type(options)):
                yield kind, item, getattr(options, item.name)

    def items(self, without: Sequence[str] = ()) -> Iterator[Tuple[str, Declared, Any]]:
        """Yield the flat name, declaration and value of every option.

        A name that two selected plugins use appears in its qualified spelling
        (``optimizer.beta2``, or ``logger.files.x`` if both are of one kind).

        Args:
            without: kinds to leave out.
        """
        from ipucnn.core.registry.kinds import KINDS

        rows = [(kind, plugin, item, getattr(options, item.name))
                for (kind, plugin), options in self.owned.items() if kind not in without
                for item in declared(type(options))]
        names = [item.name for _, _, item, _ in rows]
        of_kinds = [(kind, item.name) for kind, _, item, _ in rows]
        for kind, plugin, item, value in rows:
            qualifier = f"{KINDS[kind].selector}." if names.count(item.name) > 1 else ""
            if of_kinds.count((kind, item.name)) > 1:
                qualifier += f"{in_options(plugin)}."
            yield qualifier + item.name, item, value

    def as_dict(self, without: Sequence[str] = ()) -> Dict[str, Any]:
        """Return the options as plain types by flat name, `without` some kinds."""
        deferred = {} if "backend" in without else self.deferred
        return {**{name: _plain(value) for name, _, value in self.items(without)},
                **{name: _plain(value) for name, value in deferred.items()}}


@dataclass(frozen=True)
class CommandOptions:
    """Base of the options of a command; its other fields are parts, created by `part`.

    Attributes:
        plugins: the options of the selected plugins.
        shipped: names of common options whose value is that of a shipped profile.
        left_out: names of options of that profile that are not used.
        given: names of the common options that any source gives, those of profiles included.
        command: the command whose profiles it reads.
        dependent: names of common options whose default depends on other options.
        kinds: the kinds of plugins whose options the command accepts.
        job: `inference`, `training` or `validation`, for options that do not apply to all of
            them; empty when the command does none of them.
        defers: options that are not given are resolved later, from a checkpoint; given plugin
            options are then kept as they are, without defaults for the others.
    """

    plugins: PluginOptions = field(default_factory=PluginOptions)
    shipped: FrozenSet[str] = frozenset()
    left_out: Tuple[str, ...] = ()
    given: FrozenSet[str] = field(default=frozenset(), compare=False)

    command: ClassVar[str] = ""
    dependent: ClassVar[Tuple[str, ...]] = ()
    kinds: ClassVar[Tuple[str, ...]] = ()
    job: ClassVar[str] = ""
    defers: ClassVar[bool] = False

    @classmethod
    def unsuited(cls, profile: Mapping[str, Any],  # noqa: ARG003 - for classes that override it
                 given: Mapping[str, Any],  # noqa: ARG003 - likewise
                 registry: Registry) -> Tuple[str, ...]:  # noqa: ARG003 - likewise
        """Return the common options of a shipped profile that do not suit what else is given.

        Args:
            profile: values of the profile by name.
            given: values of later sources.
            registry: where names are looked up.
        """
        return ()

    @classmethod
    def implied(cls, names: AbstractSet[str]) -> AbstractSet[str]:
        """Return the names of given common options, with those that some of them stand for."""
        return names

    @classmethod
    def combined(cls, sources: Sequence[Dict[str, Any]],
                 others: List[List[Given]],  # noqa: ARG003 - for classes that override it
                 registry: Registry) -> Dict[str, Any]:  # noqa: ARG003 - likewise
        """Return the merged values of the common options; later sources override earlier ones.

        A class overrides this if some of its options stand for others.

        Args:
            sources: values by name.
            others: the remaining values of each source; an override may add to them.
            registry: where names are looked up.
        """
        return {name: value for source in sources for name, value in source.items()}

    def get(self, name: str) -> Any:
        """Return the value of a common option by its flat name."""
        return getattr(getattr(self, _homes(type(self))[name]), name)

    def with_values(self: OptionsT, **values: Any) -> OptionsT:
        """Return a copy with other values of common options, given by flat name."""
        homes = _homes(type(self))
        changes: Dict[str, Any] = {}
        for home in dict.fromkeys(homes[name] for name in values):
            changes[home] = replace(getattr(self, home), **{
                name: value for name, value in values.items() if homes[name] == home})
        return replace(self, **changes)

    def as_dict(self, without: Sequence[str] = ()) -> Dict[str, Any]:
        """Return the settings as plain types by flat name, ready to be saved and given to `build`.

        Args:
            without: kinds whose plugins' options are left out.
        """
        values = {item.name: _plain(self.get(item.name)) for item in common_options(type(self))
                  if not item.option.switch}
        return {**values, **self.plugins.as_dict(without)}

    def recorded(self) -> Dict[str, Any]:
        """Return the same for results, records and reports: URLs without user, password and query.

        A checkpoint contains the whole URLs, because a restored training needs them.
        """
        values: Dict[str, Any] = without_secrets(self.as_dict())
        return values


@once_per_class
def parts(options_class: type) -> Mapping[str, type]:
    """Return the parts of a command's options by field name; empty for a plain dataclass."""
    return {item.name: item.metadata["part"] for item in dataclasses.fields(options_class)
            if "part" in item.metadata}


@once_per_class
def common_options(options_class: type) -> Tuple[Declared, ...]:
    """Return the options that a command declares itself, in the order of its parts."""
    if not issubclass(options_class, CommandOptions):
        return declared(options_class)
    return tuple(item for kind in parts(options_class).values() for item in declared(kind))


@once_per_class
def common_spellings(options_class: type) -> Mapping[str, Declared]:
    """Return a command's own options by every spelling, normalised by `key`."""
    if not issubclass(options_class, CommandOptions):
        return spellings(options_class)
    return {spelling: item for kind in reversed(list(parts(options_class).values()))
            for spelling, item in spellings(kind).items()}


def common_option(options_class: type, spelling: str) -> Optional[Declared]:
    """Return a command's own option by `spelling`, with or without dashes."""
    return common_spellings(options_class).get(key(spelling.lstrip("-")))


def changed(options: Any) -> List[Declared]:
    """Return the common options whose value differs from their default."""
    read = options.get if isinstance(options, CommandOptions) else functools.partial(
        getattr, options)
    return [item for item in common_options(type(options)) if read(item.name) != item.default]


def settings(options: CommandOptions) -> Dict[str, Tuple[Declared, Any]]:
    """Return the declaration and value of every option by flat name, plugins' included.

    Deferred options are left out: they have no owner yet.
    """
    found = {item.name: (item, options.get(item.name)) for item in common_options(type(options))}
    found.update((name, (item, value)) for name, item, value in options.plugins.items())
    return found


def default_of(options_class: type, name: str) -> Any:
    """Return the default of one of a command's own options."""
    return common_spellings(options_class)[key(name)].default


def as_dict(options: Any) -> Dict[str, Any]:
    """Return the settings of any options as plain types by flat name."""
    if isinstance(options, CommandOptions):
        return options.as_dict()
    return {item.name: _plain(getattr(options, item.name)) for item in declared(type(options))
            if not item.option.switch}


@once_per_class
def _homes(options_class: type) -> Mapping[str, str]:
    """Return the part of every common option by flat name."""
    return {item.name: name for name, kind in parts(options_class).items()
            for item in declared(kind)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
