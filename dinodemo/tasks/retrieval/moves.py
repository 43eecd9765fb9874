"""Photos that moved or changed since they were added: rows follow their files, and a path has one row."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ...scale.addresses import is_address, list_files
from .store import one_of, quoted

if TYPE_CHECKING:
    from .adding import Known
    from .sources import Item
    from .store import Store

BATCH = 256  # rows rewritten at a time
COLUMNS = {name: name for name in ("sha256", "path", "nbytes", "mtime_ns")} | {"kept": "file IS NOT NULL"}


@dataclass(frozen=True)
class Seen:
    """A photo whose content the index holds already, perhaps under another path."""

    item: Item
    digest: bytes  # sha256


@dataclass
class Relocation:
    """What came of telling an index that a folder has moved.

    Args:
        moved: Rows that have a new path.
        missing: New paths where no file lies, at most all of `moved`.
        taken: Old paths that were left as they are, because the index has another photo at the new one.
    """

    moved: int = 0
    missing: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)


@dataclass
class Moves:
    """Compare where photos lie with where a table says they lie."""

    known: Known
    found: dict[bytes, list[Item]] = field(default_factory=dict)  # content of the table -> where it was found
    content: dict[str, bytes] = field(default_factory=dict)  # path of the table -> what lies there now

    def saw(self, item: Item, digest: bytes, in_table: bool) -> None:
        """Note what lies at a path.

        Args:
            item: The file; uploads, which have no path, are passed over.
            digest: The sha256 of its content.
            in_table: Whether the content was in the table before.
        """
        if item.only_here:
            return
        if in_table:
            self.found.setdefault(digest, []).append(item)
        if item.path in self.known.paths:
            self.content[item.path] = digest

    def settle(self, store: Store, table) -> tuple[int, int]:
        """Update the paths of rows to where their photos are now, and drop those whose content is nowhere any more.

        Returns:
            How many rows have a new path, and how many were dropped because their file holds another photo.
        """
        gone = {d for path, now in self.content.items() for d in self.known.paths[path] if d != now}
        concerned = sorted({d.hex() for d in (*self.found, *gone)})
        if not concerned:
            return 0, 0
        files, changes, dropped = Files(), {}, []
        table.checkout_latest()
        for start in range(0, len(concerned), BATCH):
            some = one_of("sha256", concerned[start : start + BATCH])
            for row in table.search().where(some).select(COLUMNS).limit(None).to_arrow().to_pylist():
                digest = bytes.fromhex(row["sha256"])
                if self._lies_at(digest, row, files):
                    item = self._touched(digest, row)
                else:
                    item = self._new_copy(digest, row["path"])
                    if item is None and digest in gone:
                        dropped.append(row["sha256"])
                if item is not None:
                    changes[row["sha256"]] = item
        moved = rewrite(store, table, changes)
        return moved, store.delete(table, one_of("sha256", dropped)) if dropped else 0

    def _lies_at(self, digest: bytes, row: dict, files: Files) -> bool:
        """Return whether a row's photo still lies where the row says."""
        now = self.content.get(row["path"])
        if now is not None:
            return now == digest
        if row["kept"] and not os.path.isabs(row["path"]):
            return True  # an upload, kept in the table
        return files.holds(row["path"], digest, row["nbytes"], row["mtime_ns"])

    def _touched(self, digest: bytes, row: dict) -> Item | None:
        """Return the file of a row when its time alone has changed, so that it need not be read the next time."""
        for item in self.found.get(digest, ()):
            if item.path == row["path"] and item.stamp is not None and item.stamp[1] != row["mtime_ns"]:
                return item
        return None

    def _new_copy(self, digest: bytes, old: str) -> Item | None:
        """Return where a photo was found, best under its old name."""
        copies = self.found.get(digest, [])
        return min(copies, key=lambda item: item.name != old.rsplit("/", 1)[-1], default=None)


class Files:
    """Look whether files still hold what they held; each zip is opened once."""

    def __init__(self) -> None:
        self._members: dict[Path, frozenset[str]] = {}

    def holds(self, path: str, digest: bytes, nbytes: int, mtime_ns: int | None) -> bool:
        """Return whether a file is there with this content; a zip's member, whether it is there."""
        if is_address(path):
            return _is_listed(path)
        file = Path(path)
        if file.is_file():
            status = file.stat()
            if mtime_ns is None or (status.st_size, status.st_mtime_ns) == (nbytes, mtime_ns):
                return True
            return status.st_size == nbytes and hashlib.sha256(file.read_bytes()).digest() == digest
        archive = next((parent for parent in file.parents if parent.is_file()), None)
        return archive is not None and file.relative_to(archive).as_posix() in self._names(archive)

    def exists(self, path: str) -> bool:
        """Return whether something lies at a path, on the disk, in a zip or in an object store."""
        return self.holds(path, b"", -1, None)

    def _names(self, archive: Path) -> frozenset[str]:
        if archive not in self._members:
            try:
                with zipfile.ZipFile(archive) as opened:
                    self._members[archive] = frozenset(opened.namelist())
            except (OSError, zipfile.BadZipFile):
                self._members[archive] = frozenset()
        return self._members[archive]


