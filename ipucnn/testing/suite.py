"""What all conformance suites share: the record, exclusions, and a life without pytest."""

from __future__ import annotations

import inspect
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Type
from unittest import SkipTest

from ipucnn.core.errors import UnavailableError
from ipucnn.core.registry import registry as registries
from ipucnn.core.registry.records import PluginSpec
from ipucnn.core.registry.registry import Registry


class ConformanceError(AssertionError):
    """A plugin does not keep the contract of its kind."""


def require(holds: bool, complaint: str) -> None:
    """Raise `ConformanceError` with `complaint` unless `holds`."""
    if not holds:
        raise ConformanceError(complaint)


class Suite:
    """The checks of one record.

    A kind's suite is inherited in three lines::

        from ipucnn.testing import ModelSuite

        class TestTinyNet(ModelSuite):
            name = "tinynet"

    Attributes:
        name: the record, as on the command line; ``distribution:name`` is safest.
        exclude: names of checks that are not made, each with the reason.
        registry: where the record is looked up; that of the process when None.
    """

    name: str = ""
    exclude: ClassVar[Mapping[str, str]] = {}
    registry: ClassVar[Optional[Registry]] = None

    def setup_method(self, method: Callable[[], None]) -> None:
        """Skip an excluded check; pytest and `run` call this before each."""
        unknown = set(self.exclude) - set(checks(type(self)))
        require(not unknown, f"'exclude' names no check of this suite: {sorted(unknown)}")
        reason = self.exclude.get(method.__name__)
        if reason is not None:
            raise SkipTest(f"excluded: {reason}")

    @property
    def used_registry(self) -> Registry:
        """The registry in use."""
        return self.registry or registries.registry()

    @property
    def spec(self) -> PluginSpec:
        """The record under test."""
        raise NotImplementedError  # each kind's suite knows the type of its records

    def target(self) -> Callable[..., Any]:
        """Return the record's implementation; skips the check when a requirement is missing."""
        try:
            return self.used_registry.resolve(self.spec)
        except UnavailableError as error:
            raise SkipTest(f"not usable here: {error.message}") from error

    def test_target_resolves(self) -> None:
        """The target can be imported and called."""
        require(callable(self.target()), f"{self.spec.target!r} is not callable")

    def accepts(self, *positional: Any, **keywords: Any) -> None:
        """Require that the target can be called with these arguments."""
        try:
            inspect.signature(self.target()).bind(*positional, **keywords)
        except TypeError as error:
            raise ConformanceError(f"{self.spec.target!r} does not take what its record declares: "
                                   f"{error}") from error


def checks(suite: Type[Suite]) -> List[str]:
    """Return the names of a suite's checks, the common ones first."""
    names: List[str] = []
    for cls in reversed(suite.__mro__):
        names += [name for name in vars(cls) if name.startswith("test_") and name not in names]
    return names


def run(suite: Type[Suite]) -> Dict[str, str]:
    """Make all checks of a suite, as pytest would.

    Returns:
        For each check "passed", "skipped: reason", or the error in one line.
    """
    results: Dict[str, str] = {}
    for name in checks(suite):
        instance = suite()
        try:
            instance.setup_method(getattr(instance, name))
            getattr(instance, name)()
            results[name] = "passed"
        except SkipTest as skipped:
            results[name] = f"skipped: {skipped}"
        except (Exception, SystemExit) as error:
            results[name] = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    return results
