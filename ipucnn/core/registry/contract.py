"""The base class of all records, and the version of their contract."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, fields
from typing import Any, Callable, Dict, Tuple, Union

from ipucnn.core.errors import PluginError
from ipucnn.core.names import key
from ipucnn.core.registry.deprecations import Deprecation

API_VERSION = 1
"""The newest version of the record contract.

A record that does not state a version was written for version 1.
"""

SUPPORTED = frozenset({1})
"""The versions of the record contract that this ipucnn supports."""

_PART = r"[a-z0-9][a-z0-9._-]*"

_NAME = re.compile(rf"{_PART}(/{_PART})*")

TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

Target = Union[str, Callable[..., Any]]


@dataclass(frozen=True)
class Requirement:
    """A module that must be importable, and the command that installs it.

    Attributes:
        module: the name of the module.
        install: the command that installs it, or the steps if there is no such command.
        part_of: the product that contains it, such as "the Poplar SDK"; empty for a
            package of a package index.
    """

    module: str
    install: str
    part_of: str = ""


@dataclass(frozen=True)
class PluginSpec:
    """Base of all records.

    Attributes:
        name: the canonical name in lower case, with an optional namespace (``"timm/resnet50"``).
        summary: one line for listings.
        target: the implementation, ``"module:attribute"`` or a callable; its signature depends on
            the kind.
        aliases: other accepted names.
        requires: modules that the target needs beyond the dependencies of ipucnn.
        api_version: the version of the record contract that the record was written for.
        options: a frozen dataclass with fields created by `ipucnn.option`, or its
            ``"module:Class"``; the target receives an instance as the keyword argument
            ``options``. None if there are no options.
        checks: ``"module:attribute"`` of a function without arguments that returns the plugin's
            `ipucnn.plugin.Check`s for `ipucnn doctor`; may be empty. The function must not
            import the engine, because it is also called if requirements are missing. A function
            that several records name is called once.

    Raises:
        PluginError: a field has the wrong type or form.
    """

    name: str
    summary: str
    target: Target
    aliases: Tuple[str, ...] = ()
    requires: Tuple[Requirement, ...] = ()
    api_version: int = 1
    options: Union[str, type, None] = None
    checks: str = ""

    def __post_init__(self) -> None:
        self._check(isinstance(self.name, str) and bool(_NAME.fullmatch(self.name)), "name",
                    "lower-case letters, digits, '.', '_' and '-', with '/' after a namespace")
        self._check(isinstance(self.summary, str) and bool(self.summary.strip())
                    and "\n" not in self.summary, "summary", "one line of text")
        self._check(callable(self.target) or (isinstance(self.target, str)
                    and bool(TARGET.fullmatch(self.target))), "target",
                    "a callable or 'package.module:attribute'")
        self._check(type(self.api_version) is int, "api_version", "an integer")
        self._tuple_of(str, "aliases")
        self._check(all(_NAME.fullmatch(alias.lower()) for alias in self.aliases), "aliases",
                    "spellings made of letters, digits, '.', '_' and '-'")
        self._tuple_of(Requirement, "requires")
        if isinstance(self.options, tuple):  # the names that the first records listed
            if self.options:
                self._deprecate(f"a tuple as 'options' of {type(self).__name__}")
            object.__setattr__(self, "options", None)
        self._check(self.options is None
                    or (isinstance(self.options, type) and dataclasses.is_dataclass(self.options))
                    or (isinstance(self.options, str) and bool(TARGET.fullmatch(self.options))),
                    "options", "a dataclass or 'package.module:Class'")
        self._check(not self.checks or bool(TARGET.fullmatch(self.checks)), "checks",
                    "'package.module:attribute'")

    def _check(self, ok: bool, field_name: str, wanted: str) -> None:
        if not ok:
            raise PluginError(
                f"bad {type(self).__name__} {self.name!r}: {field_name} is "
                f"{getattr(self, field_name)!r}, expected {wanted}")

    def _tuple_of(self, item_type: type, field_name: str) -> None:
        value = getattr(self, field_name)
        self._check(isinstance(value, tuple) and all(isinstance(v, item_type) for v in value),
                    field_name, f"a tuple of {item_type.__name__}")

    def _deprecate(self, what: str, ends: int = 2,
                   instead: str = "declare a dataclass as 'options'") -> None:
        """Record the use of a deprecated part of the contract; raise an error if it was removed."""
        use = Deprecation(what, ends, instead)
        if ends <= self.api_version <= API_VERSION:
            raise PluginError(f"bad {type(self).__name__} {self.name!r}: {what} ended with record "
                              f"contract {ends}: {instead}")
        object.__setattr__(self, "_deprecated", (*self.deprecated, use))

    @property
    def deprecated(self) -> Tuple[Deprecation, ...]:
        """The deprecated parts of the contract that the record uses."""
        found: Tuple[Deprecation, ...] = getattr(self, "_deprecated", ())
        return found

    @property
    def keys(self) -> Tuple[str, ...]:
        """Every accepted spelling, in lookup form, the canonical one first."""
        return (key(self.name), *(key(alias) for alias in self.aliases))

    def facts(self) -> Dict[str, Any]:
        """The kind's own fields, for listings and `show`."""
        common = {f.name for f in fields(PluginSpec)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in common}


def check_names(record: PluginSpec, field_name: str, value: Any) -> None:
    """Raise an error for a value that version 1 of the contract did not allow."""
    if not isinstance(value, tuple) or not all(isinstance(name, str) for name in value):
        raise PluginError(f"bad {type(record).__name__} {record.name!r}: {field_name} is "
                          f"{value!r}, expected a tuple of str")
    if value:
        record._deprecate(f"the field {field_name!r} of {type(record).__name__}")