def rewrite(store: Store, table, changes: dict[str, Item]) -> int:
    """Update path, label and time of rows to those of their files; returns how many have another path than before.

    Args:
        store: Of the table.
        table: The photos.
        changes: The sha256 of a row, and where its photo lies now.
    """
    moved = 0
    digests = sorted(changes)
    for start in range(0, len(digests), BATCH):
        some = one_of("sha256", digests[start : start + BATCH])
        rows = table.search().where(some).limit(None).to_arrow()
        records = rows.select(["sha256", "path", "label"]).to_pylist()
        items = [changes[record["sha256"]] for record in records]
        moved += sum(item.path != record["path"] for item, record in zip(items, records, strict=True))
        columns = {
            "path": [item.path for item in items],
            "label": [label_after(record, item) for record, item in zip(records, items, strict=True)],
            "mtime_ns": [item.stamp[1] if item.stamp else None for item in items],
        }
        for name, values in columns.items():
            column = rows.schema.get_field_index(name)
            rows = rows.set_column(column, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))
        store.overwrite(table, rows)
    return moved


def label_after(record: dict, item: Item) -> str | None:
    """Return a moved photo's label: its new folder's, or the old one where only the folders above have changed."""
    same_folder = Path(record["path"]).parent.name == Path(item.path).parent.name
    return record["label"] if item.label is None and same_folder else item.label


def relocate(store: Store, table, old: str, new: str) -> Relocation:
    """Follow a folder, zip or photo that has moved, without reading any photo.

    Args:
        store: Of the table.
        table: The photos.
        old: Where it lay. Rows with this path, and those under it, are changed.
        new: Where it lies now.

    Raises:
        ValueError: When the index holds nothing under `old`, with what it does hold.
    """
    old, new = old.rstrip("/"), new.rstrip("/")
    paths = table.search().select(["path"]).limit(None).to_arrow()["path"].to_pylist()
    concerned = [path for path in paths if path == old or path.startswith(f"{old}/")]
    if not concerned:
        raise ValueError(f"the index holds no photo under {old}; its photos lie in {_folders(paths)}")
    there, files, report = set(paths) - set(concerned), Files(), Relocation()
    for path in sorted(concerned):
        target = new + path[len(old) :]
        if target in there:
            report.taken.append(path)
        elif not files.exists(target):
            report.missing.append(target)
    moved = f"concat({quoted(new)}, substr(path, {len(old) + 1}))"
    left = f" AND NOT ({one_of('path', report.taken)})" if report.taken else ""
    report.moved = store.update(table, f"({under(old)} OR path = {quoted(old)}){left}", {"path": moved})
    return report


def missing_paths(rows: list[dict]) -> list[str]:
    """Return where photos ought to lie and do not.

    Args:
        rows: With `path`, and with `kept`: the photo is in the index itself.
    """
    files = Files()
    return [row["path"] for row in rows if not row["kept"] and not files.exists(row["path"])]


def under(folder: str) -> str:
    """Write the condition that a photo lies in a folder or in those inside."""
    return f"starts_with(path, {quoted(folder.rstrip('/') + '/')})"


def moved_folder(paths: Iterable[str]) -> tuple[str, str] | None:
    """Guess which folder of missing photos has moved, and where to.

    Args:
        paths: Where photos lay that are not there any more.

    Returns:
        The highest folder that is missing, and a folder beside it that holds the same file ("" when there is none);
        None when only single photos are missing from folders that are there.
    """
    for path in paths:
        missing = next((p for p in reversed(Path(path).parents) if not p.exists()), None)
        if missing is None or is_address(path):
            continue
        rest = Path(path).relative_to(missing)
        try:
            siblings = sorted(one for one in missing.parent.iterdir() if one.is_dir())
        except OSError:
            siblings = []
        return str(missing), next((str(one) for one in siblings if (one / rest).is_file()), "")
    return None


def _folders(paths: list[str], most: int = 3) -> str:
    folders = sorted({path.rpartition("/")[0] or path for path in paths})
    more = f" and {len(folders) - most} more folders" if len(folders) > most else ""
    return ", ".join(folders[:most]) + more if folders else "no folder; it is empty"


def _is_listed(address: str) -> bool:
    try:
        return bool(list_files(address))
    except ValueError:
        return False
