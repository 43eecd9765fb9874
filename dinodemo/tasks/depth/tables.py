"""Tables that name the pairs of a set: depth.json with unit, scenes and splits; csv and txt lists of paths."""

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from .files import LIST_TYPES, TABLE, Entry, Problem
from .pairing import TABLE_ROW, Match, role_of

MAX_LIST_BYTES = 20_000_000


@dataclass(frozen=True)
class Table:
    """What a depth.json says.

    Args:
        folder: that its paths are relative to.
        scale: metres a unit; None where it does not say.
        invalid: the value for no reading.
        rows: each photo's row: depth, and perhaps scene and split.
    """

    folder: PurePosixPath
    scale: float | None
    invalid: float | None
    rows: dict[PurePosixPath, dict]

    def row(self, photo: PurePosixPath) -> dict:
        """Return what it says of a photo; an empty row for one that it does not name."""
        name = photo.relative_to(self.folder) if photo.is_relative_to(self.folder) else photo
        return self.rows.get(name, {})


def find_table(entries: list[Entry], problems: list[Problem]) -> Table | None:
    """Read the outermost depth.json; None where there is none. Raises ValueError for a damaged one."""
    tables = sorted((entry for entry in entries if entry.name.name == TABLE), key=lambda e: len(e.name.parts))
    for extra in tables[1:]:
        problems.append((str(extra.name), f"is a second {TABLE}; give one folder of pairs at a time"))
    if not tables:
        return None
    try:
        content = json.loads(tables[0].read())
        rows = {PurePosixPath(row["rgb"]): row | {"depth": str(row["depth"])} for row in content.get("pairs", [])}
        scale, invalid = content.get("metres_per_unit"), content.get("invalid_value")
        if scale is not None and not 0 < float(scale) < np.inf:
            raise ValueError(f"metres_per_unit is {scale!r}")
        return Table(
            tables[0].name.parent,
            None if scale is None else float(scale),
            None if invalid is None else float(invalid),
            rows,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{tables[0].name} is damaged ({error!r}); correct it or leave it out") from error


def match_table(table: Table, entries: list[Entry], problems: list[Problem]) -> list[Match]:
    """Pair what depth.json pairs; names that it has and the set has not, and the reverse, become problems."""
    found = {entry.name: entry for entry in entries}
    matched, used = [], set()
    for rgb, row in sorted(table.rows.items()):
        names = [table.folder / rgb, table.folder / row["depth"]]
        missing = [str(name) for name in names if name not in found]
        problems += [(name, f"is named in {TABLE} but missing; add it") for name in missing]
        used.update(names)
        if not missing:
            matched.append(Match(found[names[0]], found[names[1]], TABLE_ROW))
    problems += [(str(name), f"is not named in {TABLE}; left out") for name in found if name not in used]
    return matched


def match_lists(lists: list[Entry], entries: list[Entry], problems: list[Problem]) -> list[Match]:
    """Pair what the rows of csv and txt files pair: two paths in a row, one of a photo, one of a depth map.

    Lists whose rows never name two files of the set (TUM's rgb.txt, poses) are passed over.
    """
    where = _Finder(entries)
    matched: dict[PurePosixPath, Match] = {}
    for one in lists:
        missing: list[str] = []
        rows = _rows(one, problems)
        pairs = [pair for row in rows if (pair := _pair(row, one, where, missing))]
        for photo, depth in pairs:
            matched.setdefault(photo.name, Match(photo, depth, f"row of {one.name.name}"))
        if not pairs:
            problems.append((str(one.name), "names no photo with its depth map; left out"))
        else:
            problems += [(f"{one.name}: {name}", "is named in the list but missing; add it") for name in missing[:20]]
    used = {one.name for match in matched.values() for one in (match.photo, match.depth)}
    if matched:
        problems += [(str(e.name), "is not named in the list; left out") for e in entries if e.name not in used]
    return [matched[name] for name in sorted(matched)]


class _Finder:
    """Find entries by paths that may begin elsewhere: data/set/1.jpg is set/1.jpg or 1.jpg where that is the only."""

    def __init__(self, entries: list[Entry]):
        self.by_tail: dict[tuple[str, ...], list[Entry]] = {}
        for entry in entries:
            for start in range(len(entry.name.parts)):
                self.by_tail.setdefault(entry.name.parts[start:], []).append(entry)

    def find(self, path: str, folder: PurePosixPath) -> Entry | None:
        parts = tuple(part for part in re.split(r"[\\/]+", path.strip()) if part not in ("", "."))
        for tail in ((*folder.parts, *parts), *(parts[i:] for i in range(len(parts)))):
            found = self.by_tail.get(tail, [])
            if len(found) == 1:
                return found[0]
        return None


def _rows(one: Entry, problems: list[Problem]) -> list[list[str]]:
    data = one.read()
    if len(data) > MAX_LIST_BYTES:
        problems.append((str(one.name), f"is a list of more than {MAX_LIST_BYTES // 1_000_000} MB; not read"))
        return []
    text = data.decode("utf-8-sig", "replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    delimiter = next((mark for mark in (",", ";", "\t") if lines and all(mark in line for line in lines)), None)
    if delimiter is None:
        return [line.split() for line in lines]
    return list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))


def _pair(row: list[str], one: Entry, where: _Finder, missing: list[str]) -> tuple[Entry, Entry] | None:
    cells = [cell for cell in row if re.search(r"\.[A-Za-z0-9]{2,5}$", cell.strip()) and not _is_number(cell)]
    found = [entry for cell in cells if (entry := where.find(cell, one.name.parent)) is not None]
    if len(cells) == 2 and len(found) == 1:
        missing.append(next(cell for cell in cells if where.find(cell, one.name.parent) is None))
    if len(found) != 2 or found[0].name == found[1].name:
        return None
    first, second = found
    swapped = role_of(first) == "depth" and role_of(second) != "depth"
    return (second, first) if swapped else (first, second)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def split_lists(entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return the csv and txt files, and all others but depth.json."""
    lists = [entry for entry in entries if entry.name.suffix.lower() in LIST_TYPES]
    named = {entry.name for entry in lists}
    return lists, [entry for entry in entries if entry.name.name != TABLE and entry.name not in named]
