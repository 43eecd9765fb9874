"""What the numbers of a set's depth maps mean: direction, unit, what is no reading; and what is said of it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .depthmap import NO_READING
from .files import Problem
from .pair_list import METRES, RELATIVE, PairList, PairsInfo, RGBDPair
from .pairing import Match, is_inverse
from .readings import (
    SAY_NEARER,
    background_message,
    direction_warning,
    find_background,
    nearer_by_floor,
    tilt,
    without_background,
)
from .tables import Table
from .units import guess_unit, measure, names_a_unit

LARGEST_16_BIT = 65535
LEAST_NORMALISED, MOST_AT_TOP = 2, 0.05  # maps that end at the same full scale; share of readings that lie there
SAY_FARTHER = "if larger values mean farther, say so (Larger values are: Farther; inverse off)."
TAKEN = (
    "So larger numbers were taken as nearer (disparity, inverse depth), and the maps have no unit. If larger is "
    "farther, say so (Larger values are: Farther; inverse off)."
)


@dataclass(frozen=True)
class Asked:
    """What the caller said of the numbers."""

    scale: float | None
    relative: bool
    inverse: bool | None


@dataclass
class Raw:
    """A checked pair whose depth is still as the file has it."""

    match: Match
    image: Path | bytes
    values: np.ndarray
    kind: str  # "i" for whole numbers, "f" for others
    group: str
    split: str


@dataclass
class _Said:
    """Messages to the person: statements, and those that need an answer."""

    messages: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def named_inverse(one: Match, asked: Asked) -> bool:
    """Return whether a pair's larger numbers are nearer: as asked, else by its depth map's name."""
    return is_inverse(one.depth.name) if asked.inverse is None else asked.inverse


def to_depth(raw: list[Raw], problems: list[Problem], table: Table | None, asked: Asked) -> PairList:
    """Turn the files' numbers into depth, larger is farther, and say what was taken for granted."""
    said = _Said()
    scale = table.scale if asked.scale is None and table and not asked.relative else asked.scale
    inverse, sky = _clean(raw, asked, scale, said)
    raw = _with_readings(raw, problems)
    scales: dict[str, float] = {}
    relative = _has_no_unit(raw, asked, scale, inverse, said)
    if not relative:
        scales = _scales(raw, scale, sky, said, problems)
        raw = [one for one in raw if one.kind in scales]
    if not raw:
        return PairList()
    pairs = [_pair(one, _depth_of(one, inverse, scales), RELATIVE if relative else METRES) for one in raw]
    if relative:
        pairs = _around_one(pairs)
    if warning := direction_warning([pair.depth for pair in pairs]):
        said.warnings.append(warning if not inverse else warning.replace(SAY_NEARER, SAY_FARTHER))
    middle = float(np.median([np.median(pair.depth[pair.depth > 0]) for pair in pairs]))
    texts = tuple(text for text in said.messages if text), tuple(said.warnings)
    return PairList(pairs, PairsInfo(RELATIVE if relative else METRES, scales, inverse, middle, *texts))


def _clean(raw: list[Raw], asked: Asked, scale: float | None, said: _Said) -> tuple[bool, bool]:
    """Leave out what is no reading, in place. Returns whether larger is nearer, and whether 65535 stood for sky."""
    inverse = _named_direction(raw, asked, said)
    far = {} if inverse else {kind: find_background([one.values for one in _of(raw, kind)]) for kind in _kinds(raw)}
    named = names_a_unit([str(one.match.depth.name) for one in raw])
    if not inverse and asked.inverse is None and scale is None and (asked.relative or not named):
        tilts = [tilt(without_background(one.values, far[one.kind])[0]) for one in raw]
        if why := nearer_by_floor(tilts):
            inverse, far = True, {}
            said.warnings.append(f"{why} {TAKEN}")
    left = total = 0
    for one in raw:
        one.values, count = without_background(one.values, far.get(one.kind, []))
        left, total = left + count, total + one.values.size
    background = [value for kind in sorted(far) for value in far[kind]]
    said.messages.append(background_message(left, total, background))
    return inverse, LARGEST_16_BIT in background


def _kinds(raw: list[Raw]) -> list[str]:
    return sorted({one.kind for one in raw})


def _of(raw: list[Raw], kind: str) -> list[Raw]:
    return [one for one in raw if one.kind == kind]


def _named_direction(raw: list[Raw], asked: Asked, said: _Said) -> bool:
    turned = [named_inverse(one.match, asked) for one in raw]
    inverse = sum(turned) > len(turned) / 2
    if any(turned):
        why = "as asked" if asked.inverse is not None else "by the names of folders and files"
        said.messages.append(f"Larger numbers are taken as {'nearer' if inverse else 'farther'}, {why}.")
    if any(turned) and not all(turned):
        said.messages.append("Some maps are called disparity and some are not: the majority counts.")
    return inverse


def _has_no_unit(raw: list[Raw], asked: Asked, scale: float | None, inverse: bool, said: _Said) -> bool:
    if not raw or (scale is not None and not asked.relative):
        return False
    tops = {float(one.values.max()) for one in raw}
    full = len(raw) >= LEAST_NORMALISED and (tops == {1.0} or tops == {float(LARGEST_16_BIT)})
    normalised = (
        full and float(np.median([_share_at_top(one.values) for one in raw])) < MOST_AT_TOP
    )  # else cut off there
    if not (asked.relative or inverse or normalised):
        return False
    if normalised and not (asked.relative or inverse):
        said.warnings.append(
            f"Every map ends at exactly {tops.pop():g}: they look normalised, so they were taken to have no unit; if "
            "they have one, choose it."
        )
    said.messages.append("The maps count as having no unit: near and far are learnt, not metres.")
    return True


def _share_at_top(values: np.ndarray) -> float:
    return float((values == values.max()).sum() / (values > 0).sum())


def _with_readings(raw: list[Raw], problems: list[Problem]) -> list[Raw]:
    problems += [(str(one.match.depth.name), NO_READING) for one in raw if not (one.values > 0).any()]
    return [one for one in raw if (one.values > 0).any()]


def _scales(raw: list[Raw], scale: float | None, sky: bool, said: _Said, problems: list[Problem]) -> dict[str, float]:
    """Return metres a unit for each kind of numbers, given or guessed; maps that have none become problems."""
    found = {}
    for kind in _kinds(raw):
        same = _of(raw, kind)
        numbers = measure([one.values for one in same], kind, [str(one.match.depth.name) for one in same], sky)
        if scale is not None:
            found[kind] = scale
            said.messages.append(f"Read with {1 / scale:.6g} units in a metre: median {numbers.median * scale:.2f} m.")
            continue
        try:
            guess = guess_unit(numbers)
        except ValueError as error:
            problems += [(str(one.match.depth.name), str(error)) for one in same]
            continue
        found[kind] = guess.scale
        (said.warnings if guess.doubtful else said.messages).append(guess.message)
    return found


def _depth_of(one: Raw, inverse: bool, scales: dict[str, float]) -> np.ndarray:
    values = one.values.astype(np.float32) * np.float32(scales.get(one.kind, 1.0))
    if not inverse:
        return values
    return np.where(values > 0, 1 / np.where(values > 0, values, 1), 0).astype(np.float32)


def _pair(one: Raw, depth: np.ndarray, unit: str) -> RGBDPair:
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
