"""The approximate index of large tables: built in the background, its recall measured against exact search."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .ranking import top
from .snapshot import CANDIDATES, Snapshot, matrix

if TYPE_CHECKING:
    from .store import Store

NEIGHBOURS, EFFORT = 20, 150  # links of a photo in the graph, candidates looked at while it is built
PARTITION_ROWS = 1_000_000
STALE = 0.1  # share of rows that may be searched one by one before the index is brought up to date
RECALL_QUERIES = 100
BATCH = 20_000

log = logging.getLogger(__name__)


def index_name(table) -> str | None:
    """Return the name of the index of a table's vectors, if there is one."""
    return next((index.name for index in table.list_indices() if "vector" in index.columns), None)


def build(table) -> bool:
    """Build the index IVF_HNSW_SQ over a table's vectors, or bring it up to date when new rows are many.

    Returns whether there was anything to do.
    """
    from lancedb.index import HnswSq

    name = index_name(table)
    if name is None:
        partitions = max(1, round(table.count_rows() / PARTITION_ROWS))
        config = HnswSq("cosine", num_partitions=partitions, m=NEIGHBOURS, ef_construction=EFFORT)  # IVF_HNSW_SQ
        table.create_index("vector", config=config)
        return True
    if table.index_stats(name).num_unindexed_rows > STALE * table.count_rows():
        table.optimize()
        return True
    return False


def measure_recall(snapshot: Snapshot, k: int = 10, queries: int = RECALL_QUERIES) -> float:
    """Return the share of the k rows nearest by exact search that approximate search finds, over rows as queries.

    A query's own row is left out: to find it is no art.
    """
    offsets = np.random.default_rng(0).choice(snapshot.count, min(queries, snapshot.count), replace=False)
    asked = snapshot.vectors_at(np.sort(offsets))
    found = 0
    exact = _exact(snapshot, snapshot.for_ranking(asked), k + 1)
    for query, expected in zip(asked, exact, strict=True):
        ids, vectors = snapshot.candidates(query, CANDIDATES[snapshot.ranking])
        best = top(snapshot.for_ranking(vectors) @ snapshot.for_ranking(query), k + 1)
        found += len(set(expected[1:]) & set(ids[best].tolist()))
    return found / max(sum(len(expected) - 1 for expected in exact), 1)


def _exact(snapshot: Snapshot, asked: np.ndarray, k: int) -> list[list[int]]:
    """Compare with every row, a batch at a time: the ids of each query's k nearest, best first."""
    ids: np.ndarray = np.zeros((len(asked), 0), np.uint64)
    scores: np.ndarray = np.zeros((len(asked), 0), np.float32)
    batches = snapshot.table.search().with_row_id(True).select(["vector"]).limit(None).to_batches(BATCH)
    for batch in batches:
        vectors = matrix(pa.chunked_array([batch["vector"]]))
        scores = np.concatenate([scores, asked @ snapshot.for_ranking(vectors).T], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(batch["_rowid"].to_numpy(), (len(asked), len(vectors)))], axis=1)
        best = np.stack([top(row, k) for row in scores])
        scores, ids = (np.take_along_axis(array, best, axis=1) for array in (scores, ids))
    return ids.tolist()


class Builder:
    """Build the index of a table on a thread; one at a time. Searches meanwhile compare with every row."""

    def __init__(self, store: Store):
        self._store = store
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.error: str = ""

    @property
    def is_running(self) -> bool:
        """Return whether an index is being built."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, then: Callable[[], object]) -> None:
        """Start building unless it is under way; `then` is called on that thread when something changed."""
        with self._lock:
            if not self.is_running:
                self._thread = threading.Thread(target=self._run, args=(then,), daemon=True, name="build-index")
                self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being built."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, then: Callable[[], object]) -> None:
        try:
            if build(self._store.open()):
                then()
            self.error = ""
        except (RuntimeError, ValueError, OSError) as error:  # searches go on without: slower, not wrong
            self.error = f"the approximate index was not built: {error}"
            log.warning("%s: %s", self._store.uri, self.error)
