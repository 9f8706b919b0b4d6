"""`ipucnn train`, `restore`, `validate` and `average`."""

from __future__ import annotations

import os
import shlex
from functools import partial
from typing import Any, Callable, Dict, List

import typer

from ipucnn.commands._profiles import resolved
from ipucnn.core import exit_codes
from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.launching import is_first
from ipucnn.core.registry.registry import registry
from ipucnn.terminal import signals
from ipucnn.terminal import tables as render
from ipucnn.terminal.launch import LaunchOptions, launchable
from ipucnn.terminal.options_command import add_command
from ipucnn.terminal.progress import TrainProgress, busy, importing_torch
from ipucnn.training.options import RestoreOptions, TrainOptions
from ipucnn.training.stored_options import AverageOptions, ValidateOptions


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

    def print_out(result: Any, failed: bool) -> None:
        if as_json:
            render.emit_json(result.as_dict())
        else:
            render.emit("\n".join([render.facts(result.facts()), *_next_steps(result, failed)]))

    def report(log_dir: str) -> None:
        from ipucnn.reports.job import of_training

        note = of_training(log_dir)
        if note:
            render.note(note)

    def show(result: Any, failed: bool = False) -> None:
        from ipucnn.reports.result_files import write_result

        first = is_first()
        try:
            if first:
                write_result(result.as_dict(), given.get("result"))
        finally:  # each output even if another one fails
            try:
                if first and result.log_dir and not given.get("no_report"):
                    report(result.log_dir)
            finally:
                print_out(result, failed)

    with _progress(given, as_json) as listener:
        try:
            with render.only_data(as_json):
                result = job(listener)
        except IpucnnError as error:
            if error.partial is not None and error.partial.updates:
                render.show_partial(partial(show, failed=True), error.partial)
            raise
    show(result)
    listener.check_output()
    return exit_codes.of_signal(result.stopped_by)


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
    if not result.checkpoint or not is_first():
        return []
    folder = os.path.dirname(result.checkpoint) or "."
    plugins = "".join(f" --plugin {shlex.quote(file)}" for file in registry().settings.extra)
    steps = [f"ipucnn{plugins} run --weights {shlex.quote(folder)} --data-dir FOLDER   "
             "(classify new images)"]
    if failed or result.stopped_by in exit_codes.INTERRUPTED:
        steps.append(f"ipucnn{plugins} restore --checkpoint-path {shlex.quote(folder)}   "
                     "(continue)")
    saved = "last checkpoint" if failed else "model"
    return ["", f"The {saved} is saved. Next:", *(f"  {step}" for step in steps)]


@launchable
def validate(given: Dict[str, Any]) -> int:
    """Evaluate a checkpoint, or all checkpoints in a folder."""
    from ipucnn.core.options.building import build

    options = build(ValidateOptions, given)

    def print_out(found: Any) -> None:
        if options.results.json:
            render.emit_json(found.as_dict(options.results.per_class))
        else:
            render.emit("\n\n".join(render.table(table.headings, table.rows)
                                    for table in found.tables(options.results.per_class)))

    def show(found: Any) -> None:
        from ipucnn.reports.result_files import write_result

        try:
            if is_first():
                write_result(found.document(options.results.per_class), options.results.result,
                             options.results.report)
        finally:  # each output even if another one fails
            print_out(found)

    with TrainProgress(_choice(given), summary=not options.results.json) as listener:
        with signals.held():  # torch is imported
            from ipucnn.training.validate import validate as validated

        listener.preparing()
        try:
            with render.only_data(options.results.json):
                found = validated(options, listener=listener)
        except IpucnnError as error:
            if error.partial:
                render.show_partial(show, error.partial)
            raise
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
