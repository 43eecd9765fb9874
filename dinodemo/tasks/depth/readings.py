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
TURNED_SHARE = 0.75  # of a set's maps must be farther below than above, for a warning


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
        return True
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


def turned_over(depths: Sequence[np.ndarray]) -> tuple[int, int]:
    """Count the maps (H, W) whose lower third is farther than their upper third, and those that could be judged.

    The ground is nearer at a picture's bottom almost everywhere; where most of a set says the opposite, larger values
    mean nearer.
    """
    judged = over = 0
    for depth in depths:
        third = max(1, len(depth) // 3)
        above, below = (part[part > 0] for part in (depth[:third], depth[-third:]))
        if min(len(above), len(below)) < 0.1 * depth[:third].size:
            continue
        top, bottom = float(np.median(above)), float(np.median(below))
        if abs(math.log(top / bottom)) > 0.05:
            judged, over = judged + 1, over + (bottom > top)
    return over, judged


def direction_warning(depths: Sequence[np.ndarray]) -> str:
    """Return a warning for sets in which near and far seem to be exchanged, "" for others."""
    over, judged = turned_over(depths)
    if not judged or over < TURNED_SHARE * judged:
        return ""
    return (
        f"In {over} of {judged} maps the bottom of the picture is farther than its top: if larger values mean nearer "
        "(disparity, inverse depth), say so (inverse)."
    )


def background_message(pixels: int, total: int, background: Sequence[float]) -> str:
    """Return how many pixels were left out as sky or no reading, "" for none."""
    if not pixels:
        return ""
    listed = ", ".join(f"{value:.6g}" for value in background[:4]) or "inf"
    share = 100 * pixels / total
    return f"{pixels} pixels ({share:.1f} %) hold one far value ({listed}): sky or no reading, left out."
