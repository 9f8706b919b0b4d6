"""Functions that detect the launcher of a process.

A launcher starts several processes for one run. It is a plugin. Its record (`LauncherSpec`) names
the environment variables that it sets in the processes it starts, and its target returns a
`Launcher`, which reads them and connects the processes. The functions of this module query the
registry, so that no other module depends on a launcher's variables.

Built-in launchers are recognised by their variables. A third-party launcher must be named
(`select`, or the variable IPUCNN_LAUNCHER), because a run with built-in names imports no
third-party plugins. A launcher is imported only if one of its variables is set or if it is named.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple, TypeVar

from ipucnn.core.errors import IpucnnError, PluginError, UsageError
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.launcher import Launch, Launcher
from ipucnn.core.names import described
from ipucnn.core.registry.records import LauncherSpec

if TYPE_CHECKING:
    from ipucnn.core.execution.plan import ExecutionPlan
    from ipucnn.core.registry.registry import Registry

OptionsT = TypeVar("OptionsT", bound=Any)

VARIABLE = "IPUCNN_LAUNCHER"
"""The environment variable that names the launcher of this process."""

LOCAL = "local"
"""The launcher of the processes of `--instances`; without its variables, a process works alone."""

_selected: Optional[str] = None
_options: Any = None
_joined: Dict[Launch, Instances] = {}


def select(name: Optional[str], options: Any = None) -> None:
    """Select the launcher of this process; None uses IPUCNN_LAUNCHER.

    Args:
        name: of a built-in or third-party launcher; no other launcher is tried.
        options: an instance of its options class; its defaults when None.
    """
    global _selected, _options
    _selected, _options = name, options


def launcher_named(name: str, options: Any = None) -> Launcher:
    """Return a built-in or third-party launcher by name.

    Args:
        name: of the launcher.
        options: an instance of its options class; its defaults when None.

    Raises:
        UnknownNameError: no plugin provides it.
        PluginError: it is broken.
        UnavailableError: a module that it requires is missing.
    """
    return _resolved(_registry().get_typed(LauncherSpec, name), options)


def launched(environment: Optional[Mapping[str, str]] = None,
             name: Optional[str] = None) -> Optional[Launch]:
    """Return the place of this process among those of its launcher; None without a launcher.

    Args:
        environment: the variables; those of the process when None.
        name: the launcher to try; by default the selected one, that of IPUCNN_LAUNCHER, or, if none
            is named, all built-in ones.

    Raises:
        UsageError: the variables are not valid, belong to two launchers, or are not those of the
            launcher that was named.
    """
    variables = os.environ if environment is None else environment
    launch, _ = _recognised(variables, name or _selected or variables.get(VARIABLE))
    return launch


def launched_count() -> int:
    """Return the number of instances; 1 without a launcher."""
    launch = launched()
    return 1 if launch is None else launch.count


def check_alone(command: str) -> None:
    """Raise an error in one of several processes that a launcher started.

    Raises:
        UsageError: there are several.
    """
    launch = launched()
    if launch is not None and launch.count > 1:
        raise UsageError(f"{command!r} measures one process, and {launch.launcher} started "
                         f"{launch.count}", f"leave {launch.launcher} out")


def sharing(splits: Sequence[str]) -> int:
    """Return the number of instances that share the replicas of a run.

    If each process has its own device, each pipeline stage runs in a process. The replicas are then
    divided among groups with one process per stage.

    Args:
        splits: the splits of the pipeline, one less than its stages.

    Raises:
        UsageError: the processes cannot be divided into such groups.
    """
    launch, stages = launched(), len(splits) + 1
    if launch is None or not _apart(launch, stages):
        return launched_count()
    if launch.count % stages:
        fewer = launch.count < stages
        raise UsageError(
            f"{stages} pipeline stages need {'as many' if fewer else 'a multiple of as many'} "
            f"processes, and {launch.launcher} started {launch.count}",
            f"start {stages} processes for each replica, or a single one, which computes all "
            "stages, or use other '--pipeline-splits'")
    return launch.count // stages


def stages_apart(stages: int) -> bool:
    """Return whether the pipeline stages of a run are divided among processes; see `sharing`."""
    launch = launched()
    return launch is not None and _apart(launch, stages)


def _apart(launch: Launch, stages: int) -> bool:
    return stages > 1 and launch.count > 1 and launch.replicas is None \
        and launch.local_index is not None


def is_first() -> bool:
    """Return whether this process reports results: the first instance, or a single process."""
    try:
        launch = launched()
    except IpucnnError:  # the command itself fails with this error
        return True
    return launch is None or launch.index == 0


def own_name() -> str:
    """Return this process's message prefix: "instance 2 of 4: ", or "" for a single process."""
    with suppress(IpucnnError):
        launch = launched()
        if launch is not None and launch.count > 1:
            return f"instance {launch.index + 1} of {launch.count}: "
    return ""


