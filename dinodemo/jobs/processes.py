"""Start the process of a run, and ask the system about processes and locks: who lives, who holds what."""

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ..io.files import lock

SAME_START = 2.0  # seconds by which two readings of when a process started may differ


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a run's folder."""
    if not path.is_file():
        return False
    with lock(path) as free:
        return not free


def started_at(pid: int) -> float | None:
    """Return when a process started, in seconds since 1970 as the clock stood then; None when it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def is_training(pid: object, path: Path, started: object = None) -> bool:
    """Return whether a process is the one that trains in a folder, and not a stranger with the same number.

    Args:
        pid: The number that was written down for it, perhaps long ago; anything else is no process.
        path: The run's folder, which its command line names.
        started: What `started_at` said of it. It decides alone where the command line cannot be read: clocks are set.
    """
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        with contextlib.suppress(psutil.AccessDenied):
            command = process.cmdline()
            if command:  # none yet for a moment after the start
                return any(str(path) in argument for argument in command)
        return isinstance(started, float) and abs(process.create_time() - started) < SAME_START
    except (psutil.Error, OverflowError):
        return False


def last_line(path: Path) -> str:
    """Return a text file's last line; an empty one when there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].removeprefix("dinodemo: ")[:300] if lines else ""


def free_memory() -> int:
    """Return the bytes of memory that can be had."""
    return psutil.virtual_memory().available


def be_nice(pid: int, niceness: int) -> None:
    """Give a process group the lowest CPU priority and make it the first to be ended when memory runs out.

    One that is gone, or a system without such ranks, is let be.

    Linux may weigh sessions against each other before it looks at their processes (man 7 sched, autogroup), so that a
    process's own niceness alone means nothing beside those of other sessions.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")  # the most there is (man 5 proc)


def launch(command: Sequence[str], path: Path, request: Mapping[str, Any], threads: int) -> subprocess.Popen:
    """Start the process of a run, which goes on when this one ends.

    Args:
        command: Of the training.
        path: Of the run; one that has begun already is resumed.
        request: What was asked for.
        threads: That it computes with.

    Returns:
        The process; it writes what it prints to `output.txt`.
    """
    arguments = [*command, "--out", str(path), "--threads", str(threads)]
    if (path / "config.json").is_file():
        arguments.append("--resume")
    else:
        arguments += [request["folder"], "--backbone", request["backbone"], "--device", request["device"]]
        for name, value in request["settings"].items():
            arguments += ["--set", f"{name}={value}"]
    with (path / "output.txt").open("wb") as output:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )
