"""Downloads in a process of their own: watched, cancelled, tried once more without Xet, and explained."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from .hub import (
    MEGABYTE,
    DiskProblem,
    DownloadCancelled,
    DownloadDamaged,
    HubError,
    HubRefused,
    HubUnreachable,
    Progress,
    cache_root,
    disk_problem,
    free_bytes,
    gated_sentence,
    host,
    megabytes,
    status_sentence,
    timeout,
)
from .registry import WEIGHT_FILES, Backbone, is_complete

BEFORE, AFTER = 6, 3  # times as long before the first file answers, and once a megabyte has come
RATE_WINDOW = 5.0  # seconds over which the rate is taken
POLL = 0.1


class Job:
    """Weights on their way to this machine, made by a thread of their own; any thread may ask and wait."""

    def __init__(self, name: str):
        self.name = name
        self._progress = Progress()
        self._cancelled, self._ended = threading.Event(), threading.Event()
        self._folder: Path | None = None
        self._error: Exception | None = None
        self._ended_at = 0.0

    def start(self) -> "Job":
        """Begin; returns the job."""
        threading.Thread(target=self._run, name=f"fetch {self.name}", daemon=True).start()
        return self

    @property
    def progress(self) -> Progress:
        """Return how far it is."""
        return self._progress

    @property
    def ended(self) -> bool:
        """Return whether it is over, well or not."""
        return self._ended.is_set()

    def failed_within(self, seconds: float) -> bool:
        """Return whether it failed in the last seconds."""
        return self._error is not None and self.ended and time.monotonic() - self._ended_at < seconds

    def cancel(self) -> None:
        """Stop it; whoever waits gets DownloadCancelled."""
        self._cancelled.set()

    def wait(self, seconds: float | None = None) -> Path | None:
        """Return the folder once it is there, None when `seconds` pass before; raises HubError, ValueError."""
        if not self._ended.wait(seconds):
            return None
        if self._error:
            raise self._error
        return self._folder

    def _run(self) -> None:
        try:
            self._folder = self._work()
        except (HubError, ValueError) as error:
            self._error = error
        except OSError as error:
            self._error = disk_problem(error, cache_root())
        except Exception as error:  # a thread must not end without a word
            self._error = HubError(f"{self.name} could not be fetched ({type(error).__name__}: {error})")
        finally:
            self._ended_at = time.monotonic()
            self._ended.set()

    def _work(self) -> Path:
        raise NotImplementedError


class Download(Job):
    """A repository's files on their way into the Hugging Face cache, in a process of their own."""

    def __init__(self, hub_id: str, row: Backbone | None = None):
        super().__init__(row.name if row else hub_id)
        self.hub_id, self.row = hub_id, row
        self._seen: list[tuple[float, int]] = []

    def _work(self) -> Path:
        self._check_space()
        sweep_incomplete(self.hub_id)
        try:
            folder = self._attempt_twice()
        except (_Stalled, _TransferFailed) as error:
            raise self._unreachable(str(error)) from error
        if not is_complete(folder):
            raise DownloadDamaged(
                f"{self.hub_id} lacks config.json or safetensors that its index names; the "
                "repository itself is not complete"
            )
        return folder

    def _attempt_twice(self) -> Path:
        try:
            return self._attempt({})
        except (_Stalled, _TransferFailed):
            if os.environ.get("HF_HUB_DISABLE_XET"):
                raise
        return self._attempt({"HF_HUB_DISABLE_XET": "1"})  # firewalls often let pass the hub but not Xet's storage

    def _attempt(self, environment: dict[str, str]) -> Path:
        """Run the process once; returns the folder, raises what went wrong."""
        order = {
            "hub_id": self.hub_id,
            "revision": self.row.revision if self.row else None,
            "timeout": timeout(),
            "cache_dir": str(cache_root()),
            "patterns": list(WEIGHT_FILES),
        }
        self._seen, self._progress = [], replace(Progress(), note=self._progress.note)
        process = subprocess.Popen(
            [sys.executable, "-m", "dinodemo.backbones.transfer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**_environment(), **environment},
        )
        orders, events = _pipes(process)
        last: dict = {}
        alive = threading.Thread(target=self._read, args=(events, last), daemon=True)
        try:
            orders.write(json.dumps(order) + "\n")
            orders.flush()
            alive.start()
            while alive.is_alive():
                alive.join(POLL)
                if self._cancelled.is_set():
                    raise DownloadCancelled(f"the download of {self.hub_id} was cancelled")
                if self._stalled(last):
                    raise (
                        HubRefused(status_sentence(self.hub_id, last["status"]))
                        if "status" in last
                        else _Stalled("no bytes come")
                    )
        finally:
            process.kill()
            process.wait()
            orders.close()
            if alive.ident:
                alive.join()
            events.close()
            if last.get("event") != "done":
                sweep_incomplete(self.hub_id)
        if last.get("event") == "done":
            return Path(last["folder"])
        raise self._failure(last)

    def _read(self, events: IO[str], last: dict) -> None:
        for line in events:
            try:
                event = json.loads(line)
            except ValueError:  # something that a library printed
                continue
            if event["event"] in ("done", "error"):
                last.update(event)
            elif event["event"] == "status":
                last["status"] = event["status"]
            elif event["event"] == "note":
                self._progress = replace(self._progress, note=event["note"])
            elif event["event"] == "phase":
                last["since"] = time.monotonic()
                self._progress = replace(self._progress, phase=event["phase"])
            elif event["event"] == "bytes":
                last |= {"since": time.monotonic(), "files": event["done"] > 0 or last.get("files", False)}
                if not event["bar"].startswith("Downloading"):
                    self._count(event["done"], event["total"])

    def _count(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._seen = [(t, n) for t, n in self._seen if now - t < RATE_WINDOW] + [(now, done)]
        (t0, n0), (t1, n1) = self._seen[0], self._seen[-1]
        rate = (n1 - n0) / (t1 - t0) if t1 > t0 else self._progress.rate
        self._progress = replace(self._progress, done=done, total=max(total, done), rate=rate)

    def _stalled(self, last: dict) -> bool:
        """Return whether the files have been silent for too long; the client's own limits guard the questions."""
        if self._progress.phase != "files" or "since" not in last:
            return False
        patience = BEFORE if not last.get("files") else AFTER if self._progress.done > MEGABYTE else 1
        return time.monotonic() - last["since"] > patience * timeout() + 1  # its own time-outs come first

    def _check_space(self) -> None:
        needed = self.row.download_mb * 1_000_000 if self.row else 0
        free = free_bytes(cache_root())
        if free is not None and free < needed:
            raise DiskProblem(
                f"{self.hub_id} needs {megabytes(needed)} MB, and {cache_root()} has only "
                f"{megabytes(free)} MB free; make room, or set HF_HOME to another disk"
            )

    def _unreachable(self, reason: str) -> HubUnreachable:
        return HubUnreachable(
            f"{host()} cannot be reached for {self.hub_id} ({reason}); check the network, or put config.json and "
            "model.safetensors into a folder and name that"
        )

    def _failure(self, last: dict) -> Exception:
        """Turn the process's last words into an exception with a sentence."""
        kind, status = last.get("kind"), last.get("status")
        rejected = self._progress.note == "token"
        advice = " (your Hugging Face token is not valid: make a new one, or remove HF_TOKEN)" if rejected else ""
        if kind == "format":
            return ValueError(
                f"{self.hub_id} offers no safetensors files; other formats can run code and are not loaded from the "
                "hub. Download the file yourself and use `dinodemo weights import FILE`"
            )
        if kind == "gated" or (kind == "missing" and self.row and self.row.gated):
            return HubRefused(gated_sentence(self.hub_id, status) + advice)
        if kind == "missing":
            return ValueError(f"there is no public model {self.hub_id!r} on {host()}; check the spelling{advice}")
        if kind == "damaged":
            reason = "a file has another size than announced" if "Consistency" in last["reason"] else last["reason"]
            return DownloadDamaged(f"the download of {self.hub_id} is damaged ({reason}); it was deleted, try again")
        if kind == "refused":
            return HubRefused(status_sentence(self.hub_id, status) + advice)
        if kind == "disk":
            return disk_problem(OSError(last["errno"], os.strerror(last["errno"])), cache_root())
        if kind == "unreachable":
            return self._unreachable(last["type"])
        reason = last.get("reason") or "its process ended without a word"
        return _TransferFailed(reason)


class _Stalled(Exception):
    pass


class _TransferFailed(Exception):
    pass


def download(hub_id: str, row: Backbone | None = None, progress: Callable[[Progress], None] | None = None) -> Path:
    """Download a repository's weights and wait for them; progress is called several times a second.

    Raises HubUnreachable, HubRefused, DiskProblem, DownloadDamaged (all of them HubError), and ValueError for a
    repository that is not there or has no safetensors. Ctrl-C stops the download.
    """
    return follow(Download(hub_id, row).start(), progress)


def follow(job: Job, progress: Callable[[Progress], None] | None = None) -> Path:
    """Wait for a job and tell how it goes; returns its folder, raises its error. Ctrl-C stops it."""
    try:
        while (folder := job.wait(POLL)) is None:
            if progress:
                progress(job.progress)
        if progress:
            progress(job.progress)  # what happened since the last look, the whole of a quick download maybe
        return folder
    except KeyboardInterrupt:
        job.cancel()
        with suppress(HubError):
            job.wait(10 * POLL)  # until its process is gone and its pieces are swept
        raise


def sweep_incomplete(hub_id: str) -> None:
    """Delete what broken-off downloads of a repository left: partial files whose lock nobody holds."""
    from filelock import FileLock, Timeout

    repo = f"models--{hub_id.replace('/', '--')}"
    for part in (cache_root() / repo / "blobs").glob("*.incomplete"):
        lock = cache_root() / ".locks" / repo / f"{part.name.split('.')[0]}.lock"
        with suppress(Timeout, OSError):
            if lock.parent.is_dir():
                with FileLock(lock, timeout=0):
                    part.unlink(missing_ok=True)
            else:
                part.unlink(missing_ok=True)


def _pipes(process: subprocess.Popen) -> tuple[IO[str], IO[str]]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was begun without pipes")
    return process.stdin, process.stdout


def _environment() -> dict[str, str]:
    """Return the environment of the process: it has to find this package, wherever it lies."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
