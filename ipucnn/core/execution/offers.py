"""What backends offer according to their records, and errors for options that one lacks."""

from __future__ import annotations

import sys
from typing import Callable, List, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import launched, stages_apart
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.names import flag_of
from ipucnn.core.options.attributes import INFERENCE
from ipucnn.core.options.composition import CommandOptions, changed
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.options.owners import builtin_owners, owner_of
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.targets import import_target


def check_offer(options: CommandOptions, plan: ExecutionPlan, spec: BackendSpec,
                registry: Registry) -> None:
    """Reject options that the backend's record does not offer, before compilation.

    Raises:
        UsageError: an option is not supported; the message names the backends that support it.
    """
    if plan.training and not spec.training:
        raise UsageError(f"backend {spec.name!r} cannot train",
                         _offered_by(registry, lambda s: s.training))
    if not plan.training and not spec.inference:
        raise UsageError(f"backend {spec.name!r} cannot run inference",
                         _offered_by(registry, lambda s: s.inference))
    if plan.instances > 1 and not spec.instances:
        launch = launched()
        raise UsageError(f"backend {spec.name!r} runs in one process, and there are "
                         f"{plan.instances} instances",
                         _offered_by(registry, lambda s: s.instances)
                         + (f"; or leave {launch.launcher} out" if launch else ""))
    if plan.precision not in spec.precisions:
        raise UsageError(f"backend {spec.name!r} does not compute in precision {plan.precision!r}",
                         "its precisions: " + ", ".join(spec.precisions) + "; " + _offered_by(
                             registry, lambda s: plan.precision in s.precisions
                             and (s.training if plan.training else s.inference)))
    if plan.stages > 1 and not spec.pipelining:
        raise UsageError(f"backend {spec.name!r} has no pipeline stages: '--pipeline-splits' has "
                         "no effect there", _offered_by(registry, lambda s: s.pipelining))
    if stages_apart(plan.stages):
        _check_apart(plan, spec, registry)
    if plan.replicas > 1 and not spec.replicas:
        raise UsageError(f"backend {spec.name!r} has no replicas, and there are {plan.replicas}",
                         _offered_by(registry, lambda s: s.replicas))
    refused = [(item.flag, item.boolean, [other.name for other in specs_of(registry)
                                          if other.has(item.option.feature)])
               for item in _without_feature(options, plan, spec)]
    refused += [(flag_of(name), options.plugins.deferred[name] is True,
                 [owner.spec.name for owner in builtin_owners(["backend"], registry)
                  if owner.option(name, options.job)])
                for name in not_owned(options, spec, registry)]
    if refused:
        raise _not_offered(options, spec, refused)


def _check_apart(plan: ExecutionPlan, spec: BackendSpec, registry: Registry) -> None:
    """Check that the pipeline stages of a plan can be divided among processes."""
    if not spec.has("stage-processes"):
        raise UsageError(f"backend {spec.name!r} does not divide pipeline stages among processes",
                         _offered_by(registry, lambda s: s.has("stage-processes")))
    if plan.sharded:
        raise UsageError("stages in several processes form a pipeline: '--sharded' has no effect "
                         "there", "leave it out, or start one process")


def _not_offered(options: CommandOptions, spec: BackendSpec,
                 refused: List[Tuple[str, bool, List[str]]]) -> UsageError:
    """Return the error for unsupported options, with the backends that support each."""
    flags = ", ".join(f"'{flag}'" for flag, _, _ in refused)
    verb = "is not an option" if len(refused) == 1 else "are not options"
    hints = [f"{flag} is for backend " + (", ".join(having) or "none installed")
             for flag, _, having in refused]
    away = " ".join(f"--no-{flag[2:]}" for flag, boolean, _ in refused if boolean)
    if options.get("config") and away:
        hints.append(f"leave it out, or add '{away}' if the profile sets it")
    return UsageError(f"{flags} {verb} of backend {spec.name!r}", "; ".join(hints))


def lacks(options: CommandOptions, plan: ExecutionPlan, spec: BackendSpec,
          registry: Registry) -> bool:
    """Return whether a backend lacks the precision, stages, replicas or options of a request."""
    return (plan.precision not in spec.precisions or (plan.stages > 1 and not spec.pipelining)
            or (plan.replicas > 1 and not spec.replicas)
            or bool(_without_feature(options, plan, spec))
            or bool(not_owned(options, spec, registry)))


def not_owned(options: CommandOptions, spec: BackendSpec, registry: Registry) -> List[str]:
    """Return the backend options given without naming a backend that this one lacks."""
    owner = owner_of(KINDS["backend"], spec, registry)
    return [name for name in options.plugins.deferred
            if owner is None or owner.option(name, options.job) is None]


def _without_feature(options: CommandOptions, plan: ExecutionPlan,
                     spec: BackendSpec) -> List[Declared]:
    """Return the given common options that need a feature the backend lacks.

    A training's options also apply to its validation, where some have no effect.
    """
    return [item for item in changed(options)
            if item.option.feature and not spec.has(item.option.feature)
            and (plan.training or options.job == INFERENCE or item.option.validation)]


def specs_of(registry: Registry, training: Optional[bool] = None) -> List[BackendSpec]:
    """Return the records of built-in backends, the preferred ones first.

    Args:
        registry: where they are looked up.
        training: only those that train, or only those that run inference; all when None.
    """
    specs = [registry.get_typed(BackendSpec, name) for name in registry.names("backend")]
    return sorted((s for s in specs if training is None or (s.training if training
                                                            else s.inference)),
                  key=lambda s: -expected(s))


def expected(spec: BackendSpec) -> int:
    """Return the highest preference that a backend can have on this machine.

    An engine that is imported already is probed in no time, so that nothing is foreseen for it.
    """
    loaded = all(sys.modules.get(requirement.module) for requirement in spec.requires)
    return spec.preference if loaded or not spec.foreseen else int(import_target(spec.foreseen)())


def _offered_by(registry: Registry, has: Callable[[BackendSpec], bool]) -> str:
    names = [spec.name for spec in specs_of(registry) if has(spec)]
    return ("backends that can: " + ", ".join(names)) if names else "no installed backend can"
