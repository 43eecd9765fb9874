"""Arithmetic on rows of vectors that tasks, curation and training share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 2048  # rows compared at a time, so that memory stays flat


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (..., D) at unit length; a vector of length 0 stays as it is."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def knn_votes(
    gallery: Tensor,
    labels: Tensor,
    queries: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    leave_one_out: bool = False,
    classes: int | None = None,
) -> Tensor:
    """Return how much the nearest rows speak for each class.

    The k nearest by cosine vote with exp((cosine - 1) / temperature) (Caron et al. 2021, arXiv:2104.14294, sec. 4.1,
    after Wu et al. 2018, arXiv:1805.01978).

    Args:
        gallery: (G, D), of any length.
        labels: Their classes (G,) int64, from 0.
        queries: (Q, D), of any length.
        k: Neighbours that vote; all there are, where these are fewer.
        temperature: Of their votes, above 0.
        leave_one_out: The queries are the gallery, and no row votes for itself.
        classes: How many there are; None takes the greatest label plus 1.

    Returns:
        (Q, C) float32 on the device of the queries.

    Raises:
        ValueError: Without a row to compare with, for a k below 1 or a temperature that is not above 0.
    """
    import torch
    from torch.nn.functional import normalize

    count = min(int(k), len(gallery) - leave_one_out)
    if len(gallery) <= leave_one_out:
        raise ValueError("k-NN needs another picture to compare with; the gallery is empty")
    if count < 1 or not temperature > 0:
        raise ValueError(f"k-NN needs k of 1 or more and a temperature above 0; got k {k}, {temperature}")
    gallery, queries = normalize(gallery.float(), dim=-1), normalize(queries.float(), dim=-1)
    votes = torch.zeros(len(queries), classes or int(labels.max()) + 1, device=queries.device)
    for start in range(0, len(queries), CHUNK):
        cosines = queries[start : start + CHUNK] @ gallery.T
        if leave_one_out:
            cosines.diagonal(offset=start).fill_(-torch.inf)
        cosine, nearest = cosines.topk(count, dim=1)
        votes[start : start + CHUNK].scatter_add_(1, labels[nearest], ((cosine - 1) / temperature).exp())
    return votes


def principal_plane(vectors: np.ndarray) -> np.ndarray:
    """Return the first two principal components of vectors (n, D): (n, 2) float32, the same at every call."""
    from sklearn.decomposition import PCA

    if len(vectors) < 3:
        return np.zeros((len(vectors), 2), np.float32)
    return PCA(2, random_state=0).fit_transform(vectors).astype(np.float32)


def linked_groups(pairs: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the groups of rows that chains of pairs link; rows without a pair are in none.

    Args:
        pairs: (2, P) row numbers.
        count: How many rows there are.

    Returns:
        Row numbers in ascending order, the group with the lowest row first.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return sorted((g for g in groups if len(g) > 1), key=lambda g: int(g[0]))