def fitted(options: OptionsT) -> Tuple[OptionsT, List[str]]:
    """Return the options with the launcher's number of replicas, and notes for the user.

    The launcher's number takes precedence, because the launcher has reserved the devices. With a
    launcher that reserves none, each instance has one replica by default.
    """
    from ipucnn.core.options.composition import default_of

    launch = launched()
    if launch is None:
        return options, []
    given, default = options.get("replicas"), default_of(type(options), "replicas")
    if launch.replicas is None:
        # each process of '--instances' has its own replicas
        if given != default or launch.local_index is None:
            return options, []
        return options.with_values(replicas=max(1, launch.count // stages_of(options))), []
    if given == launch.replicas:
        return options, []
    options = options.with_values(replicas=launch.replicas)
    if given == default:
        return options, []
    return options, [f"{launch.launcher} started {launch.replicas} replicas: "
                     f"'--replicas {given}' is not used"]


def stages_of(options: Any) -> int:
    """Return the number of pipeline stages in the options; 'auto:4' means four."""
    splits = options.get("pipeline_splits")
    kind, _, number = "".join(splits[:1]).partition(":")
    return int(number) if kind == "auto" and number.isdecimal() and int(number) \
        else len(splits) + 1


def joined(plan: Optional[ExecutionPlan] = None) -> Instances:
    """Return the connected processes that share the work; a process connects only once.

    Args:
        plan: the plan of all instances together; rejected if the launcher does not support it.

    Raises:
        UnavailableError: they cannot be connected.
        UsageError: the launcher does not support the plan.
    """
    launch, launcher = _recognised(os.environ, _selected or os.environ.get(VARIABLE))
    if launch is None or launcher is None:
        return ALONE
    if launch not in _joined:
        instances = launcher.join()
        if not isinstance(instances, Instances):
            raise PluginError(f"launcher {launch.launcher!r} connected the processes to "
                              f"{described(instances)}, expected an object of type 'Instances'")
        _joined[launch] = instances
    if plan is not None:
        launcher.check(plan)
    return _joined[launch]


def connect(instances: Instances) -> None:
    """Make `joined` return `instances`, for a process already connected by its parent.

    Raises:
        UsageError: no launcher is recognised.
    """
    launch = launched()
    if launch is None:
        raise UsageError("no launcher started this process",
                         f"set {VARIABLE} and the launcher's variables")
    _joined[launch] = instances


def environment_of(name: str, index: int, count: int) -> Dict[str, str]:
    """Return the variables of a process that ipucnn starts, including its launcher's name.

    Args:
        name: of the launcher.
        index: of the instance, from 0.
        count: number of instances.
    """
    return {**launcher_named(name).environment(index, count), VARIABLE: name}


def _recognised(variables: Mapping[str, str],
                name: Optional[str]) -> Tuple[Optional[Launch], Optional[Launcher]]:
    """Return the launch described by the variables, and its launcher."""
    found: List[Tuple[Launch, Launcher]] = []
    for spec in _candidates(variables, name):
        launcher = _resolved(spec, _options if name and name == _selected else None)
        launch = launcher.launch(variables)
        if launch is not None and not isinstance(launch, Launch):
            raise PluginError(f"'launch' of launcher {spec.name!r} returned {launch!r}, expected "
                              "a Launch or None")
        if launch is not None:
            found.append((replace(launch, launcher=spec.name), launcher))
        elif name and launcher.external:
            raise UsageError(f"launcher {spec.name!r} did not start this process",
                             f"start the command with it, or leave the launcher out; it sets "
                             f"{' or '.join(spec.variables)}")
    if len(found) > 1:
        names = [launch.launcher for launch, _ in found]
        raise UsageError("the environment has variables of the launchers " + " and ".join(names),
                         f"name the one that started this process: {VARIABLE}={names[0]}")
    return found[0] if found else (None, None)


def _candidates(variables: Mapping[str, str], name: Optional[str]) -> List[LauncherSpec]:
    """Return the record of the named launcher, or of built-in ones with a variable set."""
    known = _registry()
    if name:
        return [known.get_typed(LauncherSpec, name)]
    specs = [known.get_typed(LauncherSpec, built_in) for built_in in known.names("launcher")]
    return [spec for spec in specs if any(variable in variables for variable in spec.variables)]


def _resolved(spec: LauncherSpec, options: Any = None) -> Launcher:
    return _registry().make_typed(Launcher, spec, options=options)


def _registry() -> Registry:
    from ipucnn.core.registry.registry import registry  # messages need neither it nor pluggy

    return registry()
