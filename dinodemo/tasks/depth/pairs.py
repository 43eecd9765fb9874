"""Read RGB-D pairs from a folder, a zip or two lists of files: what fits together is returned, the rest is named."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ...io.archives import open_entries
from ...io.files import PHOTO_SUFFIXES
from ...io.images import load_photo
from . import files
from .depthmap import read_depth, same_shape, sees_depth
from .files import DEPTH_TYPES, TABLE, BadFile, Entry, Problem, reason_against

PHOTO_FOLDERS = {"rgb", "image", "images", "img", "imgs", "color", "colour", "photos"}
DEPTH_FOLDERS = {"depth", "depths", "depth_gt", "gt", "disparity"}
DEPTH_SUFFIX = re.compile(r"[_.-]depths?$", re.IGNORECASE)
PHOTO_SUFFIX = re.compile(r"[_.-](rgb|colou?r|image|photo)$", re.IGNORECASE)
MAX_DEPTH_BYTES = 4_000_000_000  # of all maps together, they are held in memory


Keyed = list[tuple[tuple[str, ...], Entry]]  # what a photo and its depth map share, and one of them


@dataclass(frozen=True, eq=False)
class RGBDPair:
    """Hold a photo and its depth map; unpacks to (image, depth)."""

    image: Path | bytes  # a path, or the encoded bytes of a photo out of a zip
    depth: np.ndarray  # (H, W) float32, metres unless the data has no scale; 0 = no reading
    name: str  # of the photo, inside the folder or zip
    group: str  # scene by depth.json, else the photo's folder without rgb/ or images/; "" where all lie in one
    split: str  # by depth.json ("train", "val", "test"), else ""

    def __iter__(self) -> Iterator:
        return iter((self.image, self.depth))


@dataclass(frozen=True)
class _Table:
    """What a depth.json says: metres a unit, the value for no reading, and each photo's depth file, scene, split."""

    folder: PurePosixPath
    scale: float | None
    invalid: float | None
    rows: dict[PurePosixPath, dict]


def read_pairs(
    source: str | Path | Iterable[str | Path],
    depths: Iterable[str | Path] | None = None,
    out: str | Path | None = None,
    scale: float | None = None,
) -> tuple[list[RGBDPair], list[Problem]]:
    """Read photos and depth maps: `rgb/x.jpg` + `depth/x.png` (or .npy, .exr), or `x.jpg` + `x_depth.png`.

    source: a folder (with those inside it), a zip, or a list of photos, with the list of their `depths`, matched by
    name. out: where the photos of a zip are written; without it they stay encoded bytes. scale: metres a unit; None
    takes depth.json's `metres_per_unit`, else millimetres for whole numbers and metres for others. 0, nan, inf and
    depth.json's `invalid_value` mean no reading. A depth.json may also list pairs with their `split` and `scene`.
    Returns pairs sorted by name, and problems (file, reason) for all that was left out.
    Raises ValueError when no pair is left.
    """
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be metres a unit, above 0, got {scale!r}; 0.001 is for millimetres")
    out = None if out is None else Path(out)
    if depths is not None:
        return _from_lists(source, depths, scale)
    if not isinstance(source, str | Path):
        raise ValueError("a list of photos needs the list of their depths; or give a folder or zip")
    source = Path(source)
    with open_entries(source, files.LIMITS, reason_against) as (entries, problems):
        return _finish(source.name, *_read_all(entries, problems, scale, out))


def _from_lists(photos, depths, scale: float | None) -> tuple[list[RGBDPair], list[Problem]]:
    if isinstance(photos, str | Path) or isinstance(depths, str | Path):
        raise ValueError("photos and depths must be two lists of files; for a folder or zip give no depths")
    with open_entries(photos, files.LIMITS) as (ours, left), open_entries(depths, files.LIMITS) as (theirs, problems):
        keyed_photos: Keyed = [((_stem(entry, PHOTO_SUFFIX),), entry) for entry in ours]
        keyed_depths: Keyed = [((_stem(entry, DEPTH_SUFFIX),), entry) for entry in theirs]
        problems += left
        matched = _match(keyed_photos, keyed_depths, problems)
        return _finish("the lists", *_load(matched, problems, None, scale, None))


def _finish(title: str, pairs: list[RGBDPair], problems: list[Problem]) -> tuple[list[RGBDPair], list[Problem]]:
    problems.sort()
    if not pairs:
        shown = "; ".join(f"{name}: {reason}" for name, reason in problems[:5])
        raise ValueError(
            f"{title} holds no usable pair of photo and depth map; expected rgb/x.jpg with depth/x.png, or x.jpg with "
            f"x_depth.png{f' ({shown})' if shown else ''}"
        )
    return pairs, problems


def _read_all(
    entries: list[Entry], problems: list[Problem], scale: float | None, out: Path | None
) -> tuple[list[RGBDPair], list[Problem]]:
    table = _find_table(entries, problems)
    entries = [entry for entry in entries if entry.name.name != TABLE]
    matched = _by_table(table, entries, problems) if table and table.rows else _by_name(entries, problems)
    return _load(matched, problems, table, scale, out)


