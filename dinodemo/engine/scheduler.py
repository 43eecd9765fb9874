"""One device, many askers: requests of equal shape that wait for the device are run as one batch."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .devices import is_out_of_memory


@dataclass(eq=False)
class Request:
    """Ask for one picture. rgb: (H, W, 3) uint8, whole patches; options: what makes requests mergeable when equal."""

    rgb: np.ndarray
    options: tuple
    answer: Future = field(default_factory=Future)

    @property
    def kind(self) -> tuple:
        return self.rgb.shape, self.options


class Scheduler:
    """Run requests on a device that only one thread may use at a time.

    Whoever gets the device takes along every waiting request of the same kind, so no background thread is needed.
    run(rgbs, options) gets (B, H, W, 3) uint8 and returns one result a picture.
    """

    def __init__(self, run: Callable[[np.ndarray, tuple], list[Any]], device_lock: AbstractContextManager, merge: bool):
        self._run, self._device_lock, self._merge = run, device_lock, merge
        self._waiting: list[Request] = []
        self._lock = threading.Lock()

    def ask(self, request: Request, most: int) -> Any:
        """Run a request, alone or merged with up to `most - 1` equal ones; returns its result or raises its error."""
        with self._lock:
            self._waiting.append(request)
        with self._device_lock:
            if not request.answer.done():
                self._answer(self._take(request, most if self._merge else 1))
        return request.answer.result()

    def run_batch(self, rgbs: np.ndarray, options: tuple) -> list[Any]:
        """Run a ready batch at once (holding the device only for this batch); halves it when memory runs out."""
        with self._device_lock:
            return self._run_halving(rgbs, options)

    def _take(self, first: Request, most: int) -> list[Request]:
        with self._lock:
            equal = [r for r in self._waiting if r is not first and r.kind == first.kind]
            batch = [first, *equal[: most - 1]]
            self._waiting = [r for r in self._waiting if r not in batch]
        return batch

    def _answer(self, batch: list[Request]) -> None:
        try:
            results = self._run_halving(np.stack([r.rgb for r in batch]), batch[0].options)
        except BaseException as error:
            for request in batch:
                request.answer.set_exception(error)
            return
        for request, result in zip(batch, results, strict=True):
            request.answer.set_result(result)

    def _run_halving(self, rgbs: np.ndarray, options: tuple) -> list[Any]:
        try:
            return self._run(rgbs, options)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(rgbs) == 1:
                raise
        # outside the except block: the traceback would keep the failed batch's tensors alive
        half = len(rgbs) // 2
        return self._run_halving(rgbs[:half], options) + self._run_halving(rgbs[half:], options)
