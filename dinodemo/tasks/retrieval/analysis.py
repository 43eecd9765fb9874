"""What an index's vectors say of the collection: near-duplicates, clusters, a map."""

import numpy as np

from ...io.vectors import CHUNK, linked_groups, principal_plane

map2d = principal_plane

NEAR_DUPLICATE = 0.85  # cosine of two vectors; finds 3 of 4 edited copies, see benchmarks/retrieval.py
MAX_CLUSTERED = 20_000  # rows that the clusters are learned from; the others join the nearest


def near_duplicates(vectors: np.ndarray, threshold: float) -> list[list[int]]:
    """Group rows that a chain of cosines at or above a threshold links.

    Args:
        vectors: (n, D), unit length.
        threshold: Least cosine of two near-duplicates, above 0 and at most 1.

    Returns:
        Row numbers of each group, the largest first; rows in no group are left out.

    Raises:
        ValueError: For a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie above 0 and at most at 1, got {threshold!r}; 0.95 is a start")
    pairs = [np.zeros((2, 0), int)]
    for start in range(0, len(vectors), CHUNK):
        scores = vectors[start : start + CHUNK] @ vectors[start:].T
        i, j = np.nonzero(scores >= threshold - 1e-6)  # float32: equal vectors have a cosine of 1 - 1e-7
        pairs.append(np.stack([i, j])[:, i < j] + start)
    groups = linked_groups(np.concatenate(pairs, axis=1), len(vectors))
    return sorted((g.tolist() for g in groups), key=lambda g: (-len(g), g))


def clusters(vectors: np.ndarray, n: int, seed: int = 0) -> list[list[int]]:
    """Cluster rows by k-means.

    Args:
        vectors: (m, D), unit length.
        n: How many clusters.
        seed: Of the first centres.

    Returns:
        Row numbers of each cluster, the largest first, each from its centre outwards.

    Raises:
        ValueError: Unless n lies between 2 and the number of rows.
    """
    from sklearn.cluster import KMeans

    if not 2 <= n <= len(vectors):
        raise ValueError(f"the number of clusters must lie between 2 and the {len(vectors)} photos, got {n!r}")
    sample = vectors
    if len(vectors) > MAX_CLUSTERED:
        rng = np.random.default_rng(seed)
        sample = vectors[rng.choice(len(vectors), max(MAX_CLUSTERED, n), replace=False)]
    means = KMeans(n, n_init=4, random_state=seed).fit(sample)
    label = means.predict(vectors)
    distance = np.linalg.norm(vectors - means.cluster_centers_[label], axis=1)
    groups = [np.flatnonzero(label == i) for i in range(n)]
    return sorted((g[np.argsort(distance[g], kind="stable")].tolist() for g in groups), key=len, reverse=True)
