"""Filling a table with rows, a batch at a time, and making a table anew for another backbone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...backbones.identity import Identity, check
from .adding import Known, rows
from .descriptor import default_descriptor, descriptor_width, input_side
from .moves import Moves, Seen
from .snapshot import Snapshot
from .sources import Item, Problem, read_again
from .store import REBUILD, Recipe, Row, Store, disk_errors, one_of, recipe_of

if TYPE_CHECKING:
    from ...engine.engine import Engine

COMMIT_ROWS = 512
COMMIT_SECONDS = 4.0  # so much work a kill may cost
Progress = Callable[[int, int], None]  # photos done, photos in all
MakeRows = Callable[..., Iterator[Row]]  # with the arguments of `adding.rows`


@dataclass
class AddReport:
    """What came of adding photos.

    Args:
        added: Photos that are new, with those whose file holds another picture than before.
        skipped: Photos whose content was there already.
        problems: (file, reason) of what was left out.
        stopped: Whether it was stopped before the end.
        moved: Those of `skipped` that were found at a new path, which their rows have now.
        replaced: Rows that went because their file holds another picture now.
    """

    added: int = 0
    skipped: int = 0
    problems: list[Problem] = field(default_factory=list)
    stopped: bool = False
    moved: int = 0
    replaced: int = 0

    def sentence(self) -> str:
        """Return what came of it in one line."""
        text = f"{self.added} added, {self.skipped} were there already"
        if self.moved:
            text += f" ({self.moved} of them at a new path, which the index has now)"
        if self.replaced:
            text += f", {self.replaced} replaced because the file holds another photo now"
        return text


class Writer:
    """Write rows into a table as they come, in whole batches, and report the progress.

    Args:
        store: Of the index.
        table: To write to.
        report: That is filled.
        total: Photos of the source.
        progress: Called with photos done and their total after each batch.
        moves: Notes which files have moved.
    """

    def __init__(
        self,
        store: Store,
        table,
        report: AddReport,
        total: int,
        progress: Progress | None,
        moves: Moves | None = None,
    ):
        self._store, self._table, self.report, self._total, self._progress = store, table, report, total, progress
        self._moves = moves  # none where rows are only computed anew
        self._left_out_before = len(report.problems)
        self._batch: list[Row] = []
        self._last = time.monotonic()

    def write(self, row: Row) -> None:
        """Take a row; it is written with its batch."""
        self._batch.append(row)
        if self._moves:
            stamp = None if row.mtime_ns is None else (row.nbytes, row.mtime_ns)
            item = Item(row.path, bytes, row.label, stamp, only_here=row.file is not None and stamp is None)
            self._moves.saw(item, bytes.fromhex(row.sha256), in_table=False)
        if len(self._batch) >= COMMIT_ROWS or time.monotonic() - self._last >= COMMIT_SECONDS:
            self.flush()

    def leave_out(self, problem: Problem | Seen | None) -> None:
        """Count a photo that gives no row: a problem, or one that is known, with where it lies if it was read."""
        if problem is None or isinstance(problem, Seen):
            self.report.skipped += 1
            if problem and self._moves:
                self._moves.saw(problem.item, problem.digest, in_table=True)
        else:
            self.report.problems.append(problem)
        if time.monotonic() - self._last >= COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered and tell the progress."""
        if self._batch:
            new = self._store.append(self._table, self._batch)
            self.report.added += new
            self.report.skipped += len(self._batch) - new  # another process was faster
            self._batch = []
        self._last = time.monotonic()
        if self._progress:
            left_out = len(self.report.problems) - self._left_out_before
            self._progress(self.report.added + self.report.skipped + left_out, self._total)

    def settle(self) -> None:
        """Update the rows of files that moved, and drop those whose file holds another photo."""
        if self._moves:
            self.report.moved, self.report.replaced = self._moves.settle(self._store, self._table)


def new_recipe(engine: Engine, resolution: int, descriptor: str | None) -> Recipe:
    """Return how an index made by an engine makes its vectors.

    Args:
        engine: Computes the vectors.
        resolution: Wanted side of the pictures, px.
        descriptor: None takes what serves the backbone best.

    Raises:
        ValueError: The descriptor is unknown.
    """
    backbone = engine.backbone
    descriptor = descriptor or default_descriptor(backbone)
    side = input_side(resolution, backbone.patch_size)
    identity = getattr(engine, "identity", None)  # a cluster's stand-in for an engine has none
    words = identity.to_json() if identity and identity.sha256 else ""
    return Recipe(backbone.name, side, descriptor, descriptor_width(backbone, descriptor), words)


def network_doubt(recipe: Recipe, engine: Engine, path: str) -> str:
    """Check that an engine runs the network that made an index.

    Args:
        recipe: Of the index.
        engine: To check.
        path: Of the index, for messages.

    Returns:
        Why that cannot be known (version 0.1 recorded no checksum); empty where it is the same.

    Raises:
        ValueError: For another backbone, or other weights of the same name.
    """
    name = engine.backbone.name
    if name != recipe.backbone:
        raise ValueError(
            f"the index {path} was made with {recipe.backbone}, the engine runs {name}; their vectors do not "
            f"compare: use Engine({recipe.backbone!r}), or rebuild the index with {name}"
        )
    running = getattr(engine, "identity", None)
    if running is None:  # a cluster's stand-in for an engine
        return ""
    return check(Identity.from_json(recipe.identity), running, f"the index {path}", "rebuild the index")


