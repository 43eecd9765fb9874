"""Which photos to take: evenly over what a folder shows, or like some seeds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..io.vectors import principal_plane
from .examine import Examination

MAX_CLUSTERED = 20_000  # photos that the clusters are learned from; the others join the nearest


def clusters(found: Examination, n: int | None = None, seed: int = 0) -> np.ndarray:
    """Return the cluster of each photo (n_photos,) int, by k-means; 0 is the largest.

    Args:
        found: Of `examine`.
        n: Clusters; None takes the square root of half the photos, between 2 and 100.
        seed: Of the first centres.
    """
    from sklearn.cluster import KMeans

    if len(found) < 2:
        return np.zeros(len(found), int)
    different = len(np.unique(found.vectors, axis=0))
    count = min(n or int(np.clip(np.sqrt(len(found) / 2), 2, 100)), different)
    rng = np.random.default_rng(seed)
    sample = rng.choice(len(found), min(len(found), MAX_CLUSTERED), replace=False)
    label = KMeans(count, n_init=4, random_state=seed).fit(found.vectors[sample]).predict(found.vectors)
    order = np.argsort(-np.bincount(label, minlength=count), kind="stable")
    return np.argsort(order)[label]


def balanced(found: Examination, n: int, label: np.ndarray | None = None, seed: int = 0) -> list[Path]:
    """Return n photos as evenly over the clusters as their sizes allow, at random within each (arXiv:2405.15613).

    Args:
        found: Of `examine`.
        n: Photos, from 1 to all.
        label: Cluster of each photo, of `clusters` by default.
        seed: Of the choice.

    Raises:
        ValueError: `n` is out of range.
    """
    if not 1 <= n <= len(found):
        raise ValueError(f"between 1 and the {len(found)} photos can be taken, got {n!r}")
    label = clusters(found) if label is None else label
    rng = np.random.default_rng(seed)
    turn = np.empty(len(found))  # a photo's rank in its cluster: all the first ones are taken before any second
    for number in np.unique(label):
        members = np.flatnonzero(label == number)
        turn[members] = rng.permutation(len(members)) + rng.random(len(members)) / 2
    return [found.paths[i] for i in np.sort(np.argsort(turn)[:n])]


def more_like(found: Examination, seeds: Sequence[Path], n: int) -> list[Path]:
    """Return the photos that resemble any of the seeds most, best first, the seeds themselves left out.

    Args:
        found: Of `examine`.
        seeds: Paths of photos that were examined.
        n: Most photos.

    Raises:
        ValueError: A seed is not among the photos.
    """
    rows = {path: i for i, path in enumerate(found.paths)}
    missing = [path for path in seeds if path not in rows]
    if missing or not seeds:
        raise ValueError(f"seeds must be photos of this folder, got {missing[0].name if missing else 'none'}")
    chosen = [rows[path] for path in seeds]
    score = (found.vectors @ found.vectors[chosen].T).max(axis=1)
    score[chosen] = -np.inf
    return [found.paths[i] for i in np.argsort(-score, kind="stable")[: min(n, len(found) - len(set(chosen)))]]


def map2d(found: Examination) -> np.ndarray:
    """Return the first two principal components of the vectors, (n, 2) float32."""
    return principal_plane(found.vectors)
