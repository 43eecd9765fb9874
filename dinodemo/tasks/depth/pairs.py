"""Read RGB-D pairs from a folder, a zip or two lists of files: what fits together is returned, the rest is named."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from ...io.archives import open_entries
from ...io.images import load_photo
from . import files
from .depthmap import NO_READING, read_values, same_shape, sees_depth
from .files import BadFile, Entry, Problem, reason_against
from .pairing import PHOTO_WORDS, Match, is_inverse, match, match_names
from .readings import background_message, direction_warning, find_background, without_background
from .tables import Table, find_table, match_lists, match_table, split_lists
from .units import AUTO, NO_UNIT, guess_unit, measure, parse_unit

MAX_DEPTH_BYTES = 4_000_000_000  # of all maps together, they are held in memory
LARGEST_16_BIT = 65535
METRES, RELATIVE = "metres", "relative"


@dataclass(frozen=True, eq=False)
class RGBDPair:
    """A photo and its depth map; unpacks to (image, depth).

    Args:
        image: a path, or the encoded bytes of a photo out of a zip.
        depth: (H, W) float32, 0 where there is no reading; larger is farther.
        name: of the photo, inside the folder or zip.
        group: scene by depth.json, else the photo's folder without rgb/ or images/; "" where all lie in one.
        split: by depth.json ("train", "val", "test"), else "".
        depth_name: of the depth map's file.
        by: what the two were found to belong together by.
        unit: "metres", or "relative" for depth without a unit.
    """

    image: Path | bytes
    depth: np.ndarray
    name: str
    group: str
    split: str
    depth_name: str = ""
    by: str = ""
    unit: str = METRES

    def __iter__(self) -> Iterator:
        return iter((self.image, self.depth))


@dataclass(frozen=True)
class PairsInfo:
    """What was taken for granted when pairs were read; to be shown before training.

    Args:
        unit: "metres" or "relative".
        scale: metres a unit of the files, by kind of numbers ("i" whole, "f" others); empty without a unit.
        inverse: whether larger numbers in the files are nearer.
        median: of all readings, in the unit.
        messages: sentences on unit, direction and what was left out.
        warnings: those that need an answer.
    """

    unit: str = METRES
    scale: dict[str, float] = field(default_factory=dict)
    inverse: bool = False
    median: float = 0.0
    messages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class PairList(list[RGBDPair]):
    """Pairs with what was taken for granted when they were read (`info`)."""

    def __init__(self, pairs: Iterable[RGBDPair] = (), info: PairsInfo | None = None):
        super().__init__(pairs)
        self.info = info or PairsInfo()


@dataclass
class _Raw:
    """A checked pair whose depth is still as the file has it."""

    match: Match
    image: Path | bytes
    values: np.ndarray
    kind: str  # "i" for whole numbers, "f" for others
    group: str
    split: str


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
        inverse: whether larger numbers are nearer; None says so for folders and files called disparity or inverse.
            Such maps have no unit unless one is given.

    Returns:
        A list of pairs sorted by name, whose `info` says what was taken for granted, and problems (file, reason) for
        all that was left out.

    Raises:
        ValueError: when no pair is left, or the unit cannot be.
    """
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be metres a unit, above 0, got {scale!r}; 0.001 is for millimetres")
    asked = _Asked(parse_unit(unit) if scale is None else scale, unit == NO_UNIT and scale is None, inverse)
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


@dataclass(frozen=True)
class _Asked:
    """What the caller said of the numbers."""

    scale: float | None
    relative: bool
    inverse: bool | None


def _from_lists(photos, depths, asked: _Asked) -> tuple[PairList, list[Problem]]:
    if isinstance(photos, str | Path) or isinstance(depths, str | Path):
        raise ValueError("photos and depths must be two lists of files; for a folder or zip give no depths")
    with open_entries(photos, files.LIMITS) as (ours, left), open_entries(depths, files.LIMITS) as (theirs, problems):
        problems += left
        matched = match(list(ours), list(theirs), problems, folders=False)
        return _finish("the lists", _load(matched, problems, None, asked, None), problems, None, asked)


def _finish(
    title: str, raw: list[_Raw], problems: list[Problem], table: Table | None, asked: _Asked
) -> tuple[PairList, list[Problem]]:
    pairs = _to_depth(raw, problems, table, asked) if raw else PairList()
    problems.sort()
    if not pairs:
        shown = "; ".join(f"{name}: {reason}" for name, reason in problems[:5])
        raise ValueError(
            f"{title} holds no usable pair of photo and depth map; expected rgb/x.jpg with depth/x.png, or x.jpg with "
            f"x_depth.png{f' ({shown})' if shown else ''}"
        )
    return pairs, problems


def _load(
    matched: list[Match], problems: list[Problem], table: Table | None, asked: _Asked, out: Path | None
) -> list[_Raw]:
    found: list[_Raw] = []
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


def _read_pair(one: Match, table: Table | None, asked: _Asked) -> _Raw:
    """Read and check one pair; raises BadFile."""
    photo, depth = one.photo, one.depth
    data = photo.read()
    if sees_depth(data):
        raise BadFile(photo, f"holds 16-bit grey values, no photo; is it swapped with {depth.name}?")
    try:
        size = load_photo(data, photo.name.name).size
    except ValueError as error:
        raise BadFile(photo, str(error)) from error
    grey = asked.relative or (asked.scale is None and _inverse(one, asked))
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
    return _Raw(one, photo.path or data, values, kind, group, str(row.get("split", "")))


