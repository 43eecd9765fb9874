"""Read RGB-D pairs from a folder, a zip or two lists of files: what fits together is returned, the rest is named."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from ...io.archives import open_entries
from ...io.images import load_photo
from . import files
from .depthmap import read_values, same_shape, sees_depth
from .files import BadFile, Entry, Problem, reason_against
from .interpret import Asked, Raw, named_inverse, to_depth
from .pair_list import METRES, RELATIVE, PairList, PairsInfo, RGBDPair
from .pairing import PHOTO_WORDS, Match, match, match_names
from .tables import Table, find_table, match_lists, match_table, split_lists
from .units import AUTO, NO_UNIT, parse_unit

MAX_DEPTH_BYTES = 4_000_000_000  # of all maps together, they are held in memory

__all__ = ["METRES", "RELATIVE", "PairList", "PairsInfo", "RGBDPair", "read_pairs"]


def read_pairs(
    source: str | Path | Iterable[str | Path],
    depths: Iterable[str | Path] | None = None,
    out: str | Path | None = None,
    scale: float | None = None,
    unit: str | float | None = AUTO,
    inverse: bool | None = None,
) -> tuple[PairList, list[Problem]]:
    """Read photos and depth maps: `rgb/x.jpg` + `depth/x.png` (or .npy, .exr), and the layouts of public sets.

    Pairs are those of a depth.json, else of the rows of a csv or txt file, else of equal names (without words such as
    rgb and depth), of the nearest time stamps, or of the longest common name. Numbers that stand for sky or no
    reading are left out: 0, nan, inf, `invalid_value` of depth.json, and a value at the far end that many pixels share.

    Args:
        source: a folder (with those inside it), a zip, or a list of photos with the list of their `depths`.
        depths: the depth maps of a list of photos.
        out: where the photos of a zip are written; without it they stay encoded bytes.
        scale: metres a unit; with `inverse`, 1 / metres a unit. Goes before `unit`.
        unit: units in a metre (1000), "mm", "cm", "m", "kitti", "tum", "none" for no unit (near and far only), or
            "auto": depth.json's `metres_per_unit`, else what numbers and names make most plausible.
        inverse: whether larger numbers are nearer; None says so for folders and files called disparity or inverse,
            and, where no unit is given, where the bottom is farther than the top in nearly all of four maps or more.
            Such maps have no unit unless one is given.

    Returns:
        A list of pairs sorted by name, whose `info` says what was taken for granted, and problems (file, reason) for
        all that was left out.

    Raises:
        ValueError: when no pair is left, or the unit cannot be.
    """
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be metres a unit, above 0, got {scale!r}; 0.001 is for millimetres")
    asked = Asked(parse_unit(unit) if scale is None else scale, unit == NO_UNIT and scale is None, inverse)
    out = None if out is None else Path(out)
    if depths is not None:
        return _from_lists(source, depths, asked)
    if not isinstance(source, str | Path):
        raise ValueError("a list of photos needs the list of their depths; or give a folder or zip")
    source = Path(source)
    with open_entries(source, files.LIMITS, reason_against) as (entries, problems):
        table = find_table(entries, problems)
        lists, others = split_lists(entries)
        if table and table.rows:
            matched = match_table(table, others, problems)
        else:
            matched = match_lists(lists, others, problems) or match_names(others, problems)
        raw = _load(matched, problems, table, asked, out)
        return _finish(source.name, raw, problems, table, asked)


def _from_lists(photos, depths, asked: Asked) -> tuple[PairList, list[Problem]]:
    if isinstance(photos, str | Path) or isinstance(depths, str | Path):
        raise ValueError("photos and depths must be two lists of files; for a folder or zip give no depths")
    with open_entries(photos, files.LIMITS) as (ours, left), open_entries(depths, files.LIMITS) as (theirs, problems):
        problems += left
        matched = match(list(ours), list(theirs), problems, folders=False)
        return _finish("the lists", _load(matched, problems, None, asked, None), problems, None, asked)


def _finish(
    title: str, raw: list[Raw], problems: list[Problem], table: Table | None, asked: Asked
) -> tuple[PairList, list[Problem]]:
    pairs = to_depth(raw, problems, table, asked) if raw else PairList()
    problems.sort()
    if not pairs:
        shown = "; ".join(f"{name}: {reason}" for name, reason in problems[:5])
        raise ValueError(
            f"{title} holds no usable pair of photo and depth map; expected rgb/x.jpg with depth/x.png, or x.jpg with "
            f"x_depth.png{f' ({shown})' if shown else ''}"
        )
    return pairs, problems


def _load(
    matched: list[Match], problems: list[Problem], table: Table | None, asked: Asked, out: Path | None
) -> list[Raw]:
    found: list[Raw] = []
    held = 0
    for one in matched:
        try:
            raw = _read_pair(one, table, asked)
            held += raw.values.size * 4
            if held > MAX_DEPTH_BYTES:
                raise BadFile(one.depth, f"more than {MAX_DEPTH_BYTES // 10**9} GB of depth maps; scale them down")
        except BadFile as bad:
            problems.append((str(bad.entry.name), bad.reason))
            continue
        if out is not None and isinstance(raw.image, bytes):
            raw.image = _write(out, len(found), one.photo, raw.image)
        found.append(raw)
    return found


def _read_pair(one: Match, table: Table | None, asked: Asked) -> Raw:
    """Read and check one pair; raises BadFile."""
    photo, depth = one.photo, one.depth
    data = photo.read()
    if sees_depth(data):
        raise BadFile(photo, f"holds 16-bit grey values, no photo; is it swapped with {depth.name}?")
    try:
        size = load_photo(data, photo.name.name).size
    except ValueError as error:
        raise BadFile(photo, str(error)) from error
    grey = asked.relative or (asked.scale is None and named_inverse(one, asked))
    values = read_values(depth, table.invalid if table else None, grey)
    if not same_shape(values.shape, size):
        raise BadFile(
            depth,
            (
                f"the depth map is {values.shape[1]} x {values.shape[0]} but {photo.name} is {size[1]} x {size[0]} "
                "(upright); both must show the same view: rotate or crop one"
            ),
        )
    row = table.row(photo.name) if table else {}
    group = str(row.get("scene", _folder_group(photo.name)))
    kind = "i" if values.dtype.kind in "iu" else "f"
    return Raw(one, photo.path or data, values, kind, group, str(row.get("split", "")))


def _folder_group(name: PurePosixPath) -> str:
    return "/".join(part for part in name.parts[:-1] if part.lower() not in PHOTO_WORDS)


def _write(out: Path, index: int, photo: Entry, data: bytes) -> Path:
    """Write a photo under a name of our own: those in archives are not to be trusted."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{index:05d}{photo.name.suffix.lower()}"
    path.write_bytes(data)
    return path
