"""`ipucnn train`, `restore`, `validate` and `average`."""

from __future__ import annotations

import os
import shlex
from functools import partial
from typing import Any, Callable, Dict, List, Optional

import typer

from ipucnn.commands._profiles import resolved
from ipucnn.core import exit_codes
from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import is_first
from ipucnn.terminal import signals
from ipucnn.terminal import tables as render
from ipucnn.terminal.launch import LaunchOptions, launchable
from ipucnn.terminal.options_command import add_command
from ipucnn.terminal.progress import TrainProgress, busy, importing_torch
from ipucnn.training.options.stored_options import AverageOptions, ValidateOptions
from ipucnn.training.options.train_options import RestoreOptions, TrainOptions


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command, options in ((train, TrainOptions), (restore, RestoreOptions),
                             (validate, ValidateOptions)):
        add_command(app, command, options, LaunchOptions)
    add_command(app, average, AverageOptions)


@launchable
def train(given: Dict[str, Any]) -> int:
    """Train a model."""
    from ipucnn.runs.resuming import resumed

    options = resolved(TrainOptions, given, "train")  # before torch, whose import takes seconds

    def job(listener: TrainProgress) -> Any:
        with signals.held():  # torch is imported
            from ipucnn.training.phases import train_all
            from ipucnn.training.restore import restarted

        listener.preparing()
        return resumed(given, options, listener) or restarted(options, listener=listener) \
            or train_all(options, listener=listener)

    places = {"result": options.results.result, "log_dir": options.results.log_dir,
              "checkpoint_path": options.checkpoints.checkpoint_path}
    return _trained({**given, **places}, job)  # a profile may name them


@launchable
def restore(given: Dict[str, Any]) -> int:
    """Continue a training from a checkpoint; options given here replace the saved ones.

    Options that you do not set keep their saved values instead of the defaults below.
    """
    def job(listener: TrainProgress) -> Any:
        with signals.held():  # torch is imported
            from ipucnn.training.restore import restore as restored

        listener.preparing()
        own = ("json", "progress", "no_report")
        return restored({name: value for name, value in given.items() if name not in own},
                        listener=listener)

    return _trained(given, job)


def _trained(given: Dict[str, Any], job: Callable[[TrainProgress], Any]) -> int:
    as_json = bool(given.get("json"))

    def show(result: Any, failed: bool = False) -> None:
        from ipucnn.reports.result_files import write_result

        render.each_output(
            lambda: write_result(result.as_dict(), given.get("result")),
            lambda: None if given.get("no_report") else _report(result.log_dir),
            lambda: render.emit_json(result.as_dict()) if as_json else render.emit(
                "\n".join([render.facts(result.facts()), *_next_steps(result, failed)])))

    with _progress(given, as_json) as listener, \
            render.partial_shown(partial(show, failed=True), lambda result: result.updates), \
            render.only_data(as_json):
        result = job(listener)
    show(result)
    listener.check_output()
    return exit_codes.of_signal(result.stopped_by)


def _report(log_dir: Optional[str]) -> None:
    """Write the report of a training into its log folder."""
    from ipucnn.reports.job import of_training

    note = of_training(log_dir) if log_dir else None
    if note:
        render.note(note)


def _progress(given: Dict[str, Any], as_json: bool) -> TrainProgress:
    if given.get("dashboard") and is_first():
        if not render.wants_bar("auto"):
            render.note("'--dashboard' needs a terminal; progress is shown as lines")
        else:
            from ipucnn.commands._dashboard import DashboardProgress

            return DashboardProgress(
                str(given.get("log_dir") or given.get("checkpoint_path") or "logs"),
                summary=not as_json)
    return TrainProgress(_choice(given), summary=not as_json)


def _next_steps(result: Any, failed: bool) -> List[str]:
    """Return the lines that suggest commands for the model of a training."""
    if not result.checkpoint:
        return []
    folder = os.path.dirname(result.checkpoint) or "."
    steps = [f"ipucnn run --weights {shlex.quote(folder)} --data-dir FOLDER   "
             "(classify new images)"]
    if failed or result.stopped_by in exit_codes.INTERRUPTED:
        steps.append(f"ipucnn restore --checkpoint-path {shlex.quote(folder)}   (continue)")
    saved = "last checkpoint" if failed else "model"
    return ["", f"The {saved} is saved. Next:", *(f"  {step}" for step in steps)]


@launchable
def validate(given: Dict[str, Any]) -> int:
    """Evaluate a checkpoint, or all checkpoints in a folder."""
    from ipucnn.core.options.building import build

    options = build(ValidateOptions, given)

    def text(found: Any) -> str:
        return "\n\n".join(render.table(table.headings, table.rows)
                           for table in found.tables(options.results.per_class))

    def show(found: Any) -> None:
        from ipucnn.reports.result_files import write_result

        per_class = options.results.per_class
        render.each_output(
            lambda: write_result(found.document(per_class), options.results.result,
                                 options.results.report),
            lambda: render.emit_json(found.as_dict(per_class)) if options.results.json
            else render.emit(text(found)))

    with TrainProgress(_choice(given), summary=not options.results.json) as listener:
        with signals.held():  # torch is imported
            from ipucnn.training.validate import validate as validated

        listener.preparing()
        with render.partial_shown(show), render.only_data(options.results.json):
            found = validated(options, listener=listener)
    if found or not found.stopped_by:
        show(found)
    if found.stopped_by:
        raise KeyboardInterrupt(found.stopped_by)
    listener.check_output()
    return 0


def average(given: Dict[str, Any]) -> int:
    """Average the weights of a training's checkpoints."""
    from ipucnn.core.options.building import build

    options = build(AverageOptions, given)
    if not options.checkpoint_path:
        raise UsageError("no checkpoint folder is given", "add '--checkpoint-path DIR'")

    with importing_torch():
        from ipucnn.training.phases import average_checkpoints

    with busy("averaging the checkpoints"):
        result = average_checkpoints(options)
    for note in result.notes:
        render.note(note)
    render.emit_json(result.as_dict()) if options.json else render.emit(
        render.facts(result.facts()))
    return 0


def _choice(given: Dict[str, Any]) -> str:
    from ipucnn.core.options.building import common_values

    chosen: str = common_values(
        TrainOptions, {"progress": given.get("progress") or "auto"})["progress"]
    return chosen
