"""The files of a run that other programs and people read: config, status, metrics, log, report."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .checkpoint import write_atomically

HEARTBEAT_SECONDS = 2.0
STATES = ("queued", "running", "paused", "interrupted", "stopped", "failed", "collapsed", "finished")


@dataclass
class Status:
    """Hold what status.json says. eta_s: seconds to go, None while unknown; heartbeat: seconds since 1970."""

    state: str = "running"
    step: int = 0
    total: int = 0
    eta_s: float | None = None
    message: str = ""


class RunFolder:
    """Write a run's files; only the first rank has one. `status` is kept up to date by `report_status`."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints, self.export = path / "checkpoints", path / "export"
        self.status = Status()
        self._written = 0.0
        self._tensorboard = None

    @property
    def pause_wanted(self) -> bool:
        """Tell whether somebody has put a file called `pause` into the folder."""
        return (self.path / "pause").exists()

    def report_status(self, force: bool = False, **changes: Any) -> None:
        """Change fields of the status and write it, at most every two seconds unless the state changes or force."""
        if "state" in changes and changes["state"] not in STATES:
            raise ValueError(f"a run's state is one of {', '.join(STATES)}, not {changes['state']!r}")
        force |= changes.get("state", self.status.state) != self.status.state
        for name, value in changes.items():
            setattr(self.status, name, value)
        if force or time.time() - self._written > HEARTBEAT_SECONDS:
            self._written = time.time()
            self.write_json("status.json", {**vars(self.status), "pid": os.getpid(), "heartbeat": self._written})

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Append one object to metrics.jsonl, and its numbers to TensorBoard's event file where that is installed."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._tensorboard:
            numbers = {k: v for k, v in line.items() if isinstance(v, int | float) and k != "step"}
            for name, value in numbers.items():
                self._tensorboard.add_scalar(f"{line['kind']}/{name}", value, line["step"])

    def add_film(self, step: int, patches: Tensor, attention: Tensor) -> None:
        """Keep what the teacher makes of a few photos at an evaluation, in film/step-N.npz, float16.

        patches: (photos, h, w, D) tokens. attention: (photos, h, w), the CLS token's.
        """
        path = self.path / "film" / f"step-{step:08d}.npz"
        arrays = {"patches": patches.half().numpy(), "attention": attention.half().numpy()}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    def forget_metrics_after(self, step: int) -> None:
        """Drop the lines of steps that a resumed run will do again, and a half-written last line."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            kept = [line for line in read_metrics(self.path) if line["step"] <= step]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            write_atomically(path, lambda file: file.write(text.encode()))

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file in one piece."""
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda file: file.write(text.encode()))

    @contextmanager
    def open(self, log: logging.Logger) -> Iterator["RunFolder"]:
        """Lock the folder, send the log to log.txt; raises ValueError when another process runs in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with _lock(self.path / ".lock"):
            handler = logging.FileHandler(self.path / "log.txt", encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            level = log.level
            log.addHandler(handler)
            log.setLevel(min(level or logging.INFO, logging.INFO))
            self._tensorboard = _event_writer(self.path)
            try:
                yield self
            finally:
                log.removeHandler(handler)
                log.setLevel(level)
                handler.close()
                if self._tensorboard:
                    self._tensorboard.close()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run; raises ValueError that names it."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); is {path.parent} the folder of a run?") from error


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl; a last line that is only half there is left out."""
    lines = []
    for text in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends. Systems without flock go without."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"another process is training in {path.parent}; wait for it or choose another") from error
        yield


def _event_writer(path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path / "tensorboard"))
