"""Creates and calls the loggers of a training; failures of loggers do not stop it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ipucnn.core.errors import IpucnnError
from ipucnn.core.loggers import FAILED, Logger, RunInfo
from ipucnn.core.registry.loading import GUARDED, cause_of
from ipucnn.core.registry.records import LoggerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.training.options.train_options import TrainOptions


def make_loggers(options: TrainOptions, registry: Registry) -> List[Logger]:
    """Return the selected loggers, without duplicates.

    Raises:
        PluginError: a target returned something else.
    """
    specs = dict.fromkeys(registry.get_typed(LoggerSpec, name) for name in options.results.logger)
    loggers = [registry.make_typed(Logger, spec, options=options.plugins.of("logger", spec.name))
               for spec in specs]
    for spec, logger in zip(specs, loggers):
        if not logger.name:
            logger.name = spec.name
    return loggers


class Loggers:
    """Calls every logger; one that raises is reported once and disabled.

    Args:
        loggers: in the order in which they are called.
        report: receives notes for the user.
    """

    def __init__(self, loggers: Sequence[Logger], report: Callable[[str], None]) -> None:
        self._waiting = list(loggers)
        self._active: List[Logger] = []
        self._report = report

    def start(self, run: RunInfo) -> None:
        """Start all loggers; see `Logger.start`.

        Raises:
            IpucnnError: a logger rejects the training; those already started are finished.
        """
        for logger in self._waiting:
            try:
                logger.start(run)
            except IpucnnError:
                self.finish(FAILED, {})
                raise
            except GUARDED as error:
                self._switched_off(logger, "start", error)
            else:
                self._active.append(logger)
        self._waiting = []

    def row(self, row: Mapping[str, Any]) -> None:
        """Record a row; see `Logger.row`."""
        self._each("record a row", lambda logger: logger.row(dict(row)))

    def confusion(self, figures: Mapping[str, Any], confusion: Sequence[Sequence[int]],
                  names: Sequence[str]) -> None:
        """Record a confusion matrix; see `Logger.confusion`."""
        self._each("record a confusion matrix",
                   lambda logger: logger.confusion(dict(figures), confusion, names))

    @property
    def show_samples(self) -> bool:
        """Whether a logger records training images."""
        return any(type(logger).samples is not Logger.samples for logger in self._active)

    def samples(self, images: Any, names: Sequence[str], update: int) -> None:
        """Record training images; see `Logger.samples`."""
        self._each("record images", lambda logger: logger.samples(images, names, update))

    def checkpoint(self, path: Path, epoch: int, update: int) -> None:
        """Record a checkpoint; see `Logger.checkpoint`."""
        self._each("record a checkpoint", lambda logger: logger.checkpoint(path, epoch, update))

    def best(self, figures: Mapping[str, Any]) -> None:
        """Record the best validation; see `Logger.best`."""
        self._each("record the best validation", lambda logger: logger.best(dict(figures)))

    def finish(self, status: str, result: Dict[str, Any]) -> Optional[IpucnnError]:
        """Finish all recordings, see `Logger.finish`; return the error of one that lost rows.

        Further calls do nothing.
        """
        unrecorded: Optional[IpucnnError] = None

        def finish(logger: Logger) -> Optional[str]:
            nonlocal unrecorded
            try:
                return logger.finish(status, dict(result))
            except IpucnnError as error:
                unrecorded = unrecorded or error
                return None

        self._each("finish", finish)
        self._active = []
        return unrecorded

    def _each(self, action: str, call: Callable[[Logger], Optional[str]]) -> None:
        for logger in list(self._active):
            try:
                note = call(logger)
            except GUARDED as error:
                self._active.remove(logger)
                self._switched_off(logger, action, error)
            else:
                # a logger may return what its writer returns, such as a number of characters
                if isinstance(note, str) and note:
                    self._report(note)

    def _switched_off(self, logger: Logger, action: str, error: BaseException) -> None:
        name = logger.name or type(logger).__name__
        self._report(f"logger {name!r} could not {action} and is switched off: {cause_of(error)}")
