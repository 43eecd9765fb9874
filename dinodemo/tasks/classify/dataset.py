"""Labelled photos: class folders, or a table of paths and labels."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...io.zips import Limits
from ..retrieval.sources import LIMITS, NO_CLASS, Item, Problem, open_source

PATHS = ("path", "file", "filename", "file_name", "image", "image_path", "photo", "name")
LABELS = ("label", "labels", "class", "category", "classname", "class_name", "target", "truth")
TABLES = (".csv", ".tsv", ".txt")
LEVELS = ("auto", "first", "last")


@dataclass(frozen=True)
class Labelled:
    """Photos with labels.

    Args:
        items: The photos.
        labels: Of each.
        problems: (file, reason) of what was left out.
        note: How the labels were read, where that could be read in two ways; else empty.
    """

    items: list[Item]
    labels: list[str]
    problems: list[Problem]
    note: str = ""


@contextmanager
def read_labelled(
    source: str | Path, table: str | Path | None = None, level: str = "auto", limits: Limits = LIMITS
) -> Iterator[Labelled]:
    """List labelled photos; a zip stays open inside the `with`.

    Args:
        source: A folder or zip with a folder for each class; with a table, where its paths begin. A table alone is
            taken too, its paths begin in its folder.
        table: CSV (comma, semicolon or tab) with a column of paths and one of labels.
        level: Which folder of a path names the class: "first" below the source, "last", or "auto": "last", unless
            folders of the same name lie in several first ones (cats/2021, dogs/2021).
        limits: Of a zip.

    Returns:
        The photos with their labels, in a context manager.

    Raises:
        ValueError: When the source or table does not exist, a table has no such columns, or nothing has a label.
    """
    source = Path(source).expanduser().absolute()
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    if source.suffix.lower() in TABLES and source.is_file():
        if table is not None:
            raise ValueError(f"{source.name} and {Path(table).name} are both tables; give one, and the photos' folder")
        source, table = source.parent, source
    with open_source(source, limits) as (items, problems):
        if table is None:
            found = _by_folder(items, problems, source, level)
        else:
            found = _by_table(items, problems, source, Path(table).expanduser().absolute())
        if not found.items:
            raise ValueError(_nothing(source, table, found))
        yield found


def _by_folder(items: Sequence[Item], problems: list[Problem], source: Path, level: str) -> Labelled:
    folders = [_classes_of(item, source) for item in items]
    owners = defaultdict(set)
    for parts in folders:
        if parts:
            owners[parts[-1]].add(parts[0])
    differ = any(len(parts) > 1 for parts in folders)
    repeated = differ and any(len(firsts) > 1 for firsts in owners.values())
    taken = ("first" if repeated else "last") if level == "auto" else level
    chosen = [(item, parts[0 if taken == "first" else -1]) for item, parts in zip(items, folders, strict=True) if parts]
    loose = [
        (item.path, "lies in no class folder; left out")
        for item, parts in zip(items, folders, strict=True)
        if not parts
    ]
    note = ""
    if differ and level == "auto":
        other = "last" if taken == "first" else "first"
        note = f"the {taken} folder of each path names the class; --level {other} takes the other one"
    return Labelled([item for item, _ in chosen], [label for _, label in chosen], [*problems, *loose], note)


def _classes_of(item: Item, source: Path) -> list[str]:
    """Return the folders of a path below the source that may name a class, outer ones first."""
    parts = list(PurePosixPath(item.path).relative_to(source.as_posix()).parts[:-1])
    if parts and source.suffix.lower() == ".zip" and parts[0] == source.stem:
        parts = parts[1:]  # a wrapper
    return [part for part in parts if part.lower() not in NO_CLASS]


def _by_table(items: Sequence[Item], problems: list[Problem], source: Path, table: Path) -> Labelled:
    rows = read_table(table)
    by_path = {PurePosixPath(item.path).relative_to(source.as_posix()).as_posix(): item for item in items}
    by_name: dict[str, list[Item]] = defaultdict(list)
    for one in items:
        by_name[one.name].append(one)
    chosen: dict[str, tuple[Item, str]] = {}
    left_out: list[Problem] = [problem for problem in problems if Path(problem[0]) != table]
    for path, label in rows:
        item = _find(path, source, by_path, by_name)
        if item is None:
            left_out.append((path, f"is named in {table.name} and not there"))
        elif not label:
            left_out.append((path, f"has no label in {table.name}"))
        elif chosen.get(item.path, (item, label))[1] != label:
            left_out.append((path, f"has two labels in {table.name}; the first one is taken"))
        else:
            chosen[item.path] = (item, label)
    named = {item.path for item, _ in chosen.values()}
    without = sum(item.path not in named for item in items)
    note = f"{without} photos are not named in {table.name} and were not used" if without else ""
    return Labelled([item for item, _ in chosen.values()], [label for _, label in chosen.values()], left_out, note)


def _find(path: str, source: Path, by_path: Mapping[str, Item], by_name: Mapping[str, list[Item]]) -> Item | None:
    """Find a photo by its path below the source, its absolute path, or its name where that is the only one."""
    posix = PurePosixPath(path.replace("\\", "/"))
    if posix.is_absolute():
        inside = posix.is_relative_to(source.as_posix())
        return by_path.get(posix.relative_to(source.as_posix()).as_posix()) if inside else None
    if item := by_path.get(posix.as_posix()):
        return item
    same = by_name.get(posix.name, [])
    return same[0] if len(same) == 1 and len(posix.parts) == 1 else None


def read_table(table: Path) -> list[tuple[str, str]]:
    """Read (path, label) rows of a CSV, separated by comma, semicolon or tab.

    Raises:
        ValueError: When there is no such file, or its columns are not a path and a label.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"{table} does not exist; give a table with a column of paths and one of labels") from error
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{table.name} cannot be read as UTF-8 text ({error}); save it as CSV UTF-8") from error
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{table.name} is empty; it needs a column of paths and one of labels")
    names = [cell.strip().lower() for cell in rows[0]]
    path, label = _column(names, PATHS), _column(names, LABELS)
    if path is None and label is None and len(rows[0]) == 2 and "." in rows[0][0]:
        path, label = 0, 1  # no header: the first row is a photo already
    elif path is None or label is None:
        raise ValueError(
            f"{table.name} has the columns {', '.join(rows[0])[:200]}; one must be called path (or file, image), and "
            "one label (or class)"
        )
    else:
        rows = rows[1:]
    return [(row[path].strip(), row[label].strip()) for row in rows if len(row) > max(path, label)]


def _column(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _nothing(source: Path, table: str | Path | None, found: Labelled) -> str:
    if table is not None:
        first = f"; the first: {found.problems[0][0]} {found.problems[0][1]}" if found.problems else ""
        return f"no photo of {Path(table).name} was found below {source.name}{first}"
    return (
        f"{source.name} has no class folders with photos; give a folder for each class, or a table of paths and labels"
    )
