"""What an index's vectors say of the collection: near-duplicates, clusters, a map."""

import numpy as np

CHUNK = 2048
MAX_CLUSTERED = 20_000  # rows that the clusters are learned from; the others join the nearest


def near_duplicates(vectors: np.ndarray, threshold: float) -> list[list[int]]:
    """Group the rows of unit vectors (n, D) that a chain of cosines at or above the threshold links; largest first.

    Rows in no group are left out. Raises ValueError for a threshold outside (0, 1].
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie above 0 and at most at 1, got {threshold!r}; 0.95 is a start")
    pairs = [np.zeros((2, 0), int)]
    for start in range(0, len(vectors), CHUNK):
        scores = vectors[start : start + CHUNK] @ vectors[start:].T
        i, j = np.nonzero(scores >= threshold - 1e-6)  # float32: equal vectors have a cosine of 1 - 1e-7
        pairs.append(np.stack([i, j])[:, i < j] + start)
    i, j = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(i), bool), (i, j)), shape=(len(vectors), len(vectors)))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return sorted((g.tolist() for g in groups if len(g) > 1), key=lambda g: (-len(g), g))


def clusters(vectors: np.ndarray, n: int, seed: int = 0) -> list[list[int]]:
    """Sort the rows of unit vectors (n, D) into n clusters by k-means: the largest first, each from its centre out.

    Raises ValueError unless n lies between 2 and the number of rows.
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


def map2d(vectors: np.ndarray) -> np.ndarray:
    """Return the first two principal components of vectors (n, D): (n, 2) float32, the same at every call."""
    from sklearn.decomposition import PCA

    if len(vectors) < 3:
        return np.zeros((len(vectors), 2), np.float32)
    return PCA(2, random_state=0).fit_transform(vectors).astype(np.float32)
