"""The table on disk: one LanceDB table of photos, written in whole batches, read by version."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

PHOTOS = "photos"
REBUILD = "rebuild"  # where a rebuild gathers its rows; what lies there is picked up again
KEEP_VERSIONS = timedelta(minutes=10)  # so that whoever reads an older version may finish
MANY_FRAGMENTS = 16
KEY = b"dinodemo"
ATTEMPTS = 5
T = TypeVar("T")
CAUSES = {
    "no space left": "the disk is full; free some space and try again, what was stored stays",
    "quota exceeded": "the disk quota is used up; free some space and try again, what was stored stays",
    "file too large": "a file would become larger than this system allows; what was stored stays",
    "read-only file system": "the disk is read-only; choose another folder",
    "permission denied": "this user may not write there; choose another folder or change its permissions",
    "operation not permitted": "this user may not write there; choose another folder",
    "not a directory": "a part of the path is a file; choose another folder",
    "input/output error": "the disk reports an error; check it",
}

DAMAGE_SIGNS = ("lance error", "lanceerror", "lance file")  # of files that are not what was written


@dataclass(frozen=True)
class Recipe:
    """How an index's vectors were made; queries must be made the same way."""

    backbone: str
    resolution: int  # the network sees resolution x resolution pixels
    descriptor: str
    width: int
    identity: str = ""  # of the weights, as `Identity.to_json` writes it; version 0.1 recorded none


@dataclass(frozen=True)
class Row:
    """One photo of an index."""

    sha256: str
    path: str
    label: str | None
    nbytes: int
    mtime_ns: int | None
    height: int  # of the upright photo
    width: int
    thumbnail: bytes  # JPEG
    file: bytes | None  # the photo's own bytes, where no path leads to them
    backbone: str
    resolution: int
    vector: np.ndarray  # (D,) float32, unit length


