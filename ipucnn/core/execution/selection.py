"""Selects and probes the backend of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Collection, List, Optional, Tuple

from ipucnn.core.errors import IpucnnError, PluginError, UnavailableError, UsageError
from ipucnn.core.execution.backend import Backend, Probe
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.launching import joined, launched
from ipucnn.core.execution.offers import check_offer, expected, lacks, not_owned, specs_of
from ipucnn.core.execution.plan import PRECISIONS, ExecutionPlan
from ipucnn.core.execution.session_checks import check_job
from ipucnn.core.names import described, flag_of, key
from ipucnn.core.options.assignment import options_for
from ipucnn.core.options.attributes import TRAINING, VALIDATION
from ipucnn.core.options.composition import CommandOptions
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.owners import AUTO, builtin_owners, owner_of
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.loading import GUARDED, cause_of
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import Registry


@dataclass(frozen=True)
class Chosen:
    """The backend of a run.

    Attributes:
        spec: its record.
        backend: the engine.
        probe: its probe on this machine.
        why: the reason for the choice of `--backend auto`; empty if the user named the backend.
        plugin: a third-party backend in words; what it returns is checked (`session_checks`).
    """

    spec: BackendSpec
    backend: Backend
    probe: Probe
    why: str = ""
    plugin: str = ""

    def join(self, plan: ExecutionPlan) -> Instances:
        """Connect the processes that share a plan, and return them.

        Args:
            plan: of all instances together; `check_offer` accepted it.

        Raises:
            UnavailableError: they cannot be connected.
            UsageError: their launcher does not support the plan.
        """
        launch = launched()
        if launch is None or (launch.count == 1 and not self.spec.instances):
            return ALONE
        return joined(plan)


def choose_backend(options: CommandOptions, plan: ExecutionPlan, registry: Registry,
                   without: Collection[str] = (), trains: bool = False) -> Chosen:
    """Return the backend named by `--backend`, or the best usable one for `auto`.

    `auto` considers only backends that own every backend option given.

    Args:
        options: of the command; they have an `execution` part and backends among their kinds.
        plan: what is to be executed.
        registry: where backends are looked up.
        without: backends that `auto` skips, because they cannot execute the network.
        trains: whether `auto` considers only backends that also train, so that results are
            comparable with those of a training.

    Raises:
        UnavailableError: it is not usable on this machine. No other one is substituted silently.
        UsageError: with `auto`, no backend supports the request.
    """
    name = options.get("backend")
    if key(name) != AUTO:
        spec = registry.get_typed(BackendSpec, name)
        chosen = probed(spec, options, plan, registry)
        if not chosen.probe.usable:
            usable = [other.spec.name for other in _all_probed(options, plan, registry)
                      if other.probe.usable and other.spec is not spec]
            raise UnavailableError(
                f"backend {spec.name!r} cannot be used here: {chosen.probe.reason}",
                "; ".join(part for part in (
                    chosen.probe.remedy,
                    f"here '--backend {usable[0]}' runs the same command" if usable else "")
                    if part))
        return chosen
    best, lacking, unusable = _best(options, plan, registry, without, trains)
    if best is None:
        raise _none_usable(options, unusable, registry)
    why = "selected as the best usable backend"
    passed_over = [spec.name for spec in lacking if expected(spec) > rank_of(best)]
    if passed_over:
        why += " (without a requested feature: " + ", ".join(passed_over) + ")"
    if unusable:
        why += " (not usable here: " + ", ".join(map(_unusable_name, unusable)) + ")"
    if best.spec in lacking and unusable:
        _check_offer_beside(options, plan, best.spec, unusable, registry)
    return replace(best, why=why)


def _unusable_name(chosen: Chosen) -> str:
    """Return the name of an unusable backend, with the reason where others do not expect it.

    That is where it is installed but fails, or where it foresees that this machine suits it: a
    forked process cannot use a GPU, for example.
    """
    name, reason = chosen.spec.name, chosen.probe.reason
    if isinstance(chosen.backend, _Failed):
        return f"{name}, which fails: {reason}"
    return f"{name}, because {reason}" if chosen.spec.foreseen and reason else name


def _check_offer_beside(options: CommandOptions, plan: ExecutionPlan, spec: BackendSpec,
                        unusable: List[Chosen], registry: Registry) -> None:
    """Check what a backend offers; the hint also names backends that would, but are unusable."""
    try:
        check_offer(options, plan, spec, registry)
    except UsageError as error:
        hint = "; ".join(filter(None, [error.hint, _reasons(unusable)]))
        raise UsageError(error.message, hint) from error


def _best(options: CommandOptions, plan: ExecutionPlan, registry: Registry,
          without: Collection[str], trains: bool) -> Tuple[
              Optional[Chosen], List[BackendSpec], List[Chosen]]:
    """Return the best usable backend, those that do not support the request, and unusable ones.

    Engines that are not expected to beat the best one found so far are not imported. If no backend
    supports the request, the best of them is returned: `check_offer` then reports what is missing.
    """
    specs = [spec for spec in specs_of(registry, training=plan.training)
             if spec.name not in without and (spec.training or not trains)
             and not not_owned(options, spec, registry)]
    lacking = [spec for spec in specs if lacks(options, plan, spec, registry)]
    best: Optional[Chosen] = None
    unusable: List[Chosen] = []
    for spec in [spec for spec in specs if spec not in lacking] or lacking:
        if best is not None and expected(spec) <= rank_of(best):
            break
        chosen = tried(spec, options, plan, registry)
        if not chosen.probe.usable:
            unusable.append(chosen)
        elif best is None or rank_of(chosen) > rank_of(best):
            best = chosen
    if best is None:
        best = next((chosen for chosen in (tried(spec, options, plan, registry)
                                           for spec in lacking) if chosen.probe.usable), None)
    return best, lacking, unusable


def _none_usable(options: CommandOptions, unusable: List[Chosen],
                 registry: Registry) -> IpucnnError:
    """Return the error for `auto` without a usable backend that owns the given options."""
    reasons = _reasons(unusable)
    given = list(options.plugins.deferred)
    if not given:
        return UnavailableError("no backend can be used for this", reasons)
    owners = [(name, [owner.spec.name for owner in builtin_owners(["backend"], registry)
                      if owner.option(name, options.job)]) for name in given]
    flags = "; ".join(f"'{flag_of(name)}' is an option of "
                      f"{'backends' if len(names) > 1 else 'backend'} {', '.join(names)}"
                      for name, names in owners)
    if not unusable:
        return UsageError(f"no backend has all options given: {flags}",
                          "leave some out, or choose a backend with '--backend'")
    away = " ".join(flag_of('no_' + name) for name in given
                    if options.plugins.deferred[name] is True)
    if options.get("config") and away:
        reasons = f"leave it out, or add '{away}' if the profile sets it; {reasons}"
    return UnavailableError(f"{flags}, and no such backend can be used here", reasons)


def _reasons(unusable: List[Chosen]) -> str:
    """Return why backends are not usable, and what to do about it."""
    return "; ".join(": ".join(filter(None, (chosen.spec.name, chosen.probe.reason,
                                             chosen.probe.remedy))) for chosen in unusable)


def rank_of(chosen: Chosen) -> int:
    """Return the preference of a probed backend for `--backend auto`."""
    rank = chosen.probe.preference
    return chosen.spec.preference if rank is None else rank


def settled(chosen: Chosen, plan: ExecutionPlan) -> Tuple[Chosen, ExecutionPlan]:
    """Return the backend and the plan in the precision that suits the device.

    For plans whose precision the user left open.
    """
    plan = replace(plan, precision=chosen.backend.probe_for(plan).precision)
    return replace(chosen, probe=chosen.backend.probe_for(plan)), plan


def others_can(options: CommandOptions, plan: ExecutionPlan, registry: Registry,
               without: Collection[str]) -> bool:
    """Return whether a usable built-in backend not among `without` supports the request."""
    return any(chosen.probe.usable and chosen.spec.name not in without
               for chosen in _all_probed(options, plan, registry))


def any_usable(options: CommandOptions, plan: ExecutionPlan, registry: Registry,
               without: Collection[str] = ()) -> bool:
    """Return whether `--backend auto` finds a usable backend that has all options given."""
    return _best(options, plan, registry, without, False)[0] is not None


def probed(spec: BackendSpec, options: CommandOptions, plan: ExecutionPlan,
           registry: Registry) -> Chosen:
    """Return a backend with its given options, and its probe for a plan."""
    try:
        backend = registry.make_typed(Backend, spec,
                                      options=backend_options(spec, options, plan, registry))
    except UnavailableError as error:
        return Chosen(spec, _Absent(), Probe(usable=False, reason=error.message, remedy=error.hint))
    probe = backend.probe_for(plan)
    plugin = registry.in_words(spec)
    if not isinstance(probe, Probe):
        raise PluginError(f"the probe of {plugin} returned {described(probe)}, expected an object "
                          "of type 'Probe'")
    if registry.provider_of(spec).builtin:
        return Chosen(spec, backend, probe)
    for name, ok, wanted in (("notes", not isinstance(probe.notes, str), "a tuple of texts"),
                             ("precision", probe.precision in PRECISIONS, ", ".join(PRECISIONS))):
        if not ok:
            raise PluginError(f"{name!r} of the probe of {plugin} is {getattr(probe, name)!r}, "
                              f"expected {wanted}")
    if probe.usable:
        check_job(backend, spec, plan, plugin)
    return Chosen(spec, backend, probe, plugin=plugin)


def tried(spec: BackendSpec, options: CommandOptions, plan: ExecutionPlan,
          registry: Registry) -> Chosen:
    """Return the same for a backend that the user did not name; one that fails is not usable."""
    try:
        return probed(spec, options, plan, registry)
    except PluginError as error:
        reason, remedy = error.message, error.hint
    except IpucnnError:  # an option that the user gave
        raise
    except GUARDED as error:
        reason, remedy = cause_of(error), ""
    return Chosen(spec, _Failed(), Probe(usable=False, reason=reason, remedy=remedy))


def backend_options(spec: BackendSpec, options: CommandOptions, plan: ExecutionPlan,
                    registry: Registry) -> Any:
    """Return the backend's options; for the validation of a training, those that apply to it.

    Args:
        spec: the record of the backend.
        options: of the command.
        plan: what is executed.
        registry: where names are looked up.

    Returns:
        An instance of the options class of the record; None if it has none.
    """
    given = options.plugins.of("backend", spec.name)
    values = dict(options.plugins.deferred) if given is None else {
        item.name: getattr(given, item.name) for item in declared(type(given))}
    if options.job in (TRAINING, VALIDATION) and not plan.training:
        owner = owner_of(KINDS["backend"], spec, registry)
        values = {name: value for name, value in values.items()
                  if owner and (item := owner.option(name)) and item.option.validation}
    return options_for(spec, "backend", values, registry)


def validating(chosen: Chosen, options: CommandOptions, plan: ExecutionPlan,
               registry: Registry) -> Backend:
    """Return the backend of a training, set up for its validations.

    Args:
        chosen: the backend of the training.
        options: of the training.
        plan: of the validation.
        registry: where the backend is looked up.
    """
    backend = registry.make_typed(Backend, chosen.spec,
                                  options=backend_options(chosen.spec, options, plan, registry))
    if chosen.plugin:
        check_job(backend, chosen.spec, plan, chosen.plugin)
    return backend


class _Absent(Backend):
    """A placeholder for a backend whose requirements are missing."""

    def probe(self) -> Probe:
        return Probe(usable=False)


class _Failed(_Absent):
    """A placeholder for a backend whose engine is installed, and fails."""


def _all_probed(options: CommandOptions, plan: ExecutionPlan, registry: Registry) -> List[Chosen]:
    """Return the built-in backends that support the request, with their probes."""
    return [tried(spec, options, plan, registry)
            for spec in specs_of(registry, training=plan.training)
            if not lacks(options, plan, spec, registry)]
