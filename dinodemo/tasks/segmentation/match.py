"""Whether the object is in a picture at all: found, unsure or not here.

The measure is how well the reference's own patches are found again: the mean, over the object's patches of a
reference, of the best cosine in the target, in whitened token space (mean and covariance of the tokens of ten example
photos). Whitening takes off what all photos share, so that a stranger's cosine falls further than the object's own.
"""

from dataclasses import dataclass

import numpy as np

from ..tokens import flat_unit, unit

SHRINKAGE = 0.3  # of the covariance towards a multiple of the identity: ten photos do not fill the space
SLOPE = 20.0  # how fast the match rises with the cosine around its bound
OBJECT, KIND = "object", "kind"
BOUNDS = {OBJECT: 0.46, KIND: 0.30}  # whitened cosine at which the match is 0.5, at 518 px
# below it cosines fall: those of the shipped example's cups to 0.69 of theirs at 224 px and to 0.79 at 308
FULL_RESOLUTION, FALL = 518, 0.45
UNSURE_WIDTH = 0.10  # of the cosine below the bound: there the answer is "unsure"
UNSURE_MATCH = float(1 / (1 + np.exp(SLOPE * UNSURE_WIDTH)))
FOUND, UNSURE, NOT_HERE = "found", "unsure", "not here"
SAFETY = 0.02  # whitened cosine by which a bound keeps above a photo that is known not to show the object


@dataclass(frozen=True, eq=False)
class Whitening:
    """Map tokens to a space where those of ordinary photos vary alike in all directions.

    Attributes:
        mean: (D,).
        map: (D, D).
    """

    mean: np.ndarray
    map: np.ndarray

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Return tokens (..., D) whitened and at unit length: (N, D) float32."""
        return unit((flat_unit(tokens) - self.mean) @ self.map).astype(np.float32)


def whiten(tokens: np.ndarray, shrinkage: float = SHRINKAGE) -> Whitening:
    """Return the whitening of tokens (N, D) of ordinary photos."""
    mean = tokens.mean(axis=0)
    covariance = np.cov(tokens.T.astype(np.float64))
    width = len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / width * np.eye(width)
    factor = np.linalg.cholesky(np.linalg.inv(covariance))
    return Whitening(mean.astype(np.float32), factor.astype(np.float32))


def found_again(white: np.ndarray, wanted: np.ndarray, reference: np.ndarray) -> float:
    """Return how well the object's patches are found again in a target; the best reference counts.

    Args:
        white: (N, D) the target's whitened tokens.
        wanted: (M, D) the whitened tokens of the object on all references.
        reference: (M,) which reference each of them is of.
    """
    if not len(white) or not len(wanted):
        return -1.0
    best = (white @ wanted.T).max(axis=0)
    return max(float(best[reference == i].mean()) for i in np.unique(reference))


def to_match(cosine: float, bound: float) -> float:
    """Return the match, 0 to 1, of a whitened cosine: 0.5 at the bound."""
    return float(1 / (1 + np.exp(-SLOPE * (cosine - bound))))


def bound_at(target: str, resolution: int) -> float:
    """Return the whitened cosine at which the match is 0.5.

    Args:
        target: "object" or "kind".
        resolution: px.
    """
    return BOUNDS[target] * min(1.0, resolution / FULL_RESOLUTION) ** FALL


def calibrated(bound: float, absent: list[float], present: list[float]) -> float:
    """Return the bound for one reference from what a person said of a few photos.

    Args:
        bound: the default one.
        absent: whitened cosines of photos that do not show the object.
        present: those of photos that do.

    Returns:
        A bound above all absent ones by `SAFETY`. Where a photo that shows the object lies below the default, the
        bound falls to it, but not below the absent ones; where the two overlap, absent ones count.
    """
    low = max(absent, default=-1.0) + SAFETY
    if present:
        high = min(present) - SAFETY / 2
        if low <= high:
            return min(max(bound, low), high) if absent else min(bound, high)
    return max(bound, low)


def state_of(match: float, least: float = 0.5) -> str:
    """Return "found", "unsure" or "not here" for a match, 0 to 1; least: from which on it is found."""
    if match >= least:
        return FOUND
    return UNSURE if match >= min(UNSURE_MATCH, least) else NOT_HERE