def fill(
    writer: Writer,
    engine: Engine,
    recipe: Recipe,
    items: Iterable[Item],
    known: Known,
    store: bool,
    stopped: Callable[[], bool],
    make_rows: MakeRows = rows,
) -> AddReport:
    """Add items to a writer's table until `stopped()`; what was computed is written in any case.

    Args:
        writer: Of the table.
        engine: Computes the vectors.
        recipe: How they are made.
        items: Of `open_source`.
        known: Photos that the table holds already.
        store: Keep each photo's file in the table.
        stopped: Asked before every photo.
        make_rows: Computes the rows.

    Returns:
        The writer's report.
    """
    try:
        for row in make_rows(engine, items, recipe, known, store, stopped, writer.leave_out):
            writer.write(row)
    finally:  # also when the network fails in the middle: these photos are done
        writer.flush()
    writer.settle()
    writer.report.stopped = stopped()
    return writer.report


def known_of(table) -> Known:
    """Return which photos a table holds."""
    wanted = table.search().select(["sha256", "path", "nbytes", "mtime_ns"]).limit(None)
    with disk_errors(str(Path(table.uri).parent)):
        columns = wanted.to_arrow().to_pydict()
    digests = [bytes.fromhex(digest) for digest in columns["sha256"]]
    files = zip(columns["path"], columns["nbytes"], columns["mtime_ns"], strict=True)
    paths: dict[str, tuple[bytes, ...]] = {}
    for path, digest in zip(columns["path"], digests, strict=True):
        paths[path] = (*paths.get(path, ()), digest)
    return Known(set(digests), {f for f in files if f[2] is not None}, paths)


def rebuild(
    store: Store, engine: Engine, recipe: Recipe, progress: Progress | None, stopped: Callable[[], bool]
) -> AddReport:
    """Compute every photo's vector anew into a second table, which then takes the first one's place at one stroke.

    Until then the first one serves. Where an earlier rebuild of the same recipe stopped, this one goes on. Photos
    that cannot be read any more are left out.

    Args:
        store: Of the index.
        engine: Of the new vectors.
        recipe: How they are made.
        progress: Called with photos done and their total.
        stopped: Asked before every photo.

    Returns:
        What was done.

    Raises:
        RuntimeError: No photo could be read; nothing was changed.
    """
    table = _scratch(store, recipe)
    report = AddReport()
    while True:  # again, while others add photos to the first table
        snapshot = Snapshot(store, store.open().version, exact_rows=0)
        if not level(snapshot, store, table, engine, recipe, report, progress, stopped):
            break
        if report.stopped:
            return report
    if table.count_rows() == 0 and snapshot.count:
        store.drop(REBUILD)
        raise RuntimeError(
            f"none of the {snapshot.count} photos can be read any more ({report.problems[0][0]}: "
            f"{report.problems[0][1]}); the index is left as it was"
        )
    store.replace(REBUILD, recipe)
    return report


def level(
    snapshot: Snapshot,
    store: Store,
    table,
    engine: Engine,
    recipe: Recipe,
    report: AddReport,
    progress: Progress | None,
    stopped: Callable[[], bool],
) -> bool:
    """Bring a table to hold the photos of a snapshot and no others.

    What the report names as unreadable is not tried again.

    Args:
        snapshot: To follow.
        store: Of the index.
        table: To bring level.
        engine: Computes the vectors.
        recipe: How they are made.
        report: That is filled.
        progress: Called with photos done and their total.
        stopped: Asked before every photo.

    Returns:
        Whether any photo had been missing.
    """
    there = set(snapshot.read(["sha256"])["sha256"])
    known = known_of(table)
    gone = {digest.hex() for digest in known.digests} - there
    if gone:
        store.delete(table, one_of("sha256", gone))
    failed = {name for name, _ in report.problems}
    items = [item for digest, item in items_of(snapshot) if bytes.fromhex(digest) not in known.digests]
    items = [item for item in items if item.path not in failed]
    if items:
        # what the file's stamp says does not matter here: these photos are not in the table
        writer = Writer(store, table, report, len(items) + len(failed), progress)
        fill(writer, engine, recipe, items, Known(known.digests), False, stopped)
    return bool(items)


def items_of(snapshot: Snapshot) -> list[tuple[str, Item]]:
    """Return (sha256, item) for each row, to be read again from where it lies."""
    columns = {name: name for name in ("sha256", "path", "label", "nbytes", "mtime_ns")} | {"kept": "file IS NOT NULL"}
    found = snapshot.table.search().with_row_id(True).select(columns).limit(None).to_arrow().to_pylist()
    return [
        (
            row["sha256"],
            Item(
                row["path"],
                partial(read_row, snapshot, row["_rowid"])
                if row["kept"]
                else partial(read_again, row["path"], row["sha256"]),
                row["label"],
                None if row["mtime_ns"] is None else (row["nbytes"], row["mtime_ns"]),
                only_here=row["kept"],
            ),
        )
        for row in found
    ]


def read_row(snapshot: Snapshot, row_id: int) -> bytes:
    """Return the file that a row keeps.

    Args:
        snapshot: Of the table.
        row_id: Of the row.
    """
    return snapshot.rows(np.array([row_id]), ["file"])[row_id]["file"]


def _scratch(store: Store, recipe: Recipe):
    table = store.open(REBUILD)
    if table is not None and recipe_of(table) != recipe:
        store.drop(REBUILD)
    return store.open_or_create(recipe, REBUILD)
