"""What was needed last, kept for threads that will need it again."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Callable, Generic, Hashable, Optional, TypeVar

Value = TypeVar("Value")


class _Place(Generic[Value]):
    def __init__(self) -> None:
        self.lock = Lock()
        self.value: Optional[Value] = None


class Kept(Generic[Value]):
    """Values that are dear to make: the last `limit` that were asked for.

    No two threads make the same value at once; different ones they do.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._places: OrderedDict[Hashable, _Place[Value]] = OrderedDict()

    def __call__(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of `key`, made where it is not kept; what `make` raises is not."""
        with self._lock:
            place = self._places.setdefault(key, _Place())
            self._places.move_to_end(key)
            while len(self._places) > self._limit:
                self._places.popitem(last=False)
        with place.lock:
            if place.value is None:
                place.value = make()
            return place.value
