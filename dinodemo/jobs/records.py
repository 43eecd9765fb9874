"""What is written down of a run: what was asked for, how it stands, and its turn among the others.

Every file may be damaged, by a full disk or a person. So all values are checked each time they are read.
"""

import hashlib
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io import clock
from ..io.files import read_json, write_json

DAY = 86400.0  # seconds
OVER = ("finished", "stopped", "failed", "collapsed", "interrupted")
_OWNER = re.compile(r"[A-Za-z0-9_-]{22,64}")
RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Limits:
    """What one server grants."""

    photos: int = 20_000  # in a run's folder
    photo_bytes: int = 5_000_000_000
    person_bytes: int = 10_000_000_000  # of the photos that one person keeps on the server
    all_bytes: int = 50_000_000_000  # of the photos of all
    free_disk: int = 2_000_000_000  # that must stay free
    free_memory: int = 1_500_000_000  # that must be there before a run starts
    hours: float = 12.0  # of one run
    hours_a_day: float = 48.0  # of all runs that came from one address
    runs: int = 20  # kept of one person
    queue: int = 100  # runs that wait or train, of all persons
    queue_per_address: int = 20  # of them, that came from one address
    age_days: float = 14.0  # after which an ended run is removed
    threads: int = max(1, (os.cpu_count() or 2) // 2)  # of the training on a CPU


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run at this moment."""

    id: str
    name: str
    path: Path
    state: str  # queued, starting, running, paused, stopped, interrupted, failed, collapsed, finished
    step: int = 0
    total: int = 0
    eta_s: float | None = None
    message: str = ""
    queue_position: int = 0  # from 1; 0 for a run that does not wait

    @property
    def over(self) -> bool:
        """Return whether nothing will happen any more unless somebody resumes it."""
        return self.state in OVER


def read_request(path: Path) -> dict[str, Any]:
    """Return what was asked of a run; an empty one where request.json is damaged or holds a value of a wrong kind."""
    request = read_json(path / "request.json")
    kinds: dict[str, tuple[type, ...]] = {
        "name": (str,),
        "folder": (str,),
        "backbone": (str,),
        "settings": (dict,),
        "device": (str,),
        "queued": (int, float),
        "launched": (int, float, type(None)),
        "pid": (int, type(None)),
        "wanted": (str,),
    }
    sound = all(isinstance(request.get(key), kind) for key, kind in kinds.items())
    return request if sound and "\0" not in request["folder"] and math.isfinite(request["queued"]) else {}


def read_status_values(status: dict) -> dict[str, Any]:
    """Return a status whose values are of the right kinds: it is read while anything may have happened to the file."""
    wanted: dict[str, tuple[tuple[type, ...], Any]] = {
        "state": ((str,), ""),
        "message": ((str,), ""),
        "step": ((int,), 0),
        "total": ((int,), 0),
        "pid": ((int,), 0),
        "heartbeat": ((int, float), 0.0),
        "eta_s": ((int, float), None),
    }
    return {key: status[key] if isinstance(status.get(key), kind) else other for key, (kind, other) in wanted.items()}


def owner_name(owner: str) -> str:
    """Return the name of a person's folder of runs; raises ValueError for what is no key."""
    if not isinstance(owner, str) or not _OWNER.fullmatch(owner):
        raise ValueError("this page has lost its key to your runs; reload it")
    # hashed: a path may be seen by others, as a backbone's name or in a file, and must not tell the key
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def is_waiting(request: dict) -> bool:
    return bool(request) and not request["launched"] and request["wanted"] == "run"


def next_turn(requests: Mapping[Path, dict]) -> float:
    """Return when a run enters the queue: after all that wait, also where the clock was set back meanwhile."""
    latest = max((request["queued"] for request in requests.values() if is_waiting(request)), default=0.0)
    return max(time.time(), math.nextafter(latest, math.inf))


def queue_positions(requests: Mapping[Path, dict]) -> dict[Path, int]:
    """Return the positions in the queue, from 1, of the runs that wait."""
    waiting = sorted((request["queued"], path) for path, request in requests.items() if is_waiting(request))
    return {path: position for position, (_, path) in enumerate(waiting, 1)}


def hours_of_today(request: dict, path: Path, busy: bool) -> float:
    """Return the hours within the last day in which a run trained."""
    if not request or not request["launched"]:
        return 0.0
    if busy:
        return min(max(0.0, clock.age(request["launched"])), DAY) / 3600
    now, ended = time.time(), read_status_values(read_json(path / "status.json"))["heartbeat"]
    if ended > now + clock.SET_BY:  # the clock was set: nobody can say when it was
        return 0.0
    return max(0.0, ended - max(request["launched"], now - DAY)) / 3600


def is_run(path: Path) -> bool:
    return bool(RUN_ID.fullmatch(path.name)) and (path / "request.json").is_file()


def change_request(path: Path, **changes: Any) -> None:
    write_json(path / "request.json", {**read_json(path / "request.json"), **changes})
