"""Checkpoints that survive anything: written beside, flushed to the disk, renamed; the newest readable one counts."""

import errno
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch

_NAME = re.compile(r"step-(\d{8})\.pt")


class DiskFull(RuntimeError):
    """Say that a file could not be written; what was there before is untouched."""


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write` fill a file that takes the place of `path` only when it is complete and on the disk.

    Raises DiskFull with a sentence when it cannot be written; then `path` is as it was.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        scratch.unlink(missing_ok=True)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if full else f"{type(error).__name__}: {error}"
        raise DiskFull(f"{path} could not be written ({reason}); free some space and resume the run") from error


def save(folder: Path, step: int, state: dict) -> Path:
    """Write the state of a step into a run's checkpoints folder; raises DiskFull."""
    path = folder / f"step-{step:08d}.pt"
    write_atomically(path, lambda file: torch.save(state, file))
    return path


def load(path: Path) -> dict:
    """Read a checkpoint onto the CPU, tensors and plain values only; raises ValueError when it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to resume from the one before") from error


def steps(folder: Path) -> list[int]:
    """Return the steps of a folder's checkpoints, oldest first."""
    found = [_NAME.fullmatch(path.name) for path in folder.glob("step-*.pt")] if folder.is_dir() else []
    return sorted(int(match[1]) for match in found if match)


def path_of(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}.pt"


def load_newest(folder: Path) -> dict | None:
    """Read the newest checkpoint, None when there is none; raises ValueError when it is damaged."""
    found = steps(folder)
    return load(path_of(folder, found[-1])) if found else None


def prune(folder: Path, keep_last: int, keep: Iterable[int] = ()) -> None:
    """Delete all checkpoints but the last few and those of the steps in `keep`."""
    found, kept = steps(folder), set(keep)
    for step in found[:-keep_last]:
        if step not in kept:
            path_of(folder, step).unlink(missing_ok=True)


def clean(folder: Path) -> None:
    """Delete half-written files of a run that was killed."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put a rename on the disk; systems that cannot open folders do so by themselves."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
