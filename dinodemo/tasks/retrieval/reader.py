"""What an index can be asked without a network: its photos, groups of them, and how it searches."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

import numpy as np

from ...io.images import Photo, load_photo
from . import analysis, approximate
from .approximate import Builder
from .moves import missing_paths
from .ranking import RANKINGS
from .results import Entry, Statistics
from .snapshot import EXACT_ROWS, Snapshot
from .sources import PathLike, read_again
from .store import Recipe, Store, one_of, recipe_of


class IndexReader:
    """Read an index. Safe to use from many threads, and while another process adds.

    Args:
        path: Its folder, or an object store's address (s3://bucket/index); it need not exist yet.
        ranking: "whitened", or the descriptors' plain "cosine".

    Raises:
        ValueError: The ranking is unknown.
    """

    def __init__(self, path: PathLike, ranking: str = "whitened"):
        if ranking not in RANKINGS:
            raise ValueError(f"ranking must be one of {', '.join(RANKINGS)}, got {ranking!r}")
        self._store = Store(path)
        self._ranking = ranking
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._builder = Builder(self._store)
        self._recall: float | None = None
        self.doubt = ""  # why its vectors may be another network's than the engine's, once the engine was asked

    @property
    def path(self) -> str:
        """Return the index's absolute path, or its address."""
        return self._store.uri

    @property
    def recipe(self) -> Recipe | None:
        """Return how the vectors were made; None before the first photo."""
        table = self._store.open()
        return None if table is None else recipe_of(table)

    def __len__(self) -> int:
        table = self._store.open()
        return 0 if table is None else table.count_rows()

    def gallery(self) -> tuple[list[Entry], np.ndarray]:
        """Return all photos and their vectors (n, D) float32, row by row."""
        snapshot = self._current()
        names = snapshot.read(["sha256", "path", "label"])
        return [Entry(*row) for row in zip(*names.values(), strict=True)], snapshot.vectors()

    def photo(self, sha256: str) -> Photo:
        """Return a photo in full from where it lies; raises ValueError when it is not there, gone, or changed."""
        found = self._current().find(one_of("sha256", [sha256]), ["path", "file"])
        if not found:
            raise ValueError(f"no photo {sha256[:12]} in {self.path}; it was removed")
        path, data = found[0]["path"], found[0]["file"]
        return load_photo(read_again(path, sha256) if data is None else data, name=path.rsplit("/", 1)[-1])

    def thumbnails(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return the JPEG thumbnails of photos by their sha256."""
        found = self._current().find(one_of("sha256", digests), ["sha256", "thumbnail"])
        return {row["sha256"]: row["thumbnail"] for row in found}

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Return the paths of photos, given by their sha256, where no file lies any more."""
        columns = {"path": "path", "kept": "file IS NOT NULL"}
        return missing_paths(self._current().find(one_of("sha256", digests), columns))

    def near_duplicates(self, threshold: float = analysis.NEAR_DUPLICATE) -> list[list[Entry]]:
        """Return groups of photos that a chain of cosines at or above the threshold links; the largest group first."""
        entries, vectors = self.gallery()
        return [[entries[i] for i in group] for group in analysis.near_duplicates(vectors, threshold)]

    def clusters(self, n: int) -> list[list[Entry]]:
        """Return the photos in n clusters of k-means; the largest first, each from its centre outwards."""
        entries, vectors = self.gallery()
        return [[entries[i] for i in group] for group in analysis.clusters(vectors, n)]

    def map2d(self) -> tuple[list[Entry], np.ndarray]:
        """Return the photos and their first two principal components (n, 2) float32, as places on a plane."""
        entries, vectors = self.gallery()
        return entries, analysis.map2d(vectors)

    def statistics(self) -> Statistics:
        """Return counts, and how searches are done; `recall_at_10` is what `recall` measured last."""
        recipe = self.recipe
        if recipe is None:
            return Statistics(0, {}, 0, None, "exact", None)
        snapshot = self._current()
        columns = snapshot.read(["label", "nbytes"])
        labels = Counter(label for label in columns["label"] if label is not None)
        return Statistics(
            snapshot.count,
            dict(sorted(labels.items())),
            sum(columns["nbytes"]),
            recipe,
            self._how(snapshot),
            self._recall,
            " ".join(filter(None, [self._builder.error, self.doubt])),
        )

    def recall(self) -> float | None:
        """Measure recall@10 of approximate search against exact (seconds to a minute).

        Returns:
            0 to 1; None while search is exact.
        """
        snapshot = self._current()
        self._recall = approximate.measure_recall(snapshot) if self._how(snapshot) == "approximate" else None
        return self._recall

    def wait(self) -> None:
        """Return when the approximate index, if one is being built, is ready."""
        self._builder.wait()

    def _how(self, snapshot: Snapshot) -> str:
        if snapshot.is_exact:
            return "exact"
        if approximate.index_name(snapshot.table):
            return "approximate"
        return "building" if self._builder.is_running else "exact, from disk"

    def _current(self) -> Snapshot:
        with self._lock:
            table = self._store.latest()
            if table is None:
                raise ValueError(f"{self.path} holds no index yet; add photos first")
            if self._snapshot is None or self._snapshot.version != table.version:
                self._snapshot = Snapshot(self._store, table.version, self._ranking, EXACT_ROWS)
            return self._snapshot

    def _after_change(self, table) -> None:
        self._store.tidy(table)
        if table.count_rows() > EXACT_ROWS:
            self._builder.start(then=self.recall)

    def _needed_recipe(self) -> Recipe:
        recipe = self.recipe
        if recipe is None:
            raise ValueError(f"{self.path} holds no index yet; add photos first")
        return recipe
