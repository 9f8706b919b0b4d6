"""The host processes that share one piece of work, as `poprun` starts them.

In its words, an **instance** is one of these processes; each has an equal share of the replicas.
Everything that instances must do together goes through `Instances`; one that works alone has
nobody to ask, and every answer is its own.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple, TypeVar

from ipucnn.core.errors import UsageError

if TYPE_CHECKING:
    import torch

    from ipucnn.inference.predictions import PredictionWriter

Options = TypeVar("Options", bound=Any)

BUILD_HOROVOD = ("build Horovod against this environment's torch: HOROVOD_WITH_PYTORCH=1 "
                 "pip install --no-binary horovod horovod==0.28.1")
"""What people do who lack it; a Horovod that was built for another torch does not load."""


@dataclass(frozen=True)
class Launch:
    """What `poprun` tells a process in its environment.

    Attributes:
        index: of this instance, from 0.
        count: instances.
        replicas: over all instances.
    """

    index: int
    count: int
    replicas: int


def launched(environment: Optional[Mapping[str, str]] = None) -> Optional[Launch]:
    """Return what `poprun` says of this process, or None when something else started it.

    Source: the variables that PopDist documents, in a log of `poprun`.

    Raises:
        UsageError: a variable is not a number, or the instances differ in size.
    """
    variables = os.environ if environment is None else environment
    if "POPDIST_NUM_TOTAL_REPLICAS" not in variables:
        return None
    total, local, offset = (_number(variables, f"POPDIST_{name}", default) for name, default in (
        ("NUM_TOTAL_REPLICAS", 1), ("NUM_LOCAL_REPLICAS", 1), ("REPLICA_INDEX_OFFSET", 0)))
    if total % local or offset % local:
        raise UsageError(f"poprun gave this instance {local} of {total} replicas",
                         "let '--num-replicas' be a multiple of '--num-instances'")
    return Launch(offset // local, total // local, total)


def _number(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name, str(default))
    if not text.isdecimal() or (name != "POPDIST_REPLICA_INDEX_OFFSET" and int(text) < 1):
        raise UsageError(f"environment variable {name} is {text!r}",
                         "it is set by poprun: unset it to run one process")
    return int(text)


def speaks() -> bool:
    """Return whether this process is the one that tells results: the first instance, or alone."""
    try:
        launch = launched()
    except UsageError:  # what works with the others says so
        return True
    return launch is None or launch.index == 0


def own_name() -> str:
    """Return what begins a message of this process: "instance 2 of 4: ", or nothing if alone."""
    with suppress(UsageError):
        launch = launched()
        if launch is not None and launch.count > 1:
            return f"instance {launch.index + 1} of {launch.count}: "
    return ""


class Instances:
    """The processes of one piece of work; this class is one process that works alone.

    All methods but those that say otherwise are collective: every instance calls them, in the same
    order.

    Attributes:
        index: of this instance, from 0.
        count: instances.
        in_step: they are at the same host call, or nearly; otherwise each goes on by itself.
    """

    index: int = 0
    count: int = 1
    in_step: bool = True

    def gather(self, value: Any) -> List[Any]:
        """Return the value of every instance, in their order; plain types, whole numbers exact."""
        return [value]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum over all instances; float64 or int64."""
        return tensor

    def share(self, weights: Dict[str, torch.Tensor]) -> None:
        """Give every instance the first one's weights and buffers, in place."""

    def prediction_writer(self, path: str, columns: Sequence[str]) -> PredictionWriter:
        """Return what writes this instance's rows; not collective."""
        from ipucnn.inference import predictions

        return predictions.writer_class(path)(Path(path), columns)

    def failing(self, error: Exception) -> None:
        """Say that this instance's work has failed, before the last `gather`; not collective."""

    def totals(self, values: Sequence[float]) -> List[float]:
        """Return the sums of some figures over all instances."""
        return [sum(column) for column in zip(*self.gather(list(values)))]


ALONE = Instances()
"""One process."""


def fitted(options: Options) -> Tuple[Options, List[str]]:
    """Return options with the replicas that `poprun` gives, and what the user should know.

    The launcher decides: IPUs are given out for its number of replicas.
    """
    launch = launched()
    if launch is None or options.replicas == launch.replicas:
        return options, []
    asked, options = options.replicas, replace(options, replicas=launch.replicas)
    if asked == type(options).replicas:
        return options, []
    return options, [f"poprun started {launch.replicas} replicas: '--replicas {asked}' is not used"]


def launched_count() -> int:
    """Return how many instances there are."""
    launch = launched()
    return 1 if launch is None else launch.count


class Agreement:
    """Has all instances stop, or save, at the same host call.

    A signal reaches them at different moments, and one that stopped by itself would leave the
    others waiting for it. They ask each other about once in `SECONDS`, not at every call, because
    an answer takes milliseconds.

    Args:
        instances: who has to agree.
    """

    SECONDS = 1.0

    def __init__(self, instances: Instances) -> None:
        self._instances = instances
        self._left = 1
        self._calls, self._since = 0, monotonic()

    def __call__(self, stop: str, save: bool, now: bool = False) -> Tuple[str, bool]:
        """Return why all stop, or an empty string, and whether all save.

        Args:
            stop: why this instance wants to stop, or an empty string.
            save: whether this instance wants to save.
            now: do not wait for the next time they ask each other.
        """
        if self._instances.count == 1:
            return stop, save
        self._calls += 1
        self._left -= 1
        if self._left > 0 and not now:
            return "", False
        seconds = (monotonic() - self._since) / self._calls
        told = self._instances.gather([stop, save, seconds])
        self._left = max(1, round(self.SECONDS / max(told[0][2], 1e-6)))
        self._calls, self._since = 0, monotonic()
        return next((reason for reason, _, _ in told if reason), ""), any(
            wanted for _, wanted, _ in told)
