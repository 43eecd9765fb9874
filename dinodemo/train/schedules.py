"""Values that change over a run: learning rates, weight decay, momentum, temperature."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Rise linearly from `before` to `start` over `warmup` steps, then follow a half cosine to `end` until `total`."""

    start: float
    end: float
    total: int
    warmup: int
    before: float

    def __call__(self, step: int) -> float:
        """Return the value at a step, 0 to total - 1; the last one is kept afterwards."""
        if step < self.warmup:
            return self.before + (self.start - self.before) * step / self.warmup
        length = self.total - self.warmup
        if length <= 1 or step >= self.total:
            return self.end
        along = (step - self.warmup) / (length - 1)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * along)) / 2


def cosine(start: float, end: float, total: int, warmup: int = 0, warmup_start: float = 0.0) -> Schedule:
    """Return a half cosine from start to end over total steps, after a linear warmup (Loshchilov 2017)."""
    if total < 0 or not 0 <= warmup <= max(total, 0):
        raise ValueError(f"warmup must lie between 0 and the {total} steps of the run, got {warmup}")
    return Schedule(start, end, total, warmup, warmup_start)


def warmup(start: float, end: float, steps: int) -> Schedule:
    """Return a linear rise from start to end over so many steps, constant afterwards."""
    if steps < 0:
        raise ValueError(f"a warmup needs 0 steps or more, got {steps}")
    return Schedule(end, end, steps, steps, start)
