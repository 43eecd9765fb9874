"""Run a long function in a thread, tell its progress to the page step by step, and stop it when asked."""

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Stopped(RuntimeError):
    """A person stopped the work."""


class Work:
    """One long computation: function(progress) runs in a thread, and progress(done, total, message) may stop it."""

    def __init__(self, function: Callable[[Callable], Any]):
        self._function, self._stop = function, threading.Event()
        self._steps: queue.Queue[tuple[float, str] | BaseException | None] = queue.Queue()

    def __deepcopy__(self, memo):  # gr.State copies what it is given at first; a running thing stays itself
        return self

    def stop(self) -> None:
        """Ask the computation to stop at its next step."""
        self._stop.set()

    def asked_to_stop(self) -> bool:
        """Return whether `stop` was called, or the visitor left, for work that ends in its own way."""
        return self._stop.is_set()

    def steps(self) -> Iterator[tuple[float, str]]:
        """Start, and yield (share done, message) until it ends; its result is then in `result`, its error is raised."""
        here = contextvars.copy_context()  # so that the thread's work counts for the request that started it
        threading.Thread(target=here.run, args=(self._run,), daemon=True).start()
        try:
            while True:
                step = self._steps.get()
                if isinstance(step, BaseException):
                    raise step
                if step is None:
                    return
                yield step
        except GeneratorExit:  # the visitor has left: nobody waits for the rest
            self._stop.set()
            raise

    def _run(self) -> None:
        try:
            self.result = self._function(self._progress)
            self._steps.put(None)
        except BaseException as error:
            self._steps.put(error)

    def report(self, done: int, total: int | None, message: str = "") -> None:
        """Report how far the work is and never stop it: for work that asks `asked_to_stop` and ends in its own way.

        Args:
            done: Steps done.
            total: Steps in all, None where that is not known.
            message: What is done now.
        """
        self._steps.put((done / total if total else 0.0, message))

    def _progress(self, done: int, total: int | None, message: str = "") -> None:
        if self._stop.is_set():
            raise Stopped("stopped; nothing was changed")
        self.report(done, total, message)
