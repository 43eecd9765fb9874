"""The time of a run: how much it was given, how much is used, and how many views of how many photos fit into it."""

import time
from dataclasses import dataclass, field

TRUNK_SHARE = 0.45  # of the budget, for the activations; the rest is for steps, evaluations and the export
EVALUATION_SHARE = 0.1  # of the time
LEAST_VIEWS, MOST_VIEWS = 2, 6


@dataclass
class Clock:
    """Measure a run's time against its budget.

    Args:
        minutes: The whole run's budget of wall time; 0: none, the run's length is a number of steps.
        used: Seconds used before a resumed run was stopped.
        reserve: Seconds kept for what follows the last step: the last evaluation and the export.
    """

    minutes: float = 0.0
    used: float = 0.0
    reserve: float = 10.0
    _began: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Return the seconds of this run, without those in which it was paused or stopped."""
        return self.used + time.perf_counter() - self._began

    @property
    def left(self) -> float:
        """Return the seconds that remain for steps; infinite without a budget."""
        return self.minutes * 60 - self.reserve - self.elapsed if self.minutes else float("inf")

    def skip(self, seconds: float) -> None:
        """Do not count seconds in which the run was paused."""
        self.used -= seconds


def plan_views(photos: int, rows: float, wanted: int) -> tuple[int, int]:
    """Divide the rows that can be computed and stored into views and photos.

    Args:
        photos: In the folder.
        rows: Views of single photos that time and disk allow.
        wanted: Views of each photo, 0: as many as fit, from 2 to 6.

    Returns:
        Views of each photo, and how many photos; fewer than there are where not even two views of each fit.
    """
    views = wanted or min(MOST_VIEWS, max(LEAST_VIEWS, int(rows // photos)))
    return views, max(1, min(photos, int(rows // views)))
