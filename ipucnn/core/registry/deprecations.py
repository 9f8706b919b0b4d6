"""Deprecated parts of the record contract, and warnings for plugins that use them.

A part is deprecated in one version of the contract and removed with a later one. A record for the
earlier version (`api_version`) can still use it, with a warning that names its plugin; for a record
for the later version it is an error.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Sequence


class PluginDeprecationWarning(DeprecationWarning):
    """A plugin uses a deprecated part of the record contract; hidden by default by Python."""


@dataclass(frozen=True)
class Deprecation:
    """A deprecated part of the contract that a record uses.

    Attributes:
        what: the part, for example "the field 'parameters' of ScheduleSpec".
        ends: the version of the contract with which it is removed.
        instead: the replacement.
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
        who: the plugin, for the message.
        record: its kind and name.
        uses: see `PluginSpec.deprecated`.
    """
    for use in uses:
        warnings.warn(f"{who}: {record}: {use}", PluginDeprecationWarning, stacklevel=2)
