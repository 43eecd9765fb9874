"""The files of a run: config, status, metrics, log, report, snapshots, checkpoints. Each is complete or not there."""

import errno
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..io.files import lock, read_json_lines, whole_file
from ..io.states import RunState

HEARTBEAT_SECONDS = 2.0
FULL_BYTES = 1_000_000  # free on a disk that counts as full
_CHECKPOINT = re.compile(r"step-(\d{8})\.pt")


class DiskFull(RuntimeError):
    """A file could not be written; the file it was to replace is unchanged."""


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file that replaces `path` only once it is complete and flushed to disk.

    Args:
        path: To replace; its folder is made where it is missing.
        write: Fills the open file.

    Raises:
        DiskFull: It could not be written; `path` is unchanged.
    """
    try:
        with whole_file(path, suffix=".tmp", durable=True) as part, part.open("wb") as file:
            _write_or_say_full(part, lambda: write(file))
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if full else f"{type(error).__name__}: {error}"
        raise DiskFull(f"{path} could not be written ({reason}); free some space and resume the run") from error


def _write_or_say_full(part: Path, write: Callable[[], Any]) -> None:
    try:
        write()
    except RuntimeError as error:  # torch does not say why; while the part is there the disk shows it
        if shutil.disk_usage(part.parent).free < FULL_BYTES:
            raise OSError(errno.ENOSPC, "the disk is full") from error
        raise


@dataclass
class Status:
    """The content of status.json, to which the process id and the heartbeat (Unix time, s) are added."""

    state: RunState = RunState.RUNNING
    step: int = 0
    total: int = 0
    eta_s: float | None = None  # seconds to go, None while unknown
    message: str = ""


class RunFolder:
    """Write a run's files; only the first rank has one. `status` is kept up to date by `report_status`."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints, self.export = path / "checkpoints", path / "export"
        self.status = Status()
        self._written = -math.inf
        self._tensorboard = None

    @property
    def pause_wanted(self) -> bool:
        """Return whether the folder holds a file called `pause`."""
        return (self.path / "pause").exists()

    def report_status(self, force: bool = False, **changes: Any) -> None:
        """Change fields of the status and write it, at most every two seconds unless the state changes.

        Args:
            force: Write in any case.
            **changes: Fields of `Status`.
        """
        if "state" in changes:
            changes["state"] = RunState(changes["state"])
        force |= changes.get("state", self.status.state) != self.status.state
        for name, value in changes.items():
            setattr(self.status, name, value)
        if force or time.monotonic() - self._written > HEARTBEAT_SECONDS:  # of a clock that nobody sets
            self._written = time.monotonic()
            self.write_json("status.json", {**vars(self.status), "pid": os.getpid(), "heartbeat": time.time()})

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Append one object to metrics.jsonl, and its numbers to TensorBoard's event file where that is installed."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._tensorboard:
            numbers = {k: v for k, v in line.items() if isinstance(v, int | float) and k != "step"}
            for name, value in numbers.items():
                self._tensorboard.add_scalar(f"{line['kind']}/{name}", value, line["step"])

    def add_snapshot(self, step: int, patches: Tensor, attention: Tensor) -> None:
        """Write the teacher's view of a few photos to film/step-N.npz, in float16.

        Args:
            step: Of the evaluation.
            patches: Tokens (n, h, w, D).
            attention: Of the CLS token, (n, h, w).
        """
        path = self.path / "film" / f"step-{step:08d}.npz"
        seen, attended = patches.half().numpy(), attention.half().numpy()
        write_atomically(path, lambda file: np.savez_compressed(file, patches=seen, attention=attended))

    def forget_metrics_after(self, step: int) -> None:
        """Drop the lines of steps that a resumed run will repeat, and a partly written last line."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            kept = [line for line in read_metrics(self.path) if line["step"] <= step]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            write_atomically(path, lambda file: file.write(text.encode()))

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file in one piece.

        Args:
            name: In the run's folder.
            content: To write.

        Raises:
            DiskFull: It could not be written.
        """
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda file: file.write(text.encode()))

    @contextmanager
    def open(self, log: logging.Logger) -> Iterator["RunFolder"]:
        """Lock the folder and send the log to log.txt while the block runs.

        Args:
            log: The training's logger.

        Yields:
            This folder.

        Raises:
            ValueError: Another process runs in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with lock(self.path / ".lock") as mine:
            if not mine:
                raise ValueError(f"another process is training in {self.path}; wait for it or choose another")
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
    """Return the content of a JSON file of a run; raises ValueError that names it."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); is {path.parent} the folder of a run?") from error


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl that tell their step; a partly written last line is left out."""
    return [line for line in read_json_lines(run / "metrics.jsonl") if isinstance(line.get("step"), int)]


def save_checkpoint(folder: Path, step: int, state: dict) -> Path:
    """Write the state of a step into a run's checkpoints folder.

    Args:
        folder: Of the checkpoints.
        step: Its number.
        state: Tensors and plain values.

    Returns:
        The path.

    Raises:
        DiskFull: It could not be written.
    """
    path = checkpoint_path(folder, step)
    write_atomically(path, lambda file: torch.save(state, file))
    return path


def load_checkpoint(path: Path) -> dict:
    """Return a checkpoint on the CPU, tensors and plain values only; raises ValueError when it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to resume from the one before") from error


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of a folder's checkpoints, oldest first."""
    found = [_CHECKPOINT.fullmatch(path.name) for path in folder.glob("step-*.pt")] if folder.is_dir() else []
    return sorted(int(match[1]) for match in found if match)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of `step` in `folder`."""
    return folder / f"step-{step:08d}.pt"


def load_newest_checkpoint(folder: Path) -> dict | None:
    """Return the newest checkpoint, None when there is none; raises ValueError when it is damaged."""
    found = checkpoint_steps(folder)
    return load_checkpoint(checkpoint_path(folder, found[-1])) if found else None


def prune_checkpoints(folder: Path, keep_last: int, keep: Iterable[int] = ()) -> None:
    """Delete all checkpoints but the newest and those that are named.

    Args:
        folder: Of the checkpoints.
        keep_last: How many of the newest stay.
        keep: Steps whose checkpoints stay too.
    """
    found, kept = checkpoint_steps(folder), set(keep)
    for step in found[:-keep_last]:
        if step not in kept:
            checkpoint_path(folder, step).unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Delete the partly written files of a run that was killed."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _event_writer(path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path / "tensorboard"))
