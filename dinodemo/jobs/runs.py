"""Background runs of the training core: one process each, its folder the only truth.

A run is a folder ROOT/OWNER/ID. `request.json` says what was asked for and is written here; everything else is written
by the process (config.json, status.json, metrics.jsonl, log.txt, checkpoints/, export/). Whether the process lives is
asked of the lock it holds, so the answer is right after any crash, of the process or of the app.
"""

import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io.files import lock, read_json, write_json
from .processes import be_nice, free_memory, is_locked, is_training, last_line

log = logging.getLogger(__name__)
NICENESS = 10  # training yields to whoever waits for an answer
TICK = 1.0  # seconds between two looks at the runs
OVER = ("finished", "stopped", "failed", "collapsed", "interrupted")
_OWNER = re.compile(r"[A-Za-z0-9_-]{22,64}")
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Limits:
    """Hold what one server grants."""

    photos: int = 20_000  # in a run's folder
    photo_bytes: int = 5_000_000_000
    free_disk: int = 2_000_000_000  # that must stay free
    free_memory: int = 1_500_000_000  # that must be there before a run starts
    hours: float = 12.0  # of one run
    runs: int = 20  # kept of one person
    age_days: float = 14.0  # after which an ended run is removed
    threads: int = max(1, (os.cpu_count() or 2) // 2)  # of the training on a CPU


@dataclass(frozen=True)
class RunInfo:
    """Hold what is known of a run at this moment."""

    id: str
    name: str
    path: Path
    state: str  # queued, starting, running, paused, stopped, interrupted, failed, collapsed, finished
    step: int = 0
    total: int = 0
    eta_s: float | None = None
    message: str = ""
    place: int = 0  # in the queue, from 1

    @property
    def over(self) -> bool:
        """Tell whether nothing will happen any more unless somebody resumes it."""
        return self.state in OVER


class Runs:
    """Start, watch, stop and resume runs; safe to use from many threads, and by several apps on one folder."""

    def __init__(self, root: Path, limits: Limits | None = None, command: tuple[str, ...] | None = None):
        self.root, self.limits = Path(root), limits or Limits()
        self._command = command or (sys.executable, "-m", "dinodemo.train")
        self._children: dict[Path, subprocess.Popen] = {}
        self._lock = threading.Lock()

    def submit(
        self, owner: str, name: str, folder: Path, backbone: str, settings: Mapping[str, Any], device: str = "auto"
    ) -> str:
        """Put a run at the end of the queue and return its id.

        Raises ValueError when the folder or the person's number of runs is beyond the limits, RuntimeError when the
        disk is nearly full.
        """
        self._check_limits(owner, folder)
        run_id = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(4)
        request = {
            "name": " ".join(name.split())[:60] or "run",
            "folder": str(Path(folder).resolve()),
            "backbone": backbone,
            "settings": dict(settings),
            "device": device,
            "queued": time.time(),
            "launched": None,
            "pid": None,
            "wanted": "run",
        }
        path = self.owner_folder(owner) / run_id
        path.mkdir(parents=True)
        write_json(path / "request.json", request)
        return run_id

    def path(self, owner: str, run_id: str | None) -> Path:
        """Return a run's folder; raises ValueError for one that is not this person's."""
        path = self.owner_folder(owner) / run_id if isinstance(run_id, str) and _ID.fullmatch(run_id) else None
        if path is None or not (path / "request.json").is_file():
            raise ValueError("there is no such run; choose one from the list")
        return path

    def runs_of(self, owner: str) -> list[RunInfo]:
        """Return a person's runs, the newest first."""
        paths = sorted((p for p in self.owner_folder(owner).glob("*") if _is_run(p)), reverse=True)
        return [self._info(path) for path in paths]

    def folders_of(self, owner: str) -> list[Path]:
        """Return the folders of photos that a person's runs learn from."""
        requests = (read_json(p / "request.json") for p in self.owner_folder(owner).glob("*") if _is_run(p))
        return [Path(request["folder"]) for request in requests if "folder" in request]

    def info(self, owner: str, run_id: str | None) -> RunInfo:
        """Return what is known of one run."""
        return self._info(self.path(owner, run_id))

    def pause(self, owner: str, run_id: str | None) -> None:
        """Let a run stop at its next step until `go_on`; it keeps its memory."""
        (self.path(owner, run_id) / "pause").touch()

    def go_on(self, owner: str, run_id: str | None) -> None:
        """Let a paused run go on, or put one that stopped or was interrupted back into the queue.

        Raises ValueError for a run that has reached its end.
        """
        path = self.path(owner, run_id)
        (path / "pause").unlink(missing_ok=True)
        info = self._info(path)
        if info.state in ("finished", "collapsed"):
            raise ValueError(f"this run is {info.state}; start a new one, from its result if you like")
        if info.over:
            _change(path, queued=time.time(), launched=None, pid=None, wanted="run")

    def cancel(self, owner: str, run_id: str | None) -> None:
        """Ask a run to save and end; one that waits leaves the queue."""
        path = self.path(owner, run_id)
        _change(path, wanted="stop")
        self._signal(path, signal.SIGTERM)

    def delete(self, owner: str, run_id: str | None) -> None:
        """Remove a run with everything it made; raises ValueError while it is alive."""
        path = self.path(owner, run_id)
        if not self._info(path).over:
            raise ValueError("this run is not over; cancel it first")
        shutil.rmtree(path, ignore_errors=True)

    def watch(self) -> threading.Thread:
        """Look after all runs from now on, in a thread."""

        def forever() -> None:
            while True:
                try:
                    self.tick()
                except OSError:  # a folder that is being removed, a full disk: look again
                    pass
                except Exception:  # whatever it is, the other runs must go on being looked after
                    log.exception("looking after the runs failed; the next look is in a moment")
                time.sleep(TICK)

        thread = threading.Thread(target=forever, name="runs", daemon=True)
        thread.start()
        return thread

    def tick(self) -> None:
        """Start the next run of the queue if none is alive, end those beyond their time, remove the old ones."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock, lock(self.root / ".lock") as mine:
            for child in list(self._children.values()):
                child.poll()  # takes note of its end, or it would stay as a zombie
            if not mine:
                return  # another app looks after this folder
            infos = [self._info(path) for path in self._all()]
            alive = [info for info in infos if not info.over and info.state != "queued"]
            for info in alive:
                self._end_if_late(info)
            if not alive:
                waiting = sorted((i for i in infos if i.state == "queued"), key=lambda i: i.place)
                if waiting and free_memory() >= self.limits.free_memory:
                    self._launch(waiting[0].path)
            self._sweep(infos)

    def _info(self, path: Path) -> RunInfo:
        request, status = read_json(path / "request.json"), read_json(path / "status.json")
        state, message = self._state(path, request, status)
        known = {"step": status.get("step", 0), "total": status.get("total", 0)}
        return RunInfo(
            path.name,
            request.get("name", "run"),
            path,
            state,
            **known,
            message=message,
            eta_s=status.get("eta_s") if state == "running" else None,
            place=self._place(path, request) if state == "queued" else 0,
        )

    def _state(self, path: Path, request: dict, status: dict) -> tuple[str, str]:
        """Return the true state and what to say of it."""
        if "queued" not in request or "folder" not in request:
            return "failed", "its request.json is damaged; delete it and start a new run"
        if not request.get("launched"):
            return ("stopped", "taken out of the queue") if request.get("wanted") == "stop" else ("queued", "")
        told, message = status.get("state"), status.get("message", "")
        # by the process, too: a clock that was set back makes every heartbeat look old
        fresh = status.get("heartbeat", 0) >= request["launched"] or status.get("pid", 0) == request.get("pid")
        if self._is_alive(path, request):
            return (told, message) if fresh and told in ("running", "paused") else ("starting", "loading the network")
        if fresh and told in ("finished", "stopped", "failed", "collapsed"):
            return told, message
        if fresh:
            return "interrupted", f"the process ended at step {status.get('step', 0)} without a word; resume to go on"
        return "failed", last_line(path / "output.txt") or "the process could not be started"

    def _is_alive(self, path: Path, request: dict) -> bool:
        child = self._children.get(path)
        if child is not None and child.pid == request.get("pid"):
            return child.poll() is None
        # the lock is asked last: whoever asks holds it for a moment, and a process that starts would find it taken
        return is_training(request.get("pid"), path) or is_locked(path / ".lock")

    def _place(self, path: Path, request: dict) -> int:
        others = (read_json(p / "request.json") for p in self._all() if p != path)
        waiting = [r["queued"] for r in others if "queued" in r and not r.get("launched") and r.get("wanted") == "run"]
        return 1 + sum(queued < request["queued"] for queued in waiting)

    def _launch(self, path: Path) -> None:
        request = read_json(path / "request.json")
        arguments = [*self._command, "--out", str(path), "--threads", str(self.limits.threads)]
        if (path / "config.json").is_file():
            arguments.append("--resume")
        else:
            arguments += [request["folder"], "--backbone", request["backbone"], "--device", request["device"]]
            for name, value in request["settings"].items():
                arguments += ["--set", f"{name}={value}"]
        with (path / "output.txt").open("wb") as output:
            child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                close_fds=True,
            )
        self._children[path] = child
        _change(path, launched=time.time(), pid=child.pid)
        be_nice(child.pid, NICENESS)

    def _signal(self, path: Path, number: int) -> None:
        request = read_json(path / "request.json")
        pid = request.get("pid")
        if pid and request.get("launched") and is_training(pid, path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end_if_late(self, info: RunInfo) -> None:
        request = read_json(info.path / "request.json")
        hours = (time.time() - (request.get("launched") or time.time())) / 3600
        if hours > self.limits.hours or request.get("wanted") == "stop":
            self._signal(info.path, signal.SIGTERM)

    def _sweep(self, infos: list[RunInfo]) -> None:
        for info in infos:
            idle = time.time() - (info.path / "request.json").stat().st_mtime
            if info.over and idle > self.limits.age_days * 86400:
                shutil.rmtree(info.path, ignore_errors=True)
                self._children.pop(info.path, None)

    def _check_limits(self, owner: str, folder: Path) -> None:
        limits = self.limits
        if len(self.runs_of(owner)) >= limits.runs:
            raise ValueError(f"{limits.runs} runs are the most that are kept; delete one first")
        count = size = 0
        for root, _, names in os.walk(folder):
            count += len(names)
            size += sum(os.lstat(os.path.join(root, name)).st_size for name in names)
            if count > limits.photos or size > limits.photo_bytes:
                raise ValueError(
                    f"the folder holds more than the {limits.photos} files or {limits.photo_bytes / 1e9:g} GB that "
                    "this server takes; leave some out, or run dinodemo on your own machine"
                )
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < limits.free_disk:
            raise RuntimeError(f"the server's disk has {free / 1e9:.1f} GB left, too little for a run; delete old runs")

    def owner_folder(self, owner: str) -> Path:
        """Return where a person's runs lie; raises ValueError for what is no owner."""
        if not isinstance(owner, str) or not _OWNER.fullmatch(owner):
            raise ValueError("this page has lost its key to your runs; reload it")
        # hashed: a path may be seen by others, as a backbone's name or in a file, and must not tell the key
        return self.root / hashlib.sha256(owner.encode()).hexdigest()[:32]

    def _all(self) -> list[Path]:
        return [path for path in self.root.glob("*/*") if _is_run(path)]


def _is_run(path: Path) -> bool:
    return bool(_ID.fullmatch(path.name)) and (path / "request.json").is_file()


def _change(path: Path, **changes: Any) -> None:
    write_json(path / "request.json", {**read_json(path / "request.json"), **changes})
