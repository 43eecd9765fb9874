"""The states of a training run, as status.json and the page name them."""

from enum import StrEnum


class RunState(StrEnum):
    """What a run is doing, or how it ended. As text and in JSON each is its value."""

    QUEUED = "queued"
    STARTING = "starting"  # its process has not written a status yet
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # on request; can be resumed
    INTERRUPTED = "interrupted"  # its process ended without a status; can be resumed
    FAILED = "failed"
    COLLAPSED = "collapsed"
    FINISHED = "finished"

    @property
    def over(self) -> bool:
        """Return whether nothing happens any more unless somebody resumes the run."""
        return self in OVER


OVER = frozenset({RunState.STOPPED, RunState.INTERRUPTED, RunState.FAILED, RunState.COLLAPSED, RunState.FINISHED})
