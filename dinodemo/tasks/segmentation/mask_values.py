"""The distinct values of a picture, and what they say: areas, the ramp of a soft edge, the traces of a lossy format."""

from dataclasses import dataclass

import cv2
import numpy as np

ENDS = 0.15  # of the range: values nearer to an end belong to it when edges are soft
MOST_RAMP = 0.25  # share of the picture that soft edges may take up


@dataclass(frozen=True, eq=False)
class Values:
    """The distinct values of a picture: how many pixels each has, and how many of them lie inside an area of it."""

    values: np.ndarray  # (n,) sorted
    counts: np.ndarray  # (n,)
    inside: np.ndarray  # (n,) pixels whose neighbours all have the same value
    where: np.ndarray  # (H, W) index into values

    @property
    def flat(self) -> np.ndarray:
        """Return which values fill areas, (n,) bool: those of a ramp have hardly a pixel among its like."""
        return (self.inside >= 0.1 * self.counts) & (self.inside > 0)


def distinct_values(values: np.ndarray) -> Values:
    """Count the values of a picture (H, W), and the pixels of each whose neighbours all have the same one."""
    distinct, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    where = where.reshape(values.shape)
    as_float = where.astype(np.float32)  # exact up to 2**24 values
    kernel = np.ones((3, 3), np.uint8)
    same = cv2.dilate(as_float, kernel) == cv2.erode(as_float, kernel)
    inside = np.bincount(where[same].ravel(), minlength=len(distinct))
    return Values(distinct, counts, inside, where)


def as_whole(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return values as whole numbers, and what one of them is worth; fractions are taken as 0 to 1."""
    if values.dtype.kind in "biu":
        return values.astype(np.int64), 1
    finite = np.nan_to_num(values.astype(np.float64), nan=0, posinf=0, neginf=0)
    if (finite == np.rint(finite)).all():
        return finite.astype(np.int64), 1
    span = max(float(np.abs(finite).max()), 1e-12)
    return np.rint(finite * 255 / span).astype(np.int64), span / 255


def is_ramp(found: Values) -> bool:
    """Return whether values between two ends are only soft edges, as of an anti-aliased, blurred or lossy mask."""
    v, low, high = found.values, float(found.values[0]), float(found.values[-1])
    level = (v - low) / (high - low)
    middle = (level > ENDS) & (level < 1 - ENDS)
    share = found.counts[middle].sum() / found.counts.sum()
    several = middle.sum() >= 3 or (middle.sum() >= 1 and low <= 10 and high >= 200 and len(v) == 3)
    areas = found.flat & middle & (found.counts > 0.002 * found.counts.sum())
    return _is_ringing(found, level) or bool(
        several and share <= MOST_RAMP and (not areas.any() or _continuous(found, middle))
    )


def _is_ringing(found: Values, level: np.ndarray) -> bool:
    """Return whether all areas are black or white, and other values only the traces of a lossy format beside them."""
    ends = (level < 0.03) | (level > 0.97)
    near_white = (level > 1 - ENDS) & (level < 1)
    traces = found.counts[~ends].sum() <= MOST_RAMP * found.counts.sum()
    return bool(len(level) > 4 and near_white.any() and traces and not (found.flat & ~ends).any())


def _continuous(found: Values, middle: np.ndarray) -> bool:
    """Return whether the middle values are a continuous tone: many, and none of them an area of its own."""
    return bool(middle.sum() > 32 and found.counts[middle].max() < 0.02 * found.counts.sum())


def is_photo(found: Values) -> bool:
    """Return whether many values hardly fill areas of their own."""
    return len(found.values) > 32 and found.inside.sum() < 0.5 * found.counts.sum()


def is_trimap(found: Values) -> bool:
    """Return whether grey only is the seam between black and white."""
    if len(found.values) != 3 or found.values[0] != 0 or found.values[2] != 255 or abs(found.values[1] - 128) > 1:
        return False
    seam = (found.where == 1).astype(np.uint8)
    reach = max(3, round(0.04 * min(seam.shape))) | 1
    return not cv2.erode(seam, np.ones((reach, reach), np.uint8), borderValue=0).any()
