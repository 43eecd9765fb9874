"""Weights on the hub: found in the Hugging Face cache, downloaded in a process of their own, checked."""

import errno
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .registry import is_complete
from .transfer import is_sound, remove_damaged

TIMEOUT = 10.0  # seconds without an answer until the hub counts as out of reach; $DINODEMO_HUB_TIMEOUT
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
        """Return the seconds left, None while they are not known."""
        return (self.total - self.done) / self.rate if self.rate > 0 and self.total else None

    def sentence(self, name: str) -> str:
        """Return one line for a person."""
        if self.phase == "building":
            return f"{name}: being built from the Python package index"
        if self.phase == "checking":
            return f"{name}: {megabytes(self.total)} MB downloaded, checking them"
        if self.done < MEGABYTE:
            return f"{name}: asking {host()}"
        left = f", {duration(self.eta_s)} left" if self.eta_s is not None else ""
        return f"{name}: {megabytes(self.done)} of {megabytes(self.total)} MB, {self.rate / 1e6:.1f} MB/s{left}"


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


def status_sentence(hub_id: str, status: int | None) -> str:
    """Return a sentence on what an HTTP status of the hub or its storage means."""
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
    """Return what to do for a gated repository: without a token, or with one whose account has no access."""
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
    space = f", {megabytes(free)} MB free" if free is not None else ""
    if error.errno in FULL:
        return DiskProblem(f"the disk of {folder} is full{space}; make room, or set HF_HOME to another disk")
    what = error.strerror or str(error)
    return DiskProblem(
        f"{folder} cannot be written ({what}{space}); check its rights, or set HF_HOME (downloads) or "
        "DINODEMO_WEIGHTS (the weights folder) to another place"
    )


def free_bytes(folder: Path) -> int | None:
    """Return the free space of a folder's disk, None where it is not known."""
    for above in (folder, *folder.parents):
        with suppress(OSError):
            return shutil.disk_usage(above).free
    return None


def cache_root() -> Path:
    """Return the Hugging Face cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def megabytes(count: float) -> str:
    """Return a number of bytes in megabytes, as messages say it."""
    return f"{count / 1e6:.0f}"
