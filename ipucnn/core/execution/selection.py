"""Which backend a run gets, and whether it has what the run asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Collection, List, Optional, Tuple

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.instances import ALONE, Instances, launched
from ipucnn.core.execution.plan import Backend, ExecutionPlan, Probe
from ipucnn.core.names import key
from ipucnn.core.options.declaration import Declared, changed
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import Registry

AUTO = "auto"


@dataclass(frozen=True)
class Chosen:
    """The backend of a run.

    Attributes:
        spec: its record.
        backend: the engine.
        probe: what it found here.
        why: for `--backend auto`, why it was taken; empty when the user named it.
    """

    spec: BackendSpec
    backend: Backend
    probe: Probe
    why: str = ""

    def join(self) -> Instances:
        """Return the processes that share the work, this one among them.

        Raises:
            UnavailableError: what lets them talk to each other is missing.
        """
        return ALONE if launched() is None else self.backend.instances()


def choose_backend(name: str, registry: Registry, plan: Optional[ExecutionPlan] = None,
                   options: Any = None, without: Collection[str] = (),
                   trains: bool = False) -> Chosen:
    """Return the backend called `name`, or with `auto` the best usable one.

    Args:
        name: a backend's name, or `auto`.
        registry: where backends are looked up.
        plan: what is to be executed, when that is known.
        options: those of the command; with `auto`, backends that lack one of them are passed over
            when another has all.
        without: backends that `auto` does not take, because they cannot execute the network.
        trains: `auto` takes only backends that also train: figures are then those of a training.

    Raises:
        UnavailableError: it is not usable here. Another one is never taken silently.
    """
    if key(name) != AUTO:
        spec = registry.get_typed(BackendSpec, name)
        chosen = _probed(spec, registry, plan)
        if not chosen.probe.usable:
            usable = [other.spec.name for other in _all_probed(registry, plan)
                      if other.probe.usable and other.spec is not spec
                      and not (plan and _lacks(options, plan, other.spec))]
            raise UnavailableError(
                f"backend {spec.name!r} cannot be used here: {chosen.probe.reason}",
                "; ".join(part for part in (
                    chosen.probe.remedy,
                    f"here '--backend {usable[0]}' runs the same command" if usable else "")
                    if part))
        return chosen
    best, lacking, unusable = _best(registry, plan, options, without, trains)
    if best is None:
        raise UnavailableError("no backend can be used for this", "; ".join(
            f"{chosen.spec.name}: {chosen.probe.reason}: {chosen.probe.remedy}"
            for chosen in unusable))
    why = "the best backend usable here"
    passed_over = [spec.name for spec in lacking if spec.preference > _rank(best)]
    if passed_over:
        why += " (without what is asked for: " + ", ".join(passed_over) + ")"
    if unusable:
        why += " (not usable: " + ", ".join(chosen.spec.name for chosen in unusable) + ")"
    return replace(best, why=why)


def _best(registry: Registry, plan: Optional[ExecutionPlan], options: Any,
          without: Collection[str], trains: bool) -> Tuple[
              Optional[Chosen], List[BackendSpec], List[Chosen]]:
    """Return the best usable backend, those that lack what is asked for, and unusable ones.

    A record tells the best that its backend can be, so that engines which cannot be better than
    one that was found are not even imported. Where all lack something, the best of these is
    returned: whoever checks the offer then says what it lacks.
    """
    specs = [spec for spec in _specs(registry, training=plan is not None and plan.training)
             if spec.name not in without and (spec.training or not trains)]
    lacking = [spec for spec in specs if plan is not None and _lacks(options, plan, spec)]
    best: Optional[Chosen] = None
    unusable: List[Chosen] = []
    for spec in [spec for spec in specs if spec not in lacking] or lacking:
        if best is not None and spec.preference <= _rank(best):
            break
        chosen = _probed(spec, registry, plan)
        if not chosen.probe.usable:
            unusable.append(chosen)
        elif best is None or _rank(chosen) > _rank(best):
            best = chosen
    if best is None:
        best = next((chosen for chosen in (_probed(spec, registry, plan) for spec in lacking)
                     if chosen.probe.usable), None)
    return best, lacking, unusable


def _rank(chosen: Chosen) -> int:
    rank = chosen.probe.preference
    return chosen.spec.preference if rank is None else rank


def others_can(options: Any, plan: ExecutionPlan, registry: Registry,
               without: Collection[str]) -> bool:
    """Return whether a usable built-in backend not among `without` has what is asked for."""
    return any(chosen.probe.usable and chosen.spec.name not in without
               and not _lacks(options, plan, chosen.spec)
               for chosen in _all_probed(registry, plan))


def _lacks(options: Any, plan: ExecutionPlan, spec: BackendSpec) -> bool:
    """Whether `check_offer` would refuse."""
    return (plan.precision not in spec.precisions or (plan.stages > 1 and not spec.pipelining)
            or bool(options is not None and _refused(options, plan, spec)))


def _refused(options: Any, plan: ExecutionPlan, spec: BackendSpec) -> List[Declared]:
    """Return the options that were given and that only other backends have."""
    return [item for item in changed(options)
            if item.option.backend_option and item.name not in _options(spec, plan)]


def check_offer(options: Any, plan: ExecutionPlan, spec: BackendSpec, registry: Registry) -> None:
    """Refuse what the backend's record does not offer, before anything is compiled.

    Raises:
        UsageError: names every option in question and the backends that have it.
    """
    if plan.training and not spec.training:
        raise UsageError(f"backend {spec.name!r} cannot train",
                         _offered_by(registry, lambda s: s.training))
    if not plan.training and not spec.inference:
        raise UsageError(f"backend {spec.name!r} cannot run inference",
                         _offered_by(registry, lambda s: s.inference))
    if plan.instances > 1 and not spec.instances:
        raise UsageError(f"backend {spec.name!r} runs in one process, and there are "
                         f"{plan.instances} instances",
                         _offered_by(registry, lambda s: s.instances) + "; or leave poprun out")
    if plan.precision not in spec.precisions:
        raise UsageError(f"backend {spec.name!r} does not compute in precision {plan.precision!r}",
                         "its precisions: " + ", ".join(spec.precisions))
    if plan.stages > 1 and not spec.pipelining:
        raise UsageError(f"backend {spec.name!r} has no pipeline stages: '--pipeline-splits' has "
                         "no meaning there", _offered_by(registry, lambda s: s.pipelining))
    refused = _refused(options, plan, spec)
    if refused:
        flags = ", ".join(f"'{item.flag}'" for item in refused)
        verb = "is not an option" if len(refused) == 1 else "are not options"
        away = " ".join(f"--no-{item.flag[2:]}" for item in refused if item.boolean)
        hints: List[str] = []
        for item in refused:
            having = [s.name for s in _specs(registry) if item.name in _options(s, plan)]
            hints.append(f"{item.flag} is for backend " + (", ".join(having) or "none installed"))
        if getattr(options, "config", None) and away:
            hints.append(f"to run the profile without, add '{away}'")
        raise UsageError(f"{flags} {verb} of backend {spec.name!r}", "; ".join(hints))


def _probed(spec: BackendSpec, registry: Registry, plan: Optional[ExecutionPlan]) -> Chosen:
    try:
        backend: Backend = registry.resolve(spec)()
    except UnavailableError as error:
        return Chosen(spec, _Absent(), Probe(usable=False, reason=error.message, remedy=error.hint))
    return Chosen(spec, backend, backend.probe_for(plan) if plan else backend.probe())


class _Absent(Backend):
    """Stands for a backend whose requirements are missing."""

    def probe(self) -> Probe:
        return Probe(usable=False)


def _options(spec: BackendSpec, plan: ExecutionPlan) -> Tuple[str, ...]:
    return spec.options + (spec.training_options if plan.training else ())


def _specs(registry: Registry, training: Optional[bool] = None) -> List[BackendSpec]:
    specs = [registry.get_typed(BackendSpec, name) for name in registry.names("backend")]
    return sorted((s for s in specs if training is None or (s.training if training
                                                            else s.inference)),
                  key=lambda s: -s.preference)


def _all_probed(registry: Registry, plan: Optional[ExecutionPlan]) -> List[Chosen]:
    return [_probed(spec, registry, plan)
            for spec in _specs(registry, training=plan is not None and plan.training)]


def _offered_by(registry: Registry, has: Any) -> str:
    names: Tuple[str, ...] = tuple(s.name for s in _specs(registry) if has(s))
    return ("backends that can: " + ", ".join(names)) if names else "no installed backend can"
