"""`ipucnn plan`: preview a training setup."""

from __future__ import annotations

from typing import Any, Dict

import typer

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import CACHE, declared
from ipucnn.core.options.owners import flags_in_role
from ipucnn.planning.options import POPRUN, PlanOptions
from ipucnn.terminal import tables as render
from ipucnn.terminal.options_command import add_command
from ipucnn.training.options import TrainOptions


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    add_command(app, plan, TrainOptions, PlanOptions)


def plan(given: Dict[str, Any]) -> None:
    """Preview a training, or print the command that launches it on many hosts.

    Nothing is compiled, downloaded or read; the backend need not be usable on this machine.
    """
    from ipucnn.api.jobs import plan as planned
    from ipucnn.core.registry.registry import registry
    from ipucnn.planning.launch_command import poprun_command
    from ipucnn.planning.stages import table_of

    as_json, poprun = given.pop("json", False), given.pop("poprun", False)
    if poprun and as_json:
        raise UsageError("'--poprun' and '--json' exclude each other",
                         "'--poprun' prints a command for a shell")
    made = planned(**{name: value for name, value in given.items() if name != "progress"})
    launch = made.launch
    if as_json:
        render.emit_json(made.as_dict())
    elif poprun:
        names = {item.name for item in declared(PlanOptions)}
        training = {name: value for name, value in given.items() if name not in names}
        render.emit(poprun_command(made, training, registry().settings))
    else:
        render.emit(render.facts(made.facts()))
        if made.pipeline:
            render.emit("\n" + render.table(*table_of(made.pipeline)))
            if made.plan.stages > 1:
                render.emit(f"\nThe largest stage has work for {made.pipeline.fill:.0%} of the "
                            f"time, all together for {made.pipeline.use:.0%}.")
    passed_on = [] if poprun else [
        f"'{item.flag}'" for item in declared(PlanOptions)
        if item.option.group == POPRUN and item.name in given]
    if passed_on:
        render.note(f"{', '.join(passed_on)} {'is' if len(passed_on) == 1 else 'are'} for the "
                    "command that '--poprun' prints")
    for note in made.notes:
        render.note(note)
    if made.plan.instances > 1 and not (launch.executable_cache_path
                                        or made.options.plugins.given(CACHE)):
        caches = [*flags_in_role(CACHE, ["backend"], registry()), "--executable-cache-path"]
        render.note("every instance compiles the model itself; to compile once, add "
                    + " or ".join(f"'{flag} DIR'" for flag in caches))
