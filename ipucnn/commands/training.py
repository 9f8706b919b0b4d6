"""The commands of the life of a model: train, restore, validate, average."""

from __future__ import annotations

from typing import Any, Callable, Dict

import typer

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.instances import speaks
from ipucnn.core.options import AverageOptions, RestoreOptions, TrainOptions, ValidateOptions
from ipucnn.terminal import signals
from ipucnn.terminal import tables as render
from ipucnn.terminal.flags import SectionedCommand, with_options
from ipucnn.terminal.progress import TrainProgress

_CODES = {"SIGINT": 130, "SIGTERM": 143}


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (train, restore, validate, average):
        app.command(cls=SectionedCommand)(command)


@with_options(TrainOptions)
def train(given: Dict[str, Any]) -> int:
    """Train a model."""
    from ipucnn.core.options.profiles import resolve

    options = resolve(TrainOptions, given, "train")  # before torch, whose import takes seconds

    def job(listener: TrainProgress) -> Any:
        from ipucnn.training.phases import train_all

        return train_all(options, listener=listener)

    return _trained(given, job)


@with_options(RestoreOptions)
def restore(given: Dict[str, Any]) -> int:
    """Continue a training from a checkpoint; options given here replace the saved ones."""
    if given.get("config"):
        raise UsageError("'--config' has no meaning when restoring",
                         "give the options to change one by one")

    def job(listener: TrainProgress) -> Any:
        from ipucnn.training.restore import restore as restored

        return restored({name: value for name, value in given.items()
                         if name not in ("json", "progress", "result")}, listener=listener)

    return _trained(given, job)


def _trained(given: Dict[str, Any], job: Callable[[TrainProgress], Any]) -> int:
    as_json = bool(given.get("json"))

    def show(result: Any) -> None:
        if as_json:
            render.emit_json(result.as_dict())
        else:
            render.emit(render.train_result(result))
        if given.get("result") and speaks():
            from ipucnn.core.files import write_json

            write_json(given["result"], result.as_dict())

    with TrainProgress(_choice(given), summary=not as_json) as listener, signals.graceful():
        try:
            result = job(listener)
        except IpucnnError as error:
            if error.partial is not None and error.partial.updates:
                show(error.partial)
            raise
    show(result)
    return _CODES.get(result.stopped_by or "", 0)


@with_options(ValidateOptions)
def validate(given: Dict[str, Any]) -> int:
    """Tell what stored checkpoints score; of a folder, all of them in order."""
    from ipucnn.core.options.declaration import build

    options = build(ValidateOptions, given)

    def show(found: Any) -> None:
        rows = [{**v.figures(), "per_class": v.per_class()} if options.per_class else v.figures()
                for v in found]
        document = {"format": "ipucnn.validate/1", "validations": rows}
        if options.json:
            render.emit_json(document)
        else:
            render.emit(render.validations(found, options.per_class))
        if options.result and speaks():
            from ipucnn.core.files import write_json

            write_json(options.result, document)

    with TrainProgress(_choice(given), summary=not options.json) as listener, signals.graceful():
        from ipucnn.training.validate import validate as validated

        try:
            found = validated(options, listener=listener)
        except IpucnnError as error:
            if error.partial:
                show(error.partial)
            raise
    show(found)
    return 0


@with_options(AverageOptions)
def average(given: Dict[str, Any]) -> int:
    """Average the weights of a training's checkpoints."""
    from ipucnn.core.options.declaration import build

    options = build(AverageOptions, given)
    if not options.checkpoint_path:
        raise UsageError("no folder of checkpoints is named", "add '--checkpoint-path DIR'")

    with signals.held():
        from ipucnn.training.phases import average_checkpoints

    result = average_checkpoints(options)
    facts = {"path": str(result.path), "strategy": result.strategy, "epoch": result.epoch,
             "files": [str(path) for path in result.files]}
    if options.json:
        render.emit_json({"format": "ipucnn.average/1", **facts})
    else:
        render.emit(render.facts(facts.items()))
    return 0


def _choice(given: Dict[str, Any]) -> str:
    from ipucnn.core.options.declaration import coerced

    chosen: str = coerced(TrainOptions, {"progress": given.get("progress") or "auto"})["progress"]
    return chosen
