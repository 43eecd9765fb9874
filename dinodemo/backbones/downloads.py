"""Downloads that several people of a server wait for: one a backbone, however many ask, outside of every queue."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .download import Job
from .find import job_for
from .hub import HubError
from .registry import canonical_name

REMEMBERED = 20.0  # seconds that a failed download answers for, before the next one that asks begins another


class DownloadPending(HubError):
    """A backbone was asked for that is on its way; the text says how far it is."""


class Downloads:
    """The running downloads of a server."""

    def __init__(self):
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, int] = {}
        self._lock = threading.Lock()

    def start(self, name: str) -> Job:
        """Return the running download of a backbone, or begin one; raises ValueError for unknown names."""
        name = canonical_name(name)
        with self._lock:
            job = self._jobs.get(name)
            if job is None or job.ended:
                job = self._jobs[name] = job_for(name).start()
            return job

    def running(self, name: str) -> Job | None:
        """Return the running download of a backbone, if there is one."""
        with self._lock:
            job = self._jobs.get(canonical_name(name))
            return job if job and not job.ended else None

    @contextmanager
    def waiting(self, name: str) -> Iterator[Job]:
        """Begin or join a download, and count as somebody who waits for it within the block.

        Yields:
            The download.
        """
        name, job = canonical_name(name), self.start(name)
        with self._lock:
            self._waiting[name] = self._waiting.get(name, 0) + 1
        try:
            yield job
        finally:
            with self._lock:
                self._waiting[name] -= 1

    def leave(self, name: str) -> bool:
        """Stop a download unless somebody else waits for it too; returns whether it was stopped."""
        name = canonical_name(name)
        with self._lock:
            job, others = self._jobs.get(name), self._waiting.get(name, 0) - 1
        if job is None or job.ended or others > 0:
            return False
        job.cancel()
        return True

    def pending(self, name: str) -> DownloadPending:
        """Begin or join a download; returns the error that says how far it is."""
        with self._lock:
            last = self._jobs.get(canonical_name(name))
        if last and last.failed_within(REMEMBERED):
            last.wait()  # raises what went wrong
        job = self.start(name)
        return DownloadPending(f"{job.progress.sentence(job.name)}; ask again when it is there")
