"""A thread-safe LRU cache."""

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
    """A thread-safe LRU cache of `limit` values that are expensive to compute.

    Concurrent requests for a value compute it once; different values are computed in parallel.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._places: OrderedDict[Hashable, _Place[Value]] = OrderedDict()

    def __call__(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of `key`, computed if not cached; errors of `make` are not cached."""
        with self._lock:
            place = self._places.setdefault(key, _Place())
            self._places.move_to_end(key)
            while len(self._places) > self._limit:
                self._places.popitem(last=False)
        with place.lock:
            if place.value is None:
                place.value = make()
            return place.value
