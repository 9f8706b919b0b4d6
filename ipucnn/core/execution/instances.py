"""The interface for communication between the processes of one run.

An **instance** is one of these processes. Instances exchange values through `Instances`; the base
class is a single process. A launcher starts the processes (`ipucnn.core.execution.launching`).
"""

from __future__ import annotations

from contextlib import nullcontext
from time import monotonic
from typing import (
    TYPE_CHECKING,
    Any,
    ContextManager,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from ipucnn.core.errors import UsageError

if TYPE_CHECKING:
    import torch


class Instances:
    """The processes that share one run; the base class is a single process.

    Unless stated otherwise, all methods are collective: every instance calls them, in the same
    order.

    Attributes:
        index: number of this instance, from 0.
        count: number of instances.
        by_torch: whether a group of torch.distributed connects them.
        timeout: seconds until an exchange fails, for process groups that a session creates; None
            for the default of the library.
        in_step: whether the instances execute the same host call at about the same time; otherwise
            they run independently.
    """

    index: int = 0
    count: int = 1
    by_torch: bool = False
    timeout: Optional[float] = None
    in_step: bool = True

    def gather(self, value: Any) -> List[Any]:
        """Return the values of all instances in the order of their index.

        Args:
            value: plain types; integers of any size arrive exactly.
        """
        return [value]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum over all instances; float64 or int64."""
        return tensor

    def share(self, weights: Dict[str, torch.Tensor]) -> None:
        """Copy the weights and buffers of the first instance to all, in place."""

    def connected(self) -> ContextManager[None]:
        """Return a context for a session that exchanges data without this class.

        A failed exchange in this context is reported like one of this class. Not collective.
        """
        return nullcontext()

    def failing(self, error: Exception) -> None:
        """Announce that this instance failed, before its last `gather`.

        Not collective.
        """

    def totals(self, values: Sequence[float]) -> List[float]:
        """Return the sum of each value over all instances."""
        return [sum(column) for column in zip(*self.gather(list(values)))]


ALONE = Instances()
"""A single process."""


class Agreement:
    """Makes all instances stop, or save, at the same host call.

    Instances receive a signal at different times, and if one stopped alone, the others would wait
    for it. They exchange requests about once every `SECONDS`, not at every
    call, because an exchange takes milliseconds.

    Args:
        instances: the processes that have to agree.
    """

    SECONDS = 1.0

    def __init__(self, instances: Instances) -> None:
        self._instances = instances
        self._left = 1
        self._calls, self._since = 0, monotonic()

    def __call__(self, stop: str, save: bool, now: bool = False) -> Tuple[str, bool]:
        """Return the reason why all instances stop, or an empty string, and whether all save.

        Args:
            stop: the reason why this instance should stop, or an empty string.
            save: whether this instance should save.
            now: exchange in this call, even if no exchange is due.
        """
        if self._instances.count == 1:
            return stop, save
        self._calls += 1
        self._left -= 1
        if self._left > 0 and not now:
            return "", False
        seconds = (monotonic() - self._since) / self._calls
        wishes = self._instances.gather([stop, save, seconds])
        self._left = max(1, round(self.SECONDS / max(wishes[0][2], 1e-6)))
        self._calls, self._since = 0, monotonic()
        return next((reason for reason, _, _ in wishes if reason), ""), any(
            wanted for _, wanted, _ in wishes)


def check_equal(instances: Instances, own: Mapping[str, Any], hint: str) -> None:
    """Raise an error in all processes if one has other values than the first one; collective.

    Args:
        instances: the processes.
        own: values of this process, plain types, by their names in messages.
        hint: of the error.

    Raises:
        UsageError: names the first process that differs, and the difference.
    """
    if instances.count == 1:
        return
    first, *others = instances.gather(dict(own))
    for number, other in enumerate(others, 2):
        for name in first:
            if other.get(name) != first[name]:
                raise UsageError(
                    f"instance {number} of {instances.count} has {name} {other.get(name)!r}, and "
                    f"the first one {first[name]!r}", hint)