def schema(recipe: Recipe) -> pa.Schema:
    """Return the table's columns, with the recipe in the metadata."""
    fields = [
        pa.field("sha256", pa.string(), nullable=False),
        ("path", pa.string()),
        ("label", pa.string()),
        ("nbytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("thumbnail", pa.binary()),
        ("file", pa.large_binary()),
        ("backbone", pa.string()),
        ("resolution", pa.int32()),
        ("vector", pa.list_(pa.float32(), recipe.width)),
    ]
    return pa.schema(fields, metadata={KEY: json.dumps(asdict(recipe))})


def recipe_of(table) -> Recipe:
    """Read a table's recipe; raises ValueError if the table was not made here."""
    try:
        return Recipe(**json.loads((table.schema.metadata or {})[KEY]))
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{table.uri} holds a table that is no index of photos; choose another folder") from error


@contextmanager
def disk_errors(uri: str) -> Iterator[None]:
    """Turn what a disk or an object store reports into a RuntimeError that says what to do."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        text = str(error).lower()
        remedy = next((remedy for cause, remedy in CAUSES.items() if cause in text), None)
        if remedy is None and "://" in uri and not isinstance(error, ValueError):
            remedy = f"the store does not answer as expected ({str(error)[:200]}); check address and credentials"
        if remedy is None and any(sign in text for sign in DAMAGE_SIGNS):
            remedy = "its files are damaged; bring back a copy, or delete it and add the photos again"
        if remedy is None:
            raise
        name = uri if "://" in uri else Path(uri).name
        raise RuntimeError(f"the index {name} cannot be used: {remedy}") from error


class Store:
    """Open, write and read the tables of one index. path: a folder, or an address such as s3://bucket/index."""

    def __init__(self, path: str | Path):
        text = str(path)
        self.is_remote = "://" in text
        self.uri = text if self.is_remote else str(Path(text).expanduser().absolute())
        self._connection = None
        self._photos = None

    def open(self, name: str = PHOTOS, version: int | None = None):
        """Return a table at its latest or a given version; None when there is none. Writes nothing.

        Args:
            name: Of the table.
            version: None is the latest.
        """
        if not self.is_remote and not Path(self.uri, f"{name}.lance").is_dir():
            return None
        with disk_errors(self.uri):
            try:
                return self._connect().open_table(name, version=version)
            except ValueError as error:
                if "not found" in str(error):
                    return None
                raise

    def latest(self):
        """Return a handle of the photos at their latest version, the same at every call; None when there is none."""
        if self._photos is None:
            self._photos = self.open()
        else:
            with disk_errors(self.uri):
                self._photos.checkout_latest()
        return self._photos

    def open_or_create(self, recipe: Recipe, name: str = PHOTOS):
        """Return a table, an empty one where there is none.

        Args:
            recipe: Of a new table.
            name: Of the table.

        Raises:
            RuntimeError: The disk refuses.
        """
        table = self.open(name)
        if table is not None:
            return table
        with disk_errors(self.uri):
            table = self._connect().create_table(name, schema=schema(recipe), exist_ok=True)
            # a batch that two processes write at the same time is refused to one of them, which tries again without
            table.set_unenforced_primary_key("sha256")
        return table

    def append(self, table, rows: list[Row]) -> int:
        """Write a batch in one transaction, without the photos that are there already; returns how many were new.

        Args:
            table: To write to.
            rows: The batch.
        """
        with disk_errors(self.uri):
            result = table.merge_insert("sha256").when_not_matched_insert_all().execute(to_arrow(rows, table.schema))
        return result.num_inserted_rows

    def overwrite(self, table, rows: pa.Table) -> None:
        """Write rows in the place of those with the same sha256, in one transaction.

        Args:
            table: To write to.
            rows: Complete rows.
        """
        with disk_errors(self.uri):
            table.checkout_latest()
            _again_on_conflict(table, lambda: table.merge_insert("sha256").when_matched_update_all().execute(rows))

    def delete(self, table, where: str) -> int:
        """Delete rows and return how many.

        Args:
            table: To delete from.
            where: A condition in SQL.
        """
        with disk_errors(self.uri):
            table.checkout_latest()
            count = table.count_rows(where)
            if count:
                _again_on_conflict(table, lambda: table.delete(where))
        return count

    def update(self, table, where: str, values: dict[str, str]) -> int:
        """Set columns to expressions and return how many rows changed.

        Args:
            table: To write to.
            where: A condition in SQL.
            values: Expressions in SQL by the columns' names.
        """
        with disk_errors(self.uri):
            table.checkout_latest()
            return _again_on_conflict(table, lambda: table.update(where=where, values_sql=values)).rows_updated

    def tidy(self, table) -> None:
        """Merge many small files into few, bring an index up to date, and drop versions nobody reads any more."""
        with disk_errors(self.uri):
            table.checkout_latest()
            if table.stats()["fragment_stats"]["num_fragments"] > MANY_FRAGMENTS:
                _again_on_conflict(table, lambda: table.optimize(cleanup_older_than=KEEP_VERSIONS))

    def replace(self, name: str, recipe: Recipe) -> None:
        """Put another table into the place of the photos' in one transaction, and drop it.

        Args:
            name: Of the other table.
            recipe: Of the other table.
        """
        with disk_errors(self.uri):
            connection = self._connect()
            batches = self.open(name).search().limit(None).to_batches(256)
            reader = pa.RecordBatchReader.from_batches(schema(recipe), batches)
            table = connection.create_table(PHOTOS, reader, schema=schema(recipe), mode="overwrite")
            table.set_unenforced_primary_key("sha256")
            connection.drop_table(name)

    def drop(self, name: str) -> None:
        """Drop a table that is there."""
        with disk_errors(self.uri):
            self._connect().drop_table(name)

    def _connect(self):
        if self._connection is None:
            import lancedb  # here, because it takes seconds

            self._connection = lancedb.connect(self.uri)
        return self._connection


def _again_on_conflict(table, change: Callable[[], T]) -> T:
    """Make a change that another process's, made at the same time, may turn down."""
    for _ in range(ATTEMPTS - 1):
        try:
            return change()
        except RuntimeError as error:
            if "commit conflict" not in str(error):
                raise
            table.checkout_latest()
    return change()


def to_arrow(rows: list[Row], target: pa.Schema) -> pa.Table:
    """Lay rows out as columns of the table's schema."""
    columns = {f.name: [getattr(row, f.name) for row in rows] for f in target if f.name != "vector"}
    flat = pa.array(np.concatenate([row.vector for row in rows]).astype(np.float32))
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, target.field("vector").type.list_size)
    return pa.table({f.name: columns[f.name] for f in target}, schema=target)


def quoted(value: str) -> str:
    """Write a string as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def one_of(column: str, values: Iterable[str]) -> str:
    """Write the condition that a column holds one of the values; of no values, none fits."""
    values = list(values)
    if not values:
        return "false"
    return f"{column} IN ({', '.join(quoted(value) for value in values)})"
