"""Weights on the hub: found in the Hugging Face cache, downloaded in a process of their own, checked."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from .registry import WEIGHT_FILES, Backbone, is_complete
from .transfer import is_sound, remove_damaged

TIMEOUT = 10.0  # seconds without an answer until the hub counts as out of reach; $DINODEMO_HUB_TIMEOUT
BEFORE, AFTER = 6, 3  # times as long before the first file answers, and once a megabyte has come
RATE_WINDOW = 5.0  # seconds over which the rate is taken
POLL = 0.1
MEGABYTE = 1_000_000
FULL = (errno.ENOSPC, errno.EDQUOT)


class HubError(RuntimeError):
    """Weights cannot be had from the hub; the text is a sentence for the person who asked."""


class HubUnreachable(HubError):
    """The hub, or the storage behind it, did not answer."""


class HubRefused(HubError):
    """The hub, or the storage behind it, answered with an error status."""


class DiskProblem(HubError):
    """The cache or the weights folder cannot be written."""


class DownloadDamaged(HubError):
    """What came is not what the hub announced."""


class DownloadCancelled(HubError):
    """Somebody stopped the download."""


@dataclass(frozen=True)
class Progress:
    """What is known of a running download; bytes, bytes a second, seconds."""

    phase: str = "asking"  # asking, files, checking, building
    done: int = 0
    total: int = 0
    rate: float = 0.0
    note: str = ""

    @property
    def eta_s(self) -> float | None:
        """Return the seconds left, None while they cannot be told."""
        return (self.total - self.done) / self.rate if self.rate > 0 and self.total else None

    def sentence(self, name: str) -> str:
        """Return one line for a person."""
        if self.phase == "building":
            return f"{name}: being built from the Python package index"
        if self.phase == "checking":
            return f"{name}: {_megabytes(self.total)} MB downloaded, checking them"
        if self.done < MEGABYTE:
            return f"{name}: asking {host()}"
        left = f", {duration(self.eta_s)} left" if self.eta_s is not None else ""
        return f"{name}: {_megabytes(self.done)} of {_megabytes(self.total)} MB, {self.rate / 1e6:.1f} MB/s{left}"


def duration(seconds: float) -> str:
    """Return a number of seconds in words of a person, rounded up."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def timeout() -> float:
    """Return the seconds until a silent hub counts as out of reach: $DINODEMO_HUB_TIMEOUT, else 10."""
    text = os.environ.get("DINODEMO_HUB_TIMEOUT", "")
    try:
        value = float(text or TIMEOUT)
    except ValueError:
        value = -1.0
    if not 0 < value < 3600:
        raise ValueError(f"DINODEMO_HUB_TIMEOUT must be a number of seconds above 0, got {text!r}")
    return value


def host() -> str:
    """Name the hub that is asked."""
    from huggingface_hub import constants

    return constants.ENDPOINT.split("://")[-1]


def cached_folder(hub_id: str, revision: str | None = None) -> Path | None:
    """Return the folder of a complete model in the Hugging Face cache; never touches the network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:  # `snapshot_download(local_files_only=True)` would want every file of the repository
        found = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    except (HFValidationError, OSError):
        return None
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder and is_complete(folder) else None


def verify_cached(folder: Path) -> dict[str, str]:
    """Check the files of a cached model against their blobs' names; {file: "ok" or what is wrong}."""
    words = {True: "ok", False: "damaged", None: "not checked: this cache keeps no checksums"}
    return {file.name: words[is_sound(file)] for file in sorted(folder.iterdir())}


def drop_damaged(folder: Path) -> list[str]:
    """Delete the damaged files of a cached model, so that a download fetches them again; returns their names."""
    damaged = [file for file in sorted(folder.iterdir()) if is_sound(file) is False]
    for file in damaged:
        remove_damaged(file)
    return [file.name for file in damaged]


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
            raise DownloadDamaged(f"{self.hub_id} lacks config.json or safetensors that its index names; the "
                                  "repository itself is not complete")  # fmt: skip
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
        order = {"hub_id": self.hub_id, "revision": self.row.revision if self.row else None, "timeout": timeout(),
                 "cache_dir": str(cache_root()), "patterns": list(WEIGHT_FILES)}  # fmt: skip
        self._seen, self._progress = [], replace(Progress(), note=self._progress.note)
        process = subprocess.Popen(
            [sys.executable, "-m", "dinodemo.backbones.transfer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env={**_environment(), **environment},
        )  # fmt: skip
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
            raise DiskProblem(f"{self.hub_id} needs {_megabytes(needed)} MB, and {cache_root()} has only "
                              f"{_megabytes(free)} MB free; make room, or set HF_HOME to another disk")  # fmt: skip

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


def status_sentence(hub_id: str, status: int | None) -> str:
    """Say in one sentence what an HTTP status of the hub or its storage means."""
    if status == 401:
        return f"{host()} does not accept your token for {hub_id} (401): make a new one, or remove HF_TOKEN"
    if status == 403:
        return f"{host()} denies {hub_id} (403): a firewall may block its storage, or the token may not read it"
    if status == 429:
        return f"{host()} gets too many requests from this address (429); try {hub_id} again in some minutes"
    if status is not None and status >= 500:
        return f"{host()} has a problem of its own ({status}) and cannot give {hub_id}; try again later"
    return f"{host()} refused {hub_id} (status {status}); try again later"


def gated_sentence(hub_id: str, status: int | None = 401) -> str:
    """Say what to do for a gated repository: without a token, or with one whose account has no access."""
    if status == 403:
        return (
            f"your account has no access to {hub_id} yet: ask for it at https://huggingface.co/{hub_id}, and "
            "try again once it is granted (the token itself is valid)"
        )
    return (
        f"{hub_id} is gated: accept its licence at https://huggingface.co/{hub_id} with your account, make a "
        "read token at https://huggingface.co/settings/tokens and set it as the environment variable HF_TOKEN"
    )


def disk_problem(error: OSError, folder: Path) -> DiskProblem:
    """Turn what a file system refused into a sentence with the folder and its free space."""
    free = free_bytes(folder)
    space = f", {_megabytes(free)} MB free" if free is not None else ""
    if error.errno in FULL:
        return DiskProblem(f"the disk of {folder} is full{space}; make room, or set HF_HOME to another disk")
    what = error.strerror or str(error)
    return DiskProblem(f"{folder} cannot be written ({what}{space}); check its rights, or set HF_HOME (downloads) or "
                       "DINODEMO_WEIGHTS (the weights folder) to another place")  # fmt: skip


def free_bytes(folder: Path) -> int | None:
    """Return the free space of a folder's disk, None where it cannot be told."""
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return None


def cache_root() -> Path:
    """Return the Hugging Face cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


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


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.0f}"
