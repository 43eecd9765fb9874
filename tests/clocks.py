"""Clocks of a machine that a test sets, and time that it lets pass."""

import time
from types import SimpleNamespace

import pytest

from dinodemo.io import clock

YEAR = 365 * 86400.0


class Clocks:
    """Stand for both clocks where ages are asked for; they start as those of the machine."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self._wall = self._steady = 0.0
        for name in ("_apart", "_set_at", "_begun"):
            patch.setattr(clock, name, getattr(clock, name))
        patch.setattr(clock, "time", SimpleNamespace(time=self.wall, monotonic=self.steady))
        clock.look()

    def wall(self) -> float:
        return time.time() + self._wall

    def steady(self) -> float:
        return time.monotonic() + self._steady

    def set(self, seconds: float) -> None:
        """Set the clock on the wall forth, or back; the next look at the runs is a second later."""
        self._wall += seconds
        clock.look()

    def let_pass(self, seconds: float) -> None:
        self._wall += seconds
        self._steady += seconds
