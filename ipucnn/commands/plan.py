"""`ipucnn plan`: preview a training setup."""

from __future__ import annotations

import sys
from typing import Any, Dict, Optional, Tuple

import typer

from ipucnn.core.errors import UsageError
from ipucnn.core.options.attributes import CACHE
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.owners import flags_in_role
from ipucnn.planning.options import ESTIMATE, IPU_LAUNCHER, POPRUN, PlanOptions
from ipucnn.terminal import tables as render
from ipucnn.terminal.launch import LaunchOptions, launcher_of
from ipucnn.terminal.options_command import add_command
from ipucnn.training.options.train_options import TrainOptions


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    add_command(app, plan, TrainOptions, PlanOptions, LaunchOptions)


def plan(given: Dict[str, Any]) -> None:
    """Preview a training: sizes, memory and time; or print the command that launches it.

    Nothing is compiled or downloaded, and no images are read; the backend need not be usable here.
    """
    from ipucnn.api.jobs import planned
    from ipucnn.core.files import write_text
    from ipucnn.core.registry.registry import registry
    from ipucnn.planning.launch_command import command_of
    from ipucnn.planning.picture import svg

    as_json = given.pop("json", False)
    launcher, alone = _launcher(given)
    if alone and as_json:
        raise UsageError(f"'--{alone}' and '--json' exclude each other",
                         f"'--{alone}' prints a command for a shell")
    with render.only_data(as_json):
        made = planned({name: value for name, value in given.items() if name != "progress"},
                       launcher, stages=not alone or "picture" in given)
    line = None
    if launcher:
        names = {item.name for item in declared(PlanOptions)}
        training = {name: value for name, value in given.items() if name not in names}
        line = command_of(made, *launcher, training, registry())
    if made.launch.picture:
        if made.pipeline is None:
            raise UsageError("there is nothing to draw: the stages are not known",
                             "leave '--picture' out")
        write_text(made.launch.picture, svg(_title(made), made.pipeline))
    if as_json:
        found = made.as_dict()
        found["launch"]["command"] = line
        render.emit_json(found)
    elif alone:
        render.emit(str(line))
    else:
        _show(made, line)
    _note(made, given, launcher, alone)


def _launcher(given: Dict[str, Any]) -> Tuple[Optional[Tuple[str, Any]], str]:
    """Return the launcher and its options, and the option by which only its command is printed.

    `--launch` is removed from the options if it names a launcher instead of a profile.
    """
    name, alone = given.get("launch"), ""
    if name and _is_launcher(name):
        alone = "launch"
        given["launcher"] = given.get("launcher", name)
        del given["launch"]
    if given.pop("poprun", False):
        alone = "poprun"
        given["launcher"] = given.get("launcher", IPU_LAUNCHER)
    wanted = {"launch": name, "poprun": IPU_LAUNCHER}.get(alone)
    launcher = launcher_of(given)
    if launcher and wanted not in (None, launcher[0]):
        raise UsageError(f"'--{alone}' and '--launcher {launcher[0]}' exclude each other",
                         "name one launcher")
    return launcher, alone


def _is_launcher(name: str) -> bool:
    from ipucnn.core.options import profiles
    from ipucnn.core.registry.registry import registry

    if name in {profile.name for profile in profiles.available("launch")}:
        return False
    try:
        registry().get("launcher", name)
    except UsageError:
        return False
    return True


def _show(made: Any, line: Optional[str]) -> None:
    """Print a plan as tables and bars."""
    from ipucnn.planning.picture import bars
    from ipucnn.runs.dashboard import encodable

    render.emit(render.facts(made.facts()))
    pipeline = made.pipeline
    if pipeline:
        for table in pipeline.tables():
            render.emit("\n" + (f"{table.title}\n" if table.title else "")
                        + render.table(table.headings, table.rows))
        render.emit("\n" + encodable(bars(pipeline), getattr(sys.stdout, "encoding", None)))
        if made.plan.stages > 1:
            render.emit("\n" + pipeline.sentence)
    if line:
        render.emit("\nStart it with:\n" + line)


def _title(made: Any) -> str:
    stages = made.plan.stages
    return (f"{made.options.network.model}: {stages} stage{'s' if stages > 1 else ''}, micro-batch "
            f"{made.plan.micro_batch}, accumulation {made.plan.gradient_accumulation}")


def _note(made: Any, given: Dict[str, Any], launcher: Optional[Tuple[str, Any]],
          alone: str) -> None:
    """Print the notes on a plan."""
    from ipucnn.core.registry.registry import registry

    passed_on = [] if alone else [
        f"'{item.flag}'" for item in declared(PlanOptions)
        if item.option.group == POPRUN and item.name in given]
    if passed_on:
        render.note(f"{', '.join(passed_on)} {'is' if len(passed_on) == 1 else 'are'} for the "
                    "command that '--poprun' prints")
    idle = [f"'{item.flag}'" for item in declared(PlanOptions)
            if item.option.group == ESTIMATE and item.name in given and item.name != "picture"
            and not (item.name == "device_memory" and made.pipeline)] if alone else []
    if idle:
        render.note(f"{', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect on the "
                    f"command that '--{alone}' prints")
    for note in made.notes:
        render.note(note)
    if launcher and launcher[0] != IPU_LAUNCHER:
        return
    if made.plan.instances > 1 and not (made.launch.executable_cache_path
                                        or made.options.plugins.given(CACHE)):
        caches = [*flags_in_role(CACHE, registry()), "--executable-cache-path"]
        render.note("every instance compiles the model itself; to compile once, add "
                    + " or ".join(f"'{flag} DIR'" for flag in caches))
