"""Show how a download goes in a terminal, or in a log where there is no terminal."""

import sys
import time

from tqdm import tqdm

from .hub import Progress

EVERY = 5.0  # seconds between two lines where nothing can be drawn over


class StderrProgress:
    """Report a download on stderr: a bar on a terminal, else a line now and then."""

    def __init__(self, name: str):
        self._name = name
        self._bar: tqdm | None = None
        self._last = ("", 0.0)

    def __enter__(self) -> "StderrProgress":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: Progress) -> None:
        """Show the state of now."""
        if progress.note == "token" and self._last[0] != "token":
            self._write("your Hugging Face token is not valid; asking once more without it")
            self._last = ("token", self._last[1])
        if sys.stderr.isatty() and progress.total:
            self._draw(progress)
        elif (progress.phase != self._last[0] and progress.phase != "files") or self._due(progress):
            self._write(progress.sentence(self._name))
            self._last = (progress.phase, time.monotonic())

    def _due(self, progress: Progress) -> bool:
        return bool(progress.done) and time.monotonic() - self._last[1] >= EVERY

    def _draw(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = tqdm(total=progress.total, unit="B", unit_scale=True, desc=self._name)
        self._bar.total = progress.total
        self._bar.update(progress.done - self._bar.n)

    def _write(self, text: str) -> None:
        sys.stderr.write(f"dinodemo: {text}\n")
        sys.stderr.flush()
