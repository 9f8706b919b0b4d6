"""Deprecations of the record contract: who uses what, and until when it is accepted.

A part of the contract is deprecated in one version and ends with a later one. A record that states
the earlier version (`api_version`) may use it until then, with a warning that names its plugin; a
record that states the later version may not.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Sequence


class PluginDeprecationWarning(DeprecationWarning):
    """A plugin uses a part of the record contract that will end; Python hides it by default."""


@dataclass(frozen=True)
class Deprecation:
    """A deprecated part of the contract that a record uses.

    Attributes:
        what: the part, for example "the field 'parameters' of ScheduleSpec".
        ends: the version of the contract that no longer has it.
        instead: what to do.
    """

    what: str
    ends: int
    instead: str

    def __str__(self) -> str:
        return (f"{self.what} is deprecated and ends with record contract {self.ends}: "
                f"{self.instead}")


def announce(who: str, record: str, uses: Sequence[Deprecation]) -> None:
    """Emit a `PluginDeprecationWarning` for each deprecated part that a record uses.

    Args:
        who: its plugin, in words.
        record: its kind and name.
        uses: see `PluginSpec.deprecated`.
    """
    for use in uses:
        warnings.warn(f"{who}: {record}: {use}", PluginDeprecationWarning, stacklevel=2)
