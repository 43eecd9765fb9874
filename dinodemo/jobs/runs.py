"""Background runs of the training core: one process each, its folder the only truth.

A run is a folder ROOT/OWNER/ID. `request.json` says what was asked for and is written here; everything else is written
by the process (config.json, status.json, metrics.jsonl, log.txt, checkpoints/, export/). Whether the process lives is
asked of the lock it holds, so the answer is right after any crash, of the process or of the app.
"""

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..io import clock
from ..io.files import lock, read_json, write_json
from .admission import check_disk, check_folder, check_queue
from .processes import be_nice, free_memory, is_locked, is_training, last_line, launch, started_at
from .records import (
    RUN_ID,
    Limits,
    RunInfo,
    change_request,
    is_run,
    is_waiting,
    next_turn,
    owner_name,
    queue_positions,
    read_request,
    read_status_values,
)

__all__ = ["NICENESS", "Limits", "RunInfo", "Runs"]

log = logging.getLogger(__name__)
NICENESS = 10  # training yields to whoever waits for an answer
TICK = 1.0  # seconds between two looks at the runs
CLEAN_EVERY = 300.0  # seconds


class Runs:
    """Start, watch, stop and resume runs; safe to use from many threads, and by several apps on one folder."""

    def __init__(self, root: Path, limits: Limits | None = None, command: tuple[str, ...] | None = None):
        self.root, self.limits = Path(root), limits or Limits()
        self._command = command or (sys.executable, "-m", "dinodemo.train")
        self._children: dict[Path, subprocess.Popen] = {}
        self._addresses: dict[Path, str] = {}  # where runs came from: in memory alone, since it tells of a person
        self._cleaners: list[Callable[[], None]] = []
        self._cleaned = -math.inf
        self._lock = threading.Lock()

    def clean_with(self, cleaner: Callable[[], None]) -> None:
        """Call a function every few minutes while the runs are watched: it removes what nobody needs any more."""
        self._cleaners.append(cleaner)

    def submit(
        self,
        owner: str,
        name: str,
        folder: Path,
        backbone: str,
        settings: Mapping[str, Any],
        device: str = "auto",
        address: str = "",
    ) -> str:
        """Put a run at the end of the queue.

        Args:
            owner: The person's key.
            name: What the person calls the run.
            folder: The photos.
            backbone: A name of the registry, a folder, or "scratch".
            settings: Of the training that differ from its defaults.
            device: Where it trains.
            address: Where the request came from; an empty one has no limits of its own.

        Returns:
            The run's id.

        Raises:
            ValueError: When the folder, the person's number of runs, the queue or the address is beyond the limits.
            RuntimeError: When the disk is nearly full.
        """
        self._check_limits(owner, folder)
        self._check_queue(address)
        run_id = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(4)
        request = {
            "name": " ".join(name.split())[:60] or "run",
            "folder": str(Path(folder).resolve()),
            "backbone": backbone,
            "settings": dict(settings),
            "device": device,
            "queued": next_turn(self._requests()),
            "launched": None,
            "pid": None,
            "wanted": "run",
        }
        path = self.owner_folder(owner) / run_id
        path.mkdir(parents=True)
        write_json(path / "request.json", request)
        if address:
            self._addresses[path] = address
        return run_id

    def path(self, owner: str, run_id: str | None) -> Path:
        """Return a run's folder.

        Args:
            owner: The person's key.
            run_id: Of the run.

        Raises:
            ValueError: There is no such run of this person.
        """
        path = self.owner_folder(owner) / run_id if isinstance(run_id, str) and RUN_ID.fullmatch(run_id) else None
        if path is None or not (path / "request.json").is_file():
            raise ValueError("there is no such run; choose one from the list")
        return path

    def runs_of(self, owner: str) -> list[RunInfo]:
        """Return a person's runs, the newest first."""
        found = sorted((path for path in self.owner_folder(owner).glob("*") if is_run(path)), reverse=True)
        requests = {path: read_request(path) for path in found}
        line = queue_positions(self._requests()) if any(is_waiting(r) for r in requests.values()) else {}
        return [self._info(path, request, line) for path, request in requests.items()]

    def folders_in(self, owner_folder: Path) -> list[Path]:
        """Return the folders of photos that the runs of one person learn from."""
        requests = (read_request(path) for path in owner_folder.glob("*") if is_run(path))
        return [Path(request["folder"]) for request in requests if request]

    def info(self, owner: str, run_id: str | None) -> RunInfo:
        """Return what is known of one run.

        Args:
            owner: The person's key.
            run_id: Of the run.

        Raises:
            ValueError: There is no such run of this person.
        """
        path = self.path(owner, run_id)
        request = read_request(path)
        return self._info(path, request, queue_positions(self._requests()) if is_waiting(request) else {})

    def pause(self, owner: str, run_id: str | None) -> None:
        """Pause a run at its next step until `go_on`; it keeps its memory.

        Args:
            owner: The person's key.
            run_id: Of the run.

        Raises:
            ValueError: There is no such run of this person.
        """
        (self.path(owner, run_id) / "pause").touch()

    def go_on(self, owner: str, run_id: str | None) -> None:
        """Resume a paused run, or put one that stopped or was interrupted back into the queue.

        Args:
            owner: The person's key.
            run_id: Of the run.

        Raises:
            ValueError: There is no such run of this person, it has reached its end, or the queue is full.
        """
        path = self.path(owner, run_id)
        (path / "pause").unlink(missing_ok=True)
        info = self.info(owner, run_id)
        if info.state in ("finished", "collapsed"):
            raise ValueError(f"this run is {info.state}; start a new one, from its result if you like")
        if info.over:
            self._check_queue("")
            change_request(path, queued=next_turn(self._requests()), launched=None, pid=None, wanted="run")

    def cancel(self, owner: str, run_id: str | None) -> None:
        """Ask a run to save and end; one that waits leaves the queue.

        Args:
            owner: The person's key.
            run_id: Of the run.

        Raises:
            ValueError: There is no such run of this person.
        """
        path = self.path(owner, run_id)
        change_request(path, wanted="stop")
        self._signal(path, signal.SIGTERM)

    def delete(self, owner: str, run_id: str | None) -> None:
        """Remove a run with everything it made.

        Args:
            owner: The person's key.
            run_id: Of the run.

        Raises:
            ValueError: There is no such run of this person, or it is alive.
        """
        path = self.path(owner, run_id)
        if not self.info(owner, run_id).over:
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
        clock.look()
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock, lock(self.root / ".lock") as mine:
            for child in list(self._children.values()):
                child.poll()  # takes note of its end, or it would stay as a zombie
            if not mine:
                return  # another app looks after this folder
            requests = self._requests()  # each is read once a tick, however many there are
            line = queue_positions(requests)
            infos = [self._info(path, request, line) for path, request in requests.items()]
            alive = [info for info in infos if not info.over and info.state != "queued"]
            for info in alive:
                self._end_if_late(info, requests[info.path])
            waiting = [info for info in infos if info.queue_position == 1]
            if waiting and not alive and free_memory() >= self.limits.free_memory:
                self._launch(waiting[0].path)
            self._sweep(infos)
        self._clean()

    def _clean(self) -> None:
        if time.monotonic() - self._cleaned < CLEAN_EVERY:
            return
        self._cleaned = time.monotonic()
        for cleaner in self._cleaners:
            cleaner()

    def _info(self, path: Path, request: dict, line: dict[Path, int]) -> RunInfo:
        status = read_status_values(read_json(path / "status.json"))
        state, message = self._state(path, request, status)
        return RunInfo(
            path.name,
            request.get("name", "run"),
            path,
            state,
            step=status["step"],
            total=status["total"],
            message=message,
            eta_s=status["eta_s"] if state == "running" else None,
            queue_position=line.get(path, 0) if state == "queued" else 0,
        )

    def _state(self, path: Path, request: dict, status: dict) -> tuple[str, str]:
        """Return the true state and what to say of it."""
        if not request:
            return "failed", "its request.json is damaged; delete it and start a new run"
        if not request.get("launched"):
            return ("stopped", "taken out of the queue") if request.get("wanted") == "stop" else ("queued", "")
        reported, message = status["state"], status["message"]
        # by the process, too: a clock that was set back makes every heartbeat look old
        fresh = status["heartbeat"] >= request["launched"] or status["pid"] == (request["pid"] or 0)
        if self._is_alive(path, request):
            known = fresh and reported in ("running", "paused")
            return (reported, message) if known else ("starting", "loading the network")
        if fresh and reported in ("finished", "stopped", "failed", "collapsed"):
            return reported, message
        if fresh:
            return "interrupted", f"the process ended at step {status['step']} without a word; resume to go on"
        if request["wanted"] == "stop":
            return "stopped", "stopped before its first step"
        return "failed", last_line(path / "output.txt") or "the process could not be started"

    def _is_alive(self, path: Path, request: dict) -> bool:
        child = self._children.get(path)
        if child is not None and child.pid == request.get("pid"):
            return child.poll() is None
        # the lock is asked last: whoever asks holds it for a moment, and a process that starts would find it taken
        return is_training(request["pid"], path, request.get("started")) or is_locked(path / ".lock")

    def _launch(self, path: Path) -> None:
        child = self._children[path] = launch(self._command, path, read_request(path), self.limits.threads)
        change_request(path, launched=time.time(), pid=child.pid, started=started_at(child.pid))
        be_nice(child.pid, NICENESS)

    def _signal(self, path: Path, number: int) -> None:
        request = read_request(path)
        if request and request["launched"] and is_training(request["pid"], path, request.get("started")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(request["pid"], number)

    def _end_if_late(self, info: RunInfo, request: dict) -> None:
        hours = clock.age(request["launched"]) / 3600 if request.get("launched") else 0.0
        if hours > self.limits.hours or request.get("wanted") == "stop":
            self._signal(info.path, signal.SIGTERM)

    def _sweep(self, infos: list[RunInfo]) -> None:
        for info in infos:
            idle = clock.age((info.path / "request.json").stat().st_mtime)
            if info.over and idle > self.limits.age_days * 86400:
                shutil.rmtree(info.path, ignore_errors=True)
                self._children.pop(info.path, None)
                self._addresses.pop(info.path, None)

    def _check_queue(self, address: str) -> None:
        """Raise ValueError when too many runs wait or train, of all persons or from one address."""
        requests = self._requests()
        busy = {path for path, request in requests.items() if is_waiting(request) or self._is_running(path, request)}
        own = [path for path, came_from in list(self._addresses.items()) if address and came_from == address]
        check_queue(busy, own, requests, self.limits)

    def _is_running(self, path: Path, request: dict) -> bool:
        return bool(request and request["launched"]) and self._is_alive(path, request)

    def _check_limits(self, owner: str, folder: Path) -> None:
        if len(self.runs_of(owner)) >= self.limits.runs:
            raise ValueError(f"{self.limits.runs} runs are the most that are kept; delete one first")
        check_folder(folder, self.limits)
        check_disk(self.root, self.limits)

    def owner_folder(self, owner: str) -> Path:
        """Return where a person's runs lie; raises ValueError for what is no owner."""
        return self.root / owner_name(owner)

    def _requests(self) -> dict[Path, dict]:
        return {path: read_request(path) for path in self.root.glob("*/*") if is_run(path)}
