"""A bounded cache that several threads share: the same question in flight is answered once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class SharedCache:
    """Keep the most recently used values up to `max_bytes`; values tell their size as `nbytes`.

    Errors are not kept: everybody who waited for a failed computation gets its error, the next one tries again.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._in_flight: dict[Hashable, Future] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], Any]) -> tuple[Any, bool]:
        """Return (value, True) from the cache or from a computation under way, else (compute(), False)."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key], True
            owner = key not in self._in_flight
            if owner:
                self._in_flight[key] = Future()
            future = self._in_flight[key]
        if not owner:
            return future.result(), True
        try:
            value = compute()
        except BaseException as error:
            with self._lock:
                del self._in_flight[key]
            future.set_exception(error)
            raise
        with self._lock:
            self._store(key, value)
            del self._in_flight[key]
        future.set_result(value)
        return value, False

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._values

    @property
    def nbytes(self) -> int:
        """Return the memory held by the kept values, in bytes."""
        return self._bytes

    def clear(self) -> None:
        """Forget everything that is kept."""
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def _store(self, key: Hashable, value: Any) -> None:
        if value.nbytes > self.max_bytes:
            return
        self._values[key] = value
        self._bytes += value.nbytes
        while self._bytes > self.max_bytes:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= dropped.nbytes