def _find_table(entries: list[Entry], problems: list[Problem]) -> _Table | None:
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
        return _Table(
            tables[0].name.parent,
            None if scale is None else float(scale),
            None if invalid is None else float(invalid),
            rows,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{tables[0].name} is damaged ({error!r}); correct it or leave it out") from error


def _by_table(table: _Table, entries: list[Entry], problems: list[Problem]) -> list[tuple[Entry, Entry]]:
    found = {entry.name: entry for entry in entries}
    matched, used = [], set()
    for rgb, row in sorted(table.rows.items()):
        names = [table.folder / rgb, table.folder / row["depth"]]
        missing = [str(name) for name in names if name not in found]
        problems += [(name, f"is named in {TABLE} but missing; add it") for name in missing]
        used.update(names)
        if not missing:
            matched.append((found[names[0]], found[names[1]]))
    problems += [(str(name), f"is not named in {TABLE}; left out") for name in found if name not in used]
    return matched


def _by_name(entries: list[Entry], problems: list[Problem]) -> list[tuple[Entry, Entry]]:
    photos: Keyed = []
    depths: Keyed = []
    for entry in entries:
        role, key = _role(entry.name)
        (depths if role == "depth" else photos).append((key, entry))
    return _match(photos, depths, problems)


def _match(photos: Keyed, depths: Keyed, problems: list[Problem]) -> list[tuple[Entry, Entry]]:
    """Pair what shares a key; what stays alone or is there twice becomes a problem."""
    matched = []
    by_key: dict[tuple[str, ...], tuple[list[Entry], list[Entry]]] = {}
    for side, keyed in enumerate((photos, depths)):
        for key, entry in keyed:
            by_key.setdefault(key, ([], []))[side].append(entry)
    for key in sorted(by_key):
        ours, theirs = by_key[key]
        if len(ours) == len(theirs) == 1:
            matched.append((ours[0], theirs[0]))
        elif not ours or not theirs:
            problems += [(str(e.name), "has no photo of the same name; add it") for e in theirs]
            problems += [(str(e.name), "has no depth map of the same name; add it") for e in ours]
        else:
            several = [str(e.name) for e in ours + theirs]
            reason = f"{', '.join(several)} share one name; keep one photo and one depth map"
            problems += [(name, reason) for name in several]
    return matched


def _role(name: PurePosixPath) -> tuple[str, tuple[str, ...]]:
    """Tell depth map from photo, and the key that both share: the path without rgb/ or depth/, and the stem."""
    folders = list(name.parts[:-1])
    for i in reversed(range(len(folders))):
        if folders[i].lower() in DEPTH_FOLDERS | PHOTO_FOLDERS:
            role = "depth" if folders[i].lower() in DEPTH_FOLDERS else "photo"
            suffix = DEPTH_SUFFIX if role == "depth" else PHOTO_SUFFIX
            return role, (*folders[:i], *folders[i + 1 :], suffix.sub("", name.stem))
    if DEPTH_SUFFIX.search(name.stem) or name.suffix.lower() in DEPTH_TYPES - PHOTO_SUFFIXES:
        return "depth", (*folders, DEPTH_SUFFIX.sub("", name.stem))
    return "photo", (*folders, PHOTO_SUFFIX.sub("", name.stem))


def _stem(entry: Entry, suffix: re.Pattern) -> str:
    return suffix.sub("", entry.name.stem)


def _load(
    matched: list[tuple[Entry, Entry]],
    problems: list[Problem],
    table: _Table | None,
    scale: float | None,
    out: Path | None,
) -> tuple[list[RGBDPair], list[Problem]]:
    pairs: list[RGBDPair] = []
    held = 0
    for photo, depth in matched:
        try:
            pair = _read_pair(photo, depth, table, scale)
            held += pair.depth.nbytes
            if held > MAX_DEPTH_BYTES:
                raise BadFile(depth, f"more than {MAX_DEPTH_BYTES // 10**9} GB of depth maps; scale them down")
        except BadFile as bad:
            problems.append((str(bad.entry.name), bad.reason))
            continue
        if out is not None and isinstance(pair.image, bytes):
            pair = RGBDPair(_write(out, len(pairs), photo, pair.image), *_rest(pair))
        pairs.append(pair)
    return pairs, problems


def _read_pair(photo: Entry, depth: Entry, table: _Table | None, scale: float | None) -> RGBDPair:
    """Read and check one pair; raises BadFile."""
    data = photo.read()
    if sees_depth(data):
        raise BadFile(photo, f"holds 16-bit grey values, no photo; is it swapped with {depth.name}?")
    try:
        size = load_photo(data, photo.name.name).size
    except ValueError as error:
        raise BadFile(photo, str(error)) from error
    row = {} if table is None else table.rows.get(_relative(photo.name, table.folder), {})
    factor = scale if scale is not None else (table.scale if table else None)
    metres = read_depth(depth, factor, table.invalid if table else None)
    if not same_shape(metres.shape, size):
        raise BadFile(
            depth,
            (
                f"the depth map is {metres.shape[1]} x {metres.shape[0]} but {photo.name} is {size[1]} x {size[0]} "
                "(upright); both must show the same view: rotate or crop one"
            ),
        )
    group = str(row.get("scene", _folder_group(photo.name)))
    return RGBDPair(photo.path or data, metres, str(photo.name), group, str(row.get("split", "")))


def _rest(pair: RGBDPair) -> tuple:
    return pair.depth, pair.name, pair.group, pair.split


def _relative(name: PurePosixPath, folder: PurePosixPath) -> PurePosixPath:
    return name.relative_to(folder) if name.is_relative_to(folder) else name


def _folder_group(name: PurePosixPath) -> str:
    return "/".join(part for part in name.parts[:-1] if part.lower() not in PHOTO_FOLDERS)


def _write(out: Path, index: int, photo: Entry, data: bytes) -> Path:
    """Write a photo under a name of our own: those in archives are not to be trusted."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{index:05d}{photo.name.suffix.lower()}"
    path.write_bytes(data)
    return path
