"""Which numbers of a depth map are readings: sky and "nothing there" are not; which way up a set's depth is."""

import math
from collections.abc import Sequence

import numpy as np

SENTINELS = (65535.0, 65504.0, 655.35, 65.535, 6553.5, 65.504, 1e9, 1e10)  # "nothing there", as files have it
BEYOND = 1e6  # in no unit of a file is a scene as far
LEAST_SHARE = 0.001  # of a map's pixels at one value, for a spike
GAP = 4.0  # a spike is so many times as far as 99 % of the other readings
CLOSE = 2e-4  # relative: values of one spike, in the coarsest numbers (half precision)
SENTINEL_SHARE = 1e-4
FEW, RIGHT_BELOW = 0.01, 0.9  # of the readings, at the end of a range that others reach as well
TURNED_SHARE = 0.75  # of a set's maps must be farther below than above, for a warning
CLEAR_SHARE, LEAST_MAPS = 0.9, 4  # the same for taking larger values as nearer, and of how many maps at least
FLAT, CLEAR = 0.05, 0.2  # |log| of lower to upper third: too little to judge a map by; enough in a set's median
SAY_NEARER = "if larger values mean nearer (disparity, inverse depth), say so (Larger values are: Nearer; inverse)."
LEAST_READINGS, LEAST_BAND = 10, 0.25  # in a third of a map; of its height, that readings must span


def find_background(values: Sequence[np.ndarray]) -> list[float]:
    """Find the values that stand for sky or for no reading at the far end of a set's maps.

    A value counts when a share of a map's pixels lies exactly on it, it is the map's farthest, and either it is one
    that files are known to use or it lies far behind all else.

    Args:
        values: (H, W) arrays of one unit. Numbers that are not finite or not above 0 are no readings anyway.
    """
    found: list[float] = []
    for value in values:
        readings = value[np.isfinite(value) & (value > 0)]
        while len(readings):
            top = float(readings.max())
            at_top = np.abs(readings - top) <= CLOSE * top
            rest = readings[~at_top]
            if not (_is_background(top, float(at_top.mean()), rest) if len(rest) else _is_sentinel(top)):
                break
            if not any(math.isclose(top, other, rel_tol=CLOSE) for other in found):
                found.append(top)
            readings = rest
    return sorted(found)


def _is_background(top: float, share: float, rest: np.ndarray) -> bool:
    if _is_sentinel(top) and share >= SENTINEL_SHARE:
        return share > FEW or float(np.quantile(rest, 0.999)) < RIGHT_BELOW * top  # else the end of normalised numbers
    far = top > GAP * float(np.quantile(rest, 0.99))
    return far and (share >= LEAST_SHARE or top >= BEYOND)


def _is_sentinel(value: float) -> bool:
    return any(math.isclose(value, sentinel, rel_tol=1e-6) for sentinel in SENTINELS)


def without_background(value: np.ndarray, background: Sequence[float]) -> tuple[np.ndarray, int]:
    """Return a map (H, W) as float32 with 0 where there is no reading, and how many pixels background took.

    Args:
        background: what `find_background` found.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        single = value.astype(np.float32)
        kept = np.isfinite(single) & (single > 0)
        left = np.isposinf(single)  # sky, in the words of some
        for far in (value for value in background if value < np.finfo(np.float32).max):  # others are inf by now
            left |= kept & (np.abs(single - far) <= CLOSE * far)
    return np.where(kept & ~left, single, 0).astype(np.float32), int(left.sum())


def tilt(depth: np.ndarray) -> float | None:
    """Return the logarithm of how much farther a map's (H, W) lower third of readings is than its upper third.

    None where a map cannot tell: too few readings, or all in a narrow band. Rows without readings, as disparity has
    them where the sky is, do not count as part of the picture.
    """
    rows, columns = np.nonzero(depth > 0)
    if len(rows) < 2 * LEAST_READINGS:
        return None
    first, last = np.quantile(rows, (0.005, 0.995))
    third = (last - first) / 3
    if last - first < LEAST_BAND * len(depth):
        return None
    values = depth[rows, columns]
    above, below = values[rows < first + third], values[rows > last - third]
    if min(len(above), len(below)) < LEAST_READINGS:
        return None
    return math.log(float(np.median(below)) / float(np.median(above)))


def turned_over(depths: Sequence[np.ndarray]) -> tuple[int, int]:
    """Count the maps (H, W) whose lower third is farther than their upper third, and those that could be judged.

    The ground is nearer at a picture's bottom almost everywhere; where most of a set says the opposite, larger values
    mean nearer.
    """
    return _count([tilt(depth) for depth in depths])


def _count(tilts: Sequence[float | None]) -> tuple[int, int]:
    clear = [found for found in tilts if found is not None and abs(found) > FLAT]
    return sum(found > 0 for found in clear), len(clear)


def nearer_by_floor(tilts: Sequence[float | None]) -> str:
    """Return why a set's larger numbers are nearer, where the `tilt`s of its maps leave little doubt; else "".

    Nearly all of enough maps must be turned over, and clearly: a few maps may show a shelf or a ceiling, and pictures
    of the ground from above have neither top nor bottom.
    """
    over, judged = _count(tilts)
    if judged < LEAST_MAPS or judged < len(tilts) / 2 or over < CLEAR_SHARE * judged:
        return ""
    middle = float(np.median([found for found in tilts if found is not None]))
    return f"{_floor(over, judged)}." if middle >= CLEAR else ""


def direction_warning(depths: Sequence[np.ndarray]) -> str:
    """Return a warning for sets in which near and far seem to be exchanged, "" for others."""
    over, judged = turned_over(depths)
    if not judged or over < TURNED_SHARE * judged:
        return ""
    return f"{_floor(over, judged)}: {SAY_NEARER}"


def _floor(over: int, judged: int) -> str:
    return f"In {over} of {judged} maps the bottom of the picture is farther than its top"


def background_message(pixels: int, total: int, background: Sequence[float]) -> str:
    """Return how many pixels were left out as sky or no reading, "" for none."""
    if not pixels:
        return ""
    listed = ", ".join(f"{value:.6g}" for value in background[:4]) or "inf"
    share = 100 * pixels / total
    return f"{pixels} pixels ({share:.1f} %) hold one far value ({listed}): sky or no reading, left out."
