"""The order of the hits: cosine of whitened vectors, with the query widened by what is nearest to it."""

from dataclasses import dataclass

import numpy as np

from ..tokens import unit

RIDGE, FLOOR = 1.0, 4.0  # of the mean variance; the first is divided by photos per dimension
PRIOR_PHOTOS = 10  # as if so many had been seen around the origin
EXPAND = 2
RANKINGS = ("whitened", "cosine")


@dataclass(frozen=True)
class Whitening:
    """Take out what all photos of an index share, and shrink the directions in which they differ most."""

    mean: np.ndarray  # (D,)
    matrix: np.ndarray  # (D, D)

    @classmethod
    def fit(cls, vectors: np.ndarray) -> "Whitening":
        """Return PCA whitening (Jégou and Chum 2012) of unit vectors (n, D), with a ridge that fades as photos grow.

        Few photos say little of the covariance, and their groups look like directions to be shrunk: without the ridge
        whitening does more harm than good (mAP 0.75 instead of 0.91, see benchmarks/retrieval.py).
        """
        n, width = max(len(vectors), 1), vectors.shape[1]
        mean = vectors.sum(axis=0) / (n + PRIOR_PHOTOS)
        centred = vectors - mean
        variance, axes = np.linalg.eigh(centred.T @ centred / n)
        ridge = (RIDGE * width / n + FLOOR) * max(variance.mean(), 1e-9)
        scale = 1 / np.sqrt(np.clip(variance, 0, None) + ridge)
        return cls(mean.astype(np.float32), (axes * scale).astype(np.float32))

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Return whitened unit vectors (..., D)."""
        return unit((vectors - self.mean) @ self.matrix)


def score(query: np.ndarray, vectors: np.ndarray, keep: np.ndarray | None = None, expand: int = 0) -> np.ndarray:
    """Return the cosine of a vector with each of many.

    Args:
        query: (D,), unit length.
        vectors: (n, D), unit length.
        keep: (n,) bool; rows that are False score -inf.
        expand: Average query expansion (Chum et al. 2007), weighted by cosine: the query plus so many of its nearest.

    Returns:
        (n,), -1 to 1 or -inf.
    """
    scores = _masked(vectors @ query, keep)
    if expand:
        near = top(scores, expand)
        query = unit(query + np.clip(scores[near], 0, None) @ vectors[near])
        scores = _masked(vectors @ query, keep)
    return scores


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the greatest finite scores, greatest first; the earlier of two equal ones first.

    Args:
        scores: (n,).
        k: Most indices.
    """
    k = min(k, len(scores))
    if k == 0:
        return np.zeros(0, int)
    best = np.sort(np.argpartition(-scores, k - 1)[:k])
    best = best[np.argsort(-scores[best], kind="stable")]
    return best[np.isfinite(scores[best])]


def _masked(scores: np.ndarray, keep: np.ndarray | None) -> np.ndarray:
    if keep is not None:
        scores[~keep] = -np.inf
    return scores