def _inverse(one: Match, asked: _Asked) -> bool:
    return is_inverse(one.depth.name) if asked.inverse is None else asked.inverse


def _to_depth(raw: list[_Raw], problems: list[Problem], table: Table | None, asked: _Asked) -> PairList:
    """Turn the files' numbers into depth, larger is farther, and say what was taken for granted."""
    turned = [_inverse(one.match, asked) for one in raw]
    inverse = sum(turned) > len(turned) / 2
    messages = [_direction(inverse, asked)] if inverse or any(turned) else []
    if any(turned) and not all(turned):
        messages.append("Some maps are called disparity and some are not: the majority counts.")
    scale, sky = asked.scale, False
    if scale is None and table and not asked.relative:
        scale = table.scale
    left = total = 0
    background: list[float] = []
    for kind in sorted({one.kind for one in raw}):
        same = [one for one in raw if one.kind == kind]
        far = [] if inverse else find_background([one.values for one in same])
        sky |= LARGEST_16_BIT in far
        background += far
        for one in same:
            one.values, count = without_background(one.values, far)
            left, total = left + count, total + one.values.size
    messages.append(background_message(left, total, background))
    raw = _with_readings(raw, problems)
    scales: dict[str, float] = {}
    warnings: list[str] = []
    if not raw:
        return PairList()
    relative = asked.relative or (inverse and scale is None)
    if relative:
        messages.append("The maps count as having no unit: near and far are learnt, not metres.")
    else:
        scales = _scales(raw, scale, sky, messages, warnings, problems)
        raw = [one for one in raw if one.kind in scales]
        if not raw:
            return PairList()
    pairs = [_pair(one, _depth_of(one, inverse, scales), RELATIVE if relative else METRES) for one in raw]
    if relative:
        pairs = _around_one(pairs)
    if warning := direction_warning([pair.depth for pair in pairs]):
        warnings.append(warning if not inverse else warning.replace("(inverse)", "(inverse off)"))
    middle = float(np.median([np.median(pair.depth[pair.depth > 0]) for pair in pairs]))
    info = PairsInfo(
        RELATIVE if relative else METRES, scales, inverse, middle, tuple(m for m in messages if m), tuple(warnings)
    )
    return PairList(pairs, info)


def _with_readings(raw: list[_Raw], problems: list[Problem]) -> list[_Raw]:
    problems += [(str(one.match.depth.name), NO_READING) for one in raw if not (one.values > 0).any()]
    return [one for one in raw if (one.values > 0).any()]


def _direction(inverse: bool, asked: _Asked) -> str:
    why = "as asked" if asked.inverse is not None else "by the names of folders and files"
    return f"Larger numbers are taken as {'nearer' if inverse else 'farther'}, {why}."


def _scales(
    raw: list[_Raw],
    scale: float | None,
    sky: bool,
    messages: list[str],
    warnings: list[str],
    problems: list[Problem],
) -> dict[str, float]:
    """Return metres a unit for each kind of numbers, given or guessed; maps that have none become problems."""
    found = {}
    for kind in sorted({one.kind for one in raw}):
        same = [one for one in raw if one.kind == kind]
        numbers = measure([one.values for one in same], kind, [str(one.match.depth.name) for one in same], sky)
        if scale is not None:
            found[kind] = scale
            messages.append(f"Read with {1 / scale:.6g} units in a metre: median {numbers.median * scale:.2f} m.")
            continue
        try:
            guess = guess_unit(numbers)
        except ValueError as error:
            problems += [(str(one.match.depth.name), str(error)) for one in same]
            continue
        found[kind] = guess.scale
        (warnings if guess.doubtful else messages).append(guess.message)
    return found


def _depth_of(one: _Raw, inverse: bool, scales: dict[str, float]) -> np.ndarray:
    values = one.values.astype(np.float32) * np.float32(scales.get(one.kind, 1.0))
    if not inverse:
        return values
    return np.where(values > 0, 1 / np.where(values > 0, values, 1), 0).astype(np.float32)


def _pair(one: _Raw, depth: np.ndarray, unit: str) -> RGBDPair:
    return RGBDPair(
        one.image,
        depth,
        str(one.match.photo.name),
        one.group,
        one.split,
        str(one.match.depth.name),
        one.match.by,
        unit,
    )


def _around_one(pairs: list[RGBDPair]) -> list[RGBDPair]:
    """Scale every map without a unit to the median 1, so that all lie where a head's arithmetic is exact."""
    return [replace(pair, depth=pair.depth / np.float32(np.median(pair.depth[pair.depth > 0]))) for pair in pairs]


def _folder_group(name: PurePosixPath) -> str:
    return "/".join(part for part in name.parts[:-1] if part.lower() not in PHOTO_WORDS)


def _write(out: Path, index: int, photo: Entry, data: bytes) -> Path:
    """Write a photo under a name of our own: those in archives are not to be trusted."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{index:05d}{photo.name.suffix.lower()}"
    path.write_bytes(data)
    return path
