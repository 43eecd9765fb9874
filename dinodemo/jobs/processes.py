"""Ask the system about processes and locks: who lives, who holds what, how much memory is left."""

import contextlib
import os
import sys
from pathlib import Path

from ..io.files import lock


def is_locked(path: Path) -> bool:
    """Tell whether a process holds the lock of a run's folder."""
    if not path.is_file():
        return False
    with lock(path) as free:
        return not free


def is_training(pid: int | None, path: Path) -> bool:
    """Tell whether a process is the one that trains in a folder, and not a stranger with the same number."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except PermissionError:
        return False
    except FileNotFoundError:  # a system without /proc
        return sys.platform != "linux"
    except OSError:
        return False
    return str(path).encode() in command


def last_line(path: Path) -> str:
    """Return a text file's last line; an empty one when there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].removeprefix("dinodemo: ")[:300] if lines else ""


def free_memory() -> int:
    """Return the bytes of memory that can be had; very much where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 62
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 1 << 62)


def be_nice(pid: int, niceness: int) -> None:
    """Let a process that leads a session stand back: it computes last, and is ended first when memory runs out.

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
