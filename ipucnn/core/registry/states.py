"""The records of one kind: constant-time look-up by name, and their states."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple

from ipucnn.core.names import close_matches, key, printable
from ipucnn.core.registry.contract import SUPPORTED, PluginSpec
from ipucnn.core.registry.discovery import LOCAL, Provider
from ipucnn.core.registry.kinds import KINDS, Kind
from ipucnn.core.registry.loading import Problem, State, remedy_for
from ipucnn.core.registry.targets import missing_requirements

_KIND_OF_PREFIX = {kind.prefix: kind for kind in KINDS.values()}

MOST_NAMED = 3
"""Maximum number of other distributions that a conflict names."""


@dataclass(frozen=True)
class Row:
    """One line of a listing: a record, or a plugin or record that cannot be used.

    `cause` and `remedy` are printable; the other texts are unmodified.

    Attributes:
        kind: the kind's name; empty when the kind of a broken plugin is not known.
        name: the record's name, or the entry point's.
        provider: its distribution and entry point.
        state: one of the six states.
        spec: the record; None when there is none.
        cause: why it is not `ok`; also set if a built-in plugin has the name of an alias.
        remedy: how to fix it.
    """

    kind: str
    name: str
    provider: Provider
    state: State
    spec: Optional[PluginSpec] = None
    cause: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Record:
    """A record and its entry point.

    Attributes:
        provider: the entry point.
        spec: the record.
        keys: its spellings in look-up form, that of its name first.
    """

    provider: Provider
    spec: PluginSpec
    keys: Tuple[str, ...]

    @property
    def supported(self) -> bool:
        """Whether it was written for a record contract that this ipucnn supports."""
        return self.spec.api_version in SUPPORTED


class Records:
    """The records of one kind that were loaded so far.

    Attributes:
        kind: the kind.
        all: the records in the order of loading.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.all: List[Record] = []
        self._named: Dict[str, List[Record]] = {}
        self._spelled: Dict[str, List[Record]] = {}
        self._builtin_keys: Set[str] = set()
        self._distributions: Set[str] = set()

    def add(self, provider: Provider, spec: PluginSpec) -> None:
        """Add a record.

        A record that a distribution provides twice unchanged (a module with two names, a reload)
        is added once.
        """
        record = Record(provider, spec, spec.keys)
        named = self._named.setdefault(record.keys[0], [])
        if any(other.spec == spec and other.provider.distribution == provider.distribution
               for other in named):
            return
        named.append(record)
        for spelling in set(record.keys):
            self._spelled.setdefault(spelling, []).append(record)
        if provider.builtin and record.supported:
            self._builtin_keys.update(record.keys)
        self._distributions.add(provider.distribution)
        self.all.append(record)

    def meant_by(self, name: str,
                 allowed: Optional[Callable[[Provider], bool]] = None) -> List[Record]:
        """Return the records called `name`; more than one if it is ambiguous.

        Names take precedence over aliases, and supported records over others.

        Args:
            name: a name or alias without a distribution.
            allowed: whether to consider a provider; all are considered when None.
        """
        wanted = key(name)
        for index in (self._named, self._spelled):
            found = [record for record in index.get(wanted, ())
                     if allowed is None or allowed(record.provider)]
            if found:
                return [record for record in found if record.supported] or found[:1]
        return []

    def of_distribution(self, distribution: str, name: str) -> List[Record]:
        """Return the records of ``distribution:name``.

        The other names of a provider (`Provider.answers_to`) are accepted as well, unless a
        distribution has that name.
        """
        exact = any(Provider(given, "", "", "").is_distribution(distribution)
                    for given in self._distributions)
        return self.meant_by(name, lambda provider: provider.is_distribution(distribution)
                             if exact else provider.answers_to(distribution))

    def qualified(self, record: Record) -> str:
        """Return the shortest qualified name that identifies `record` uniquely."""
        provider = record.provider
        same = any(other.provider.distribution == provider.distribution
                   for other in self._rivals(record))
        owner = provider.entry_point if same else provider.distribution
        return f"{owner}:{record.spec.name}"

    def without(self, record: Record) -> str:
        """Return how to run without the plugin of a record, for hints."""
        if record.provider.entry_point == LOCAL:
            return printable(f"leave out '{LOCAL} {record.provider.value}'")
        owner = self.qualified(record).rpartition(":")[0]
        return printable(f"run with '--no-plugins={owner}'")

    def close_to(self, name: str) -> List[str]:
        """Return up to three names that `name` may be a misspelling of, qualified where needed.

        A name without a namespace is also compared with the last part of names that have one.
        """
        meanings: Dict[str, List[str]] = {}
        for record in self.all:
            for spelling in (record.spec.name, *record.spec.aliases):
                meanings.setdefault(spelling, []).append(spelling)
                if "/" in spelling and "/" not in name:
                    meanings.setdefault(spelling.rpartition("/")[2], []).append(spelling)
        found: Dict[str, None] = {}
        for match in close_matches(name, meanings):
            for spelling in dict.fromkeys(meanings[match]):
                for record in self.meant_by(spelling):
                    conflict = self._state(record)[0] is State.CONFLICT
                    found[self.qualified(record) if conflict else record.spec.name] = None
        return list(found)[:3]

    def row(self, record: Record, options_problem: Callable[[Record], str]) -> Row:
        """Return a record with its state.

        Args:
            record: one of the records.
            options_problem: returns why the record's options class cannot be used, or an empty
                string; only called for records that can be used otherwise.
        """
        state, cause, remedy = self._state(record)
        if state is State.OK:
            problem = options_problem(record)
            if problem:
                state, cause, remedy = State.FAILED, problem, remedy_for(record.provider)
        return Row(self.kind.name, record.spec.name, record.provider, state, record.spec,
                   printable(cause), printable(remedy))

    def _state(self, record: Record) -> Tuple[State, str, str]:
        spec, provider = record.spec, record.provider
        if not record.supported:
            return (State.INCOMPATIBLE,
                    f"written for record contract {spec.api_version}; this ipucnn supports "
                    + ", ".join(map(str, sorted(SUPPORTED))),
                    "upgrade ipucnn" if spec.api_version > max(SUPPORTED)
                    else f"upgrade {provider.distribution}")
        if not provider.builtin and record.keys[0] in self._builtin_keys:
            return (State.CONFLICT, f"{spec.name!r} is a built-in name",
                    f"use {self.qualified(record)!r}")
        rivals = [] if provider.builtin else list(islice(self._rivals(record), MOST_NAMED + 1))
        if rivals:
            labels = ", ".join(other.provider.label for other in rivals[:MOST_NAMED])
            if len(rivals) > MOST_NAMED:
                labels += " and others"
            return (State.CONFLICT, f"{spec.name!r} is also provided by {labels}",
                    f"use {self.qualified(record)!r}")
        if missing_requirements(spec):
            return State.UNAVAILABLE, missing_in_words(spec), install_commands(spec)
        if not provider.builtin:
            for alias, spelling in zip(spec.aliases, record.keys[1:]):
                if spelling in self._builtin_keys:
                    return (State.OK, f"its alias {alias!r} is a built-in name and is not used",
                            "")
        return State.OK, "", ""

    def _rivals(self, record: Record) -> Iterator[Record]:
        """Yield the other usable records of the same name."""
        return (other for other in self._named[record.keys[0]]
                if other is not record and other.supported)


def kind_of(provider: Provider) -> Optional[Kind]:
    """Return the kind that the entry point's name begins with (``models.tinynet``), or None."""
    prefix, _, name = provider.entry_point.partition(".")
    return _KIND_OF_PREFIX.get(prefix) if name else None


def problem_row(provider: Provider, problem: Problem) -> Row:
    """Return the row of a plugin, hook or record that cannot be used."""
    kind = kind_of(provider)
    if provider.entry_point == LOCAL:
        shown = provider.value
    else:
        shown = provider.entry_point.partition(".")[2] if kind else provider.entry_point
    return Row(problem.kind or (kind.name if kind else ""), problem.name or shown, provider,
               problem.state, None, problem.cause, problem.remedy)


def missing_modules(spec: PluginSpec) -> str:
    """Return the required modules that are not installed, for messages."""
    return ", ".join(repr(requirement.module) for requirement in missing_requirements(spec))


def missing_in_words(spec: PluginSpec) -> str:
    """Return the missing requirements of a record: modules, or the product that contains them.

    For example "not installed, needs the Poplar SDK".
    """
    missing = missing_requirements(spec)
    products = dict.fromkeys(one.part_of for one in missing if one.part_of)
    modules = [repr(one.module) for one in missing if not one.part_of]
    if products:
        return "not installed, needs " + " and ".join([*products, *modules])
    return f"needs {', '.join(modules)}, which {'is' if len(modules) == 1 else 'are'} not installed"


def install_commands(spec: PluginSpec) -> str:
    """Return the commands that install missing modules, printable."""
    return printable("; ".join(dict.fromkeys(
        requirement.install for requirement in missing_requirements(spec))))
