"""Imports the Poplar SDK's Python modules, and checks their releases."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any, Callable, Optional, Tuple

from ipucnn.core.errors import UnavailableError

OLDEST, NEWEST = (3, 3), (3, 4)
"""The supported releases of the SDK; both have the same interface."""

SUPPORTED = tuple(".".join(map(str, release)) for release in (OLDEST, NEWEST))


@dataclass(frozen=True)
class Library:
    """A Python module of the SDK.

    Attributes:
        name: of the module.
        attribute: an attribute by which Graphcore's module is recognised, because package indexes
            have other modules of that name.
        install: how it is installed.
        version: returns the version of the imported module.
        unimportable: returns the error for a module that does not import.
    """

    name: str
    attribute: str
    install: str
    version: Callable[[Any], str]
    unimportable: Callable[[Exception], UnavailableError]

    def load(self) -> Any:
        """Import and return the module.

        Raises:
            UnavailableError: it is missing, does not import in this environment, is too old, or is
                another module of that name.
        """
        try:
            module = importlib.import_module(self.name)
        except ModuleNotFoundError as error:
            if error.name == self.name:
                raise UnavailableError(f"{self.name!r} is not installed", self.install) from error
            raise self.unimportable(error) from error
        except Exception as error:  # an assertion on torch's version, a library that is not found
            raise self.unimportable(error) from error
        if not hasattr(module, self.attribute):
            raise UnavailableError(
                f"the module {self.name!r} of {getattr(module, '__file__', None)} is not "
                "Graphcore's", f"'pip uninstall {self.name}' removes it. {self.install}")
        release = release_of(self.version(module))
        if release is not None and release < OLDEST:
            raise UnavailableError(
                f"{self.name!r} is of version {self.version(module)}, and this backend needs "
                + " or ".join(SUPPORTED), self.install)
        return module

    def newer_note(self, module: Any) -> Tuple[str, ...]:
        """Return a note for a release newer than the supported ones, or nothing."""
        release = release_of(self.version(module))
        if release is not None and release <= NEWEST:
            return ()
        return (f"{self.name!r} is of version {self.version(module)}; this backend was written for "
                + " or ".join(SUPPORTED),)


def release_of(version: str) -> Optional[Tuple[int, int]]:
    """Return major and minor number of a version, or None without them."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match.group(1)), int(match.group(2))) if match else None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type."""
    lines = str(getattr(error, "message", "") or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
