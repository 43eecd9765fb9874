"""One version of an index, as searches read it: exact in memory while it is small, by the table's own index above."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .ranking import EXPAND, Whitening, score, top
from .store import disk_errors, one_of, quoted

if TYPE_CHECKING:
    from .store import Store

EXACT_ROWS = 50_000
CANDIDATES = {"whitened": 100, "cosine": 40}  # rows of the approximate index that are ranked exactly
EFFORT = 2  # times as many its graph looks at
PROBES = 64  # partitions at most
SAMPLE = 20_000  # rows that the whitening of a large index is learned from
COLUMNS = ["sha256", "path", "label", "nbytes", "height", "width", "thumbnail"]


@dataclass(frozen=True)
class Filter:
    """What a search is narrowed to.

    Args:
        labels: Any of these.
        path: A text that occurs in the path, in upper or lower case.
    """

    labels: tuple[str, ...] = ()
    path: str = ""

    def __bool__(self) -> bool:
        return bool(self.labels or self.path)

    def mask(self, table: pa.Table) -> np.ndarray:
        """Return (n,) bool for columns `label` and `path`."""
        keep = np.ones(table.num_rows, bool)
        if self.labels:
            keep &= pc.is_in(table["label"], value_set=pa.array(self.labels, pa.string())).to_numpy()
        if self.path:
            keep &= pc.match_substring(pc.utf8_lower(table["path"]), self.path.lower()).to_numpy()
        return keep

    def sql(self) -> str:
        """Return the same as a condition in SQL."""
        parts = [one_of("label", self.labels)] if self.labels else []
        return " AND ".join(parts + ([f"contains(lower(path), {quoted(self.path.lower())})"] if self.path else []))


NO_FILTER = Filter()


class Snapshot:
    """Read one version of the table of photos; what is written later is not seen.

    Args:
        store: Of the index.
        version: Of the table.
        ranking: "whitened" or "cosine" (see `ranking`).
        exact_rows: Up to so many rows are compared one by one.
    """

    def __init__(self, store: Store, version: int, ranking: str = "whitened", exact_rows: int = EXACT_ROWS):
        self.version, self._uri = version, store.uri
        self.table = store.open(version=version)
        self.count = self.table.count_rows()
        self.is_exact = self.count <= exact_rows
        self.ranking = ranking
        if self.is_exact:
            wanted = self.table.search().with_row_id(True).select(["path", "label", "vector"]).limit(None)
            columns = self._arrow(wanted)
            self._names = columns.select(["path", "label"])
            self._ids = columns["_rowid"].to_numpy()
            self._vectors = matrix(columns["vector"])

    def nearest(self, query: np.ndarray, k: int, where: Filter = NO_FILTER) -> list[dict]:
        """Return the rows nearest to a vector, best first: COLUMNS, `score`, and the plain `cosine`.

        Args:
            query: (D,), unit length.
            k: Most rows.
            where: Only rows that it lets through.
        """
        ids, scores, cosines = self.nearest_ids(query, k, where)
        rows = self.rows(ids)
        numbers = zip(ids.tolist(), scores.tolist(), cosines.tolist(), strict=True)
        return [rows[i] | {"score": score, "cosine": cosine} for i, score, cosine in numbers]

    def nearest_ids(self, query: np.ndarray, k: int, where: Filter = NO_FILTER) -> tuple[np.ndarray, ...]:
        """Return ids, scores and plain cosines of the nearest rows, best first, without reading the rows.

        Args:
            query: (D,), unit length.
            k: Most rows.
            where: Only rows that it lets through.
        """
        if self.is_exact:
            ids, vectors, ranked = self._ids, self._vectors, self._ranked
            keep = where.mask(self._names) if where else None
        else:
            ids, vectors = self.candidates(query, max(CANDIDATES[self.ranking], 4 * k), where)
            ranked, keep = self.for_ranking(vectors), None
        scores = score(self.for_ranking(query), ranked, keep, EXPAND if self.ranking == "whitened" else 0)
        best = top(scores, k)
        return ids[best], scores[best], vectors[best] @ query

    def candidates(self, query: np.ndarray, count: int, where: Filter = NO_FILTER) -> tuple[np.ndarray, np.ndarray]:
        """Return rows near by plain cosine, found by the table's index, to be ranked as all rows would be.

        Args:
            query: (D,), unit length.
            count: Most rows.
            where: Only rows that it lets through.

        Returns:
            Ids (m,) and vectors (m, D).
        """
        search = self.table.search(query).distance_type("cosine").nprobes(PROBES).ef(EFFORT * count)
        if where:
            search = search.where(where.sql(), prefilter=True)
        found = self._arrow(search.with_row_id(True).select(["vector", "_distance"]).limit(count))
        return found["_rowid"].to_numpy(), matrix(found["vector"])

    def for_ranking(self, vectors: np.ndarray) -> np.ndarray:
        """Return unit vectors (..., D) as they are compared: whitened, or as they are."""
        return self.whitening.apply(vectors) if self.ranking == "whitened" else vectors

    @cached_property
    def whitening(self) -> Whitening:
        """Return the whitening learned from the rows, or from a sample of many."""
        if self.is_exact:
            return Whitening.fit(self._vectors)
        offsets = np.random.default_rng(0).choice(self.count, min(SAMPLE, self.count), replace=False)
        return Whitening.fit(self.vectors_at(np.sort(offsets)))

    def rows(self, ids: np.ndarray, columns: list[str] = COLUMNS) -> dict[int, dict]:
        """Return rows by id: {id: {column: value}}.

        Args:
            ids: To read.
            columns: To read.
        """
        if not len(ids):
            return {}
        taken = self._arrow(self.table.take_row_ids([int(i) for i in ids]).select(columns).with_row_id())
        return {row.pop("_rowid"): row for row in taken.to_pylist()}

    def find(self, where: str, columns: list[str] | dict[str, str] = COLUMNS) -> list[dict]:
        """Return the rows that meet a condition.

        Args:
            where: In SQL.
            columns: To read, or expressions in SQL by their name.
        """
        return self._arrow(self.table.search().where(where).select(columns).limit(None)).to_pylist()

    def read(self, columns: list[str]) -> dict[str, list]:
        """Return columns of all rows, in the order of `vectors`."""
        return self._arrow(self.table.search().select(columns).limit(None)).to_pydict()

    def vectors(self) -> np.ndarray:
        """Return all vectors (n, D) float32."""
        if self.is_exact:
            return self._vectors
        return matrix(self._arrow(self.table.search().select(["vector"]).limit(None))["vector"])

    def vectors_at(self, offsets: np.ndarray) -> np.ndarray:
        """Return the vectors of some rows, counted from 0 in ascending order."""
        return matrix(self._arrow(self.table.take_offsets(offsets.tolist()).select(["vector"]))["vector"])

    def _arrow(self, query) -> pa.Table:
        with disk_errors(self._uri):
            return query.to_arrow()

    @cached_property
    def _ranked(self) -> np.ndarray:
        return self.for_ranking(self._vectors)  # computed by the first search


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of vectors as one array (n, D) float32."""
    width = column.type.list_size
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in column.chunks]
    return np.concatenate([np.zeros((0, width), np.float32), *chunks])
