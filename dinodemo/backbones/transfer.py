"""The process that downloads: `python -m dinodemo.backbones.transfer`, one JSON order in, JSON lines out.

A process of its own, because a download has to end when somebody cancels it, and huggingface_hub's client, Xet's native
threads above all, cannot be stopped from outside otherwise. Its orders come from `hub.Download`.
"""

import hashlib
import json
import logging
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

INTERVAL = 0.2  # seconds between two reports of bytes
CHUNK = 1 << 16  # bytes of one step of a plain download; the client's own 10 MB would look like a stall on a slow line
BLOCK = 1 << 22  # bytes read at once for a checksum
_STATUS = re.compile(r"HTTP Error (\d{3})")


def main() -> int:
    """Read an order from standard input, download, and write what happens to standard output."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("huggingface_hub").addHandler(_StatusReports())
    try:
        say("done", folder=str(fetch(order)))
    except Exception as error:  # the other side of the pipe turns it into a sentence
        say("error", **explain(error))
        return 1
    return 0


def say(event: str, **facts: Any) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def fetch(order: dict) -> Path:
    """Download a repository's matching files into the cache; with a token that is not valid, once more without.

    Returns:
        The folder of the snapshot.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return _fetch(order, token=None)
    except HfHubHTTPError as error:
        if error.response.status_code != 401 or get_token() is None or getattr(error, "is_gated", False):
            raise
        say("note", note="token")
    return _fetch(order, token=False)


def _fetch(order: dict, token: bool | None) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    hub_id, revision, timeout = order["hub_id"], order["revision"], order["timeout"]
    say("phase", phase="asking")
    # one short question first: a hub that cannot be reached must fail in seconds, not in retries
    files = HfApi(token=token).model_info(hub_id, revision=revision, timeout=timeout).siblings or []
    if not any(f.rfilename.endswith(".safetensors") for f in files):
        raise NoSafetensors(f"{hub_id} offers no safetensors files")
    if hasattr(constants, "DOWNLOAD_CHUNK_SIZE"):
        constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    say("phase", phase="files")
    folder = Path(
        snapshot_download(
            hub_id,
            revision=revision,
            cache_dir=order["cache_dir"],
            allow_patterns=order["patterns"],
            token=token,
            etag_timeout=timeout,
            tqdm_class=_Reports,  # type: ignore[arg-type]  # any tqdm will do, not asyncio's alone
        )
    )
    say("phase", phase="checking")
    for file in sorted(folder.rglob("*")):
        if is_sound(file) is False:
            remove_damaged(file)
            raise Damaged(f"{file.name} does not have the checksum that the hub gives for it")
    return folder


class NoSafetensors(Exception):
    """The repository offers no weights that can be read without running code."""


class Damaged(Exception):
    """A file came with other bytes than the hub says."""


def is_sound(file: Path) -> bool | None:
    """Compare a cached file with the checksum in its blob's name; None where the cache keeps no checksum.

    huggingface_hub names blobs by their sha256, small ones by git's sha1 of them.
    """
    if not file.is_symlink():  # a cache on a file system without links
        return None
    blob = file.resolve()
    if not blob.is_file():
        return False
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return _digest(blob, hashlib.sha256()) == blob.name
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):
        return _digest(blob, hashlib.sha1(b"blob %d\0" % blob.stat().st_size)) == blob.name
    return None


def remove_damaged(file: Path) -> None:
    """Delete a cached file and the blob behind it, so that the next download fetches it again."""
    blob = file.resolve()
    file.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _digest(file: Path, sum_) -> str:
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            sum_.update(block)
    return sum_.hexdigest()


def explain(error: Exception) -> dict[str, Any]:
    """Return what the other process needs to know of an error: kind, HTTP status, errno, a short reason."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import httpx  # the hub's own HTTP client, whichever version it uses

    chain = list(_causes(error))
    http = next((e for e in chain if isinstance(e, HfHubHTTPError)), None)
    status = http.response.status_code if http is not None else None
    number = next((e.errno for e in chain if isinstance(e, OSError) and e.errno and http is None), None)
    reason = " ".join(str(error).split())[:300]
    facts = {"status": status, "errno": number, "reason": reason, "type": type(error).__name__}
    if isinstance(error, NoSafetensors):
        return facts | {"kind": "format"}
    if isinstance(error, Damaged) or "Consistency check failed" in reason:
        return facts | {"kind": "damaged"}
    if any(isinstance(e, GatedRepoError) for e in chain):
        return facts | {"kind": "gated"}
    if any(isinstance(e, RepositoryNotFoundError | RevisionNotFoundError) for e in chain):
        return facts | {"kind": "missing"}
    if status is not None:
        return facts | {"kind": "refused"}
    if any(isinstance(e, httpx.HTTPError | OfflineModeIsEnabled | LocalEntryNotFoundError) for e in chain):
        return facts | {"kind": "unreachable"}
    if any(isinstance(e, ConnectionError | TimeoutError) for e in chain):
        return facts | {"kind": "unreachable"}
    if number is not None:
        return facts | {"kind": "disk"}
    return facts | {"kind": "transfer"}  # Xet's errors come as plain RuntimeErrors, for example


def _causes(error: BaseException | None):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class _StatusReports(logging.Handler):
    """Report the statuses that the client meets while it retries in silence."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line for a record that names a status."""
        if found := _STATUS.search(record.getMessage()):
            say("status", status=int(found[1]))


class _Reports(tqdm):
    """A progress bar of bytes that writes lines instead of drawing."""

    def __init__(self, *args, **kwargs):
        self._counts = kwargs.get("unit") == "B"
        self._reported = (-1.0, (0, 0))
        super().__init__(*args, **{**kwargs, "file": open(os.devnull, "w"), "disable": False})  # noqa: SIM115 (tqdm closes nothing)

    def display(self, *args, **kwargs) -> None:
        """Draw nothing."""

    def refresh(self, *args, **kwargs) -> None:
        """Report, where the bar would be drawn again."""
        self._report()

    def update(self, n: float | None = 1) -> None:
        """Count, and report now and then."""
        self.n += n or 0
        self._report()

    def _report(self) -> None:
        now, state = time.monotonic(), (int(self.n), int(self.total or 0))
        first = self._reported[1][0] == 0 and self.n > 0
        due = first or self.n == self.total or now - self._reported[0] >= INTERVAL
        if self._counts and due and state != self._reported[1]:
            self._reported = (now, state)
            # two bars count: what the network gave, and what is on the disk; the latter's total is that of the files
            say("bytes", bar=str(self.desc).split()[0], done=state[0], total=state[1])


def _end_with_parent() -> None:
    sys.stdin.read()  # ends when the pipe does, however the parent came to its end
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
