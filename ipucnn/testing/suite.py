"""Base of the conformance suites: the record, exclusions, and running without pytest."""

from __future__ import annotations

import inspect
import random
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Tuple, Type
from unittest import SkipTest

from ipucnn.core.errors import IpucnnError, UnavailableError
from ipucnn.core.options.assignment import owned_by
from ipucnn.core.options.composition import CommandOptions
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.options.owners import check_names, owner_of, spellings_of
from ipucnn.core.registry import registry as registries
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import Registry
from ipucnn.testing.option_references import problems


class ConformanceError(AssertionError):
    """A plugin violates the contract of its kind."""


def require(holds: bool, complaint: str) -> None:
    """Raise `ConformanceError` with `complaint` unless `holds`."""
    if not holds:
        raise ConformanceError(complaint)


class Checks:
    """A set of checks, run by pytest or by `run`.

    Attributes:
        exclude: names of checks to skip, each with the reason.
    """

    exclude: ClassVar[Mapping[str, str]] = {}

    def setup_method(self, method: Callable[[], None]) -> None:
        """Skip an excluded check; pytest and `run` call this before each."""
        unknown = set(self.exclude) - set(checks(type(self)))
        require(not unknown, f"'exclude' names no check of this suite: {sorted(unknown)}")
        reason = self.exclude.get(method.__name__)
        if reason is not None:
            raise SkipTest(f"excluded: {reason}")


class Suite(Checks):
    """The checks of one record.

    Derive from the suite of a kind::

        from ipucnn.testing import ModelSuite

        class TestTinyNet(ModelSuite):
            name = "tinynet"

    Attributes:
        name: the record, as on the command line; ``distribution:name`` is safest.
        options: values of the record's own options by name, for the checks; the others have
            their defaults.
        registry: where the record is looked up; None for that of the process.
    """

    name: str = ""
    options: ClassVar[Mapping[str, Any]] = {}
    registry: ClassVar[Optional[Registry]] = None

    @property
    def used_registry(self) -> Registry:
        """The registry in use."""
        return self.registry or registries.registry()

    @property
    def spec(self) -> PluginSpec:
        """The record under test."""
        raise NotImplementedError  # the suite of each kind returns the type of its records

    def target(self) -> Callable[..., Any]:
        """Return the record's implementation; skips the check when a requirement is missing."""
        try:
            return self.used_registry.resolve(self.spec)
        except UnavailableError as error:
            raise SkipTest(f"not usable here: {error.message}") from error

    @property
    def kind(self) -> str:
        """The kind of the record."""
        return next(kind.name for kind in KINDS.values() if isinstance(self.spec, kind.record))

    def chosen_options(self) -> Any:
        """Return an instance of the record's options class, or None when it has none."""
        owned = owned_by(self.kind, self.spec, self.options, self.used_registry)
        return owned.of(self.kind, self.spec.name)

    def made(self, *positional: Any, **keywords: Any) -> Any:
        """Call the target with these arguments and with `chosen_options`."""
        self.target()
        return self.used_registry.make(self.spec, *positional, options=self.chosen_options(),
                                       **keywords)

    def arguments(self) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
        """Return the arguments of the target other than its options; none by default."""
        return (), {}

    def exercise(self) -> None:
        """Call the target, as a run does."""
        positional, keywords = self.arguments()
        self.made(*positional, **keywords)

    def test_target_resolves(self) -> None:
        """The target can be imported and called."""
        require(callable(self.target()), f"{self.spec.target!r} is not callable")

    def test_options_are_valid(self) -> None:
        """The options class can be used: types, defaults, help, and the names it refers to."""
        owner = owner_of(KINDS[self.kind], self.spec, self.used_registry)
        if owner is None:
            require(not self.options, f"the record has no options, and the suite sets "
                                      f"{sorted(self.options)}")
            return
        spellings: List[str] = []
        for item in declared(owner.options):
            require(bool(item.option.help.strip()), f"option '{item.flag}' has no help")
            self._check_default(item)
            for flag in item.flags:
                own = spellings_of(item, flag)
                require(flag.startswith("--") and not set(own) & set(spellings),
                        f"{flag!r} of option '{item.flag}' is not a flag of its own")
                spellings += own
        commands = _commands(self.kind)
        for command in commands:
            check_names(owner, command, self.used_registry)
        for item in declared(owner.options):
            problem = next(problems(owner, item, commands, self.used_registry), "")
            require(not problem, problem)

    def _check_default(self, item: Declared) -> None:
        try:
            same = item.coerce(item.default) == item.default
        except IpucnnError as error:
            raise ConformanceError(f"the default of option '{item.flag}' is not allowed: "
                                   f"{error}") from error
        require(same, f"the default of option '{item.flag}', {item.default!r}, is not of its type")

    def test_takes_its_declared_options(self) -> None:
        """The target can be called as ipucnn calls it, with the record's options if it has any."""
        positional, keywords = self.arguments()
        options = self.chosen_options()
        if options is not None:
            keywords["options"] = options
        try:
            inspect.signature(self.target()).bind(*positional, **keywords)
        except TypeError as error:
            raise ConformanceError(f"{self.spec.target!r} does not take what its record declares: "
                                   f"{error}") from error

    def test_uses_nothing_deprecated(self) -> None:
        """The record uses no deprecated part of the record contract; otherwise it is skipped."""
        if self.spec.deprecated:
            raise SkipTest("; ".join(map(str, self.spec.deprecated)))

    def test_it_sets_no_random_seed(self) -> None:
        """Calling the target may draw random numbers, but does not set a random seed."""
        import numpy
        import torch

        def draws() -> Dict[str, float]:
            return {"Python's": random.random(), "numpy's": float(numpy.random.random()),
                    "torch's": float(torch.rand(()))}

        before = random.getstate(), numpy.random.get_state()
        found = []
        try:
            with torch.random.fork_rng(devices=[]):
                for seed in (1, 2):
                    random.seed(seed)
                    numpy.random.seed(seed)
                    torch.manual_seed(seed)
                    self.exercise()
                    found.append(draws())
        finally:
            random.setstate(before[0])
            numpy.random.set_state(before[1])
        same = [name for name, value in found[0].items() if value == found[1][name]]
        require(not same, f"it sets the seed of {' and '.join(same)} generator: use a generator "
                "of its own")


def _commands(kind: str) -> List[Type[CommandOptions]]:
    """Return the options of all commands that accept those of a kind of plugins."""
    from ipucnn.benchmarking.options import BenchOptions
    from ipucnn.data.formats.convert_options import ConvertOptions
    from ipucnn.inference.options import RunOptions
    from ipucnn.onnx.options import ExportOptions
    from ipucnn.terminal.launch import LaunchOptions
    from ipucnn.training.options.stored_options import ValidateOptions
    from ipucnn.training.options.train_options import RestoreOptions, TrainOptions

    launchable: List[Type[CommandOptions]] = [
        RunOptions, TrainOptions, RestoreOptions, ValidateOptions]
    if kind in LaunchOptions.kinds:
        return [LaunchOptions, *launchable]
    commands: List[Type[CommandOptions]] = [
        *launchable, ExportOptions, ConvertOptions, BenchOptions]
    return [command for command in commands if kind in command.kinds]


def checks(suite: Type[Checks]) -> List[str]:
    """Return the names of a suite's checks, the common ones first."""
    names: List[str] = []
    for cls in reversed(suite.__mro__):
        names += [name for name in vars(cls) if name.startswith("test_") and name not in names]
    return names


def run(suite: Type[Checks]) -> Dict[str, str]:
    """Run all checks of a suite, as pytest would.

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
