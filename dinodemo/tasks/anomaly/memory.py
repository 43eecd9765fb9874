"""Arithmetic of the memory: descriptors of patches, a smaller space, distances to the nearest, a coreset."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..tokens import unit

BLOCK = 2048  # patches whose distances are computed at once: bounds the memory
CORESET_BLOCK = 4096
MOST_FITTED = 20_000  # patches that the space is fitted on
MOST_HIGHEST = 3  # patches that a photo's score is the mean of: many small defects cover no more
SHRINKAGE = 0.1  # of the variances towards their mean: directions hardly seen in few photos must not explode


def describe(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Join the tokens of several layers, each layer with equal weight.

    Args:
        layers: (h, w, D) each.

    Returns:
        (h, w, L * D) float32 of unit length.
    """
    return np.concatenate([unit(layer.astype(np.float32, copy=False)) for layer in layers], axis=-1) / np.sqrt(
        np.float32(len(layers))
    )


@dataclass(frozen=True, eq=False)
class Space:
    """A space of fewer dimensions in which directions that vary much among good patches count less.

    Attributes:
        mean: (D,) float32, the mean good patch.
        basis: (D, k) float32, main directions of good patches, each divided by its (shrunk) standard deviation.
    """

    mean: np.ndarray
    basis: np.ndarray

    @classmethod
    def fit(cls, patches: np.ndarray, dimensions: int) -> Self:
        """Fit on good patches (N, D): PCA to at most `dimensions`, variances shrunk towards their mean."""
        some = patches[:: -(-len(patches) // MOST_FITTED)].astype(np.float32)
        mean = some.mean(axis=0)
        centred = some - mean
        values, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64) / max(len(some) - 1, 1))
        kept = np.argsort(values)[::-1][:dimensions]
        variances = np.maximum(values[kept], 0)
        shrunk = (1 - SHRINKAGE) * variances + SHRINKAGE * variances.mean() + 1e-12
        return cls(mean, (vectors[:, kept] / np.sqrt(shrunk)).astype(np.float32))

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Map patches (..., D) to (..., k)."""
        return (patches - self.mean) @ self.basis


def nearest(
    queries: np.ndarray, memory: np.ndarray, excluded: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Euclidean distance (N,) of queries (N, k) to the nearest row of a memory (M, k), and its index (N,).

    Args:
        queries: (N, k) float32.
        memory: (M, k) float32.
        excluded: (M,) bool, rows that do not count; at least one must.
    """
    norms = np.einsum("mk,mk->m", memory, memory)
    if excluded is not None:
        norms = np.where(excluded, np.float32(np.inf), norms)
    distances, indices = [], []
    for start in range(0, len(queries), BLOCK):
        block = queries[start : start + BLOCK]
        squares = norms - 2 * (block @ memory.T)
        best = squares.argmin(axis=1)
        indices.append(best)
        # from the vectors themselves: the difference of large squares would lose what small distances are made of
        distances.append(np.linalg.norm(block - memory[best], axis=1))
    return np.concatenate(distances), np.concatenate(indices)


def coreset(vectors: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Choose `count` of the vectors (N, k) that lie far apart; returns their indices, ascending.

    Greedy k-centre (Sener and Savarese 2018, as in PatchCore, Roth et al. 2022, arXiv:2106.08265, algorithm 1), in
    random blocks so that the time stays linear in N.
    """
    if len(vectors) <= count:
        return np.arange(len(vectors))
    order = np.random.default_rng(seed).permutation(len(vectors))
    blocks = np.array_split(order, -(-len(vectors) // CORESET_BLOCK))
    ends = np.round(np.cumsum([len(block) for block in blocks]) * count / len(vectors)).astype(int)
    wanted = np.diff(np.concatenate([[0], ends]))
    chosen = [block[_greedy(vectors[block], n)] for block, n in zip(blocks, wanted, strict=True)]
    return np.sort(np.concatenate(chosen))


def _greedy(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return indices of `count` vectors: the first, then each time the one farthest from all chosen."""
    chosen = np.empty(count, int)
    norms = np.einsum("nk,nk->n", vectors, vectors)
    gaps = np.full(len(vectors), np.inf)
    at = 0
    for i in range(count):
        chosen[i] = at
        gaps = np.minimum(gaps, norms + norms[at] - 2 * (vectors @ vectors[at]))
        gaps[at] = -np.inf  # of several equal ones each is chosen once at most
        at = int(gaps.argmax())
    return chosen


def top_mean(values: np.ndarray, share: float = 0.01, most: int | None = MOST_HIGHEST) -> float:
    """Return the mean of the highest values (AnomalyDINO, arXiv:2405.14529, eq. 2).

    Args:
        values: Of any shape.
        share: How many of them, 0 to 1, one at least.
        most: No more than that, so that a small defect counts as much on a large photo; None for no limit.
    """
    flat = values.ravel()
    count = max(1, min(round(share * len(flat)), most or len(flat)))
    return float(np.partition(flat, len(flat) - count)[len(flat) - count :].mean())
