"""What pages hold of results, together no more than the server's memory allows: the oldest are let go first."""

import threading
import weakref
from collections.abc import Callable
from typing import Any

import psutil

SHARE = 4  # pages hold this part of the memory at most: 1/4


class PageResults:
    """The results that one page holds, until others need the memory.

    Attributes:
        results: Whatever the page shows; an empty tuple once it was let go.
        gone: Whether it was.
    """

    def __init__(self) -> None:
        self.results: tuple[Any, ...] = ()
        self.gone, self.size = False, 0


class PageMemory:
    """Counts what all pages hold, and lets go of what was changed longest ago when that is too much."""

    def __init__(self, most: int | None = None):
        self.most = psutil.virtual_memory().total // SHARE if most is None else most  # bytes
        self._held: list[weakref.ref[PageResults]] = []  # the latest is the last
        self._lock = threading.Lock()

    def put(self, held: PageResults, results: tuple[Any, ...], size_of: Callable[[Any], int]) -> None:
        """Let a page hold results in the place of what it held; the oldest of other pages may go for it.

        Args:
            held: The page's.
            results: New ones.
            size_of: Returns the bytes of one of them.
        """
        with self._lock:
            held.results, held.gone, held.size = results, False, sum(map(size_of, results))
            alive = [one for ref in self._held if (one := ref()) is not None and one is not held and not one.gone]
            total = held.size + sum(one.size for one in alive)
            for one in alive:
                if total <= self.most:
                    break
                total -= one.size
                one.results, one.gone, one.size = (), True, 0
            self._held = [weakref.ref(one) for one in (*alive, held)]
