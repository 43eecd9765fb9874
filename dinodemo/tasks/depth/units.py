"""The unit of depth files: presets, what a person may write, and which unit a set's numbers make most plausible."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base import Option

AUTO, NO_UNIT = "auto", "none"
PRESETS = {  # name -> (units in a metre, words)
    "mm": (1000.0, "millimetres"),
    "cm": (100.0, "centimetres (Virtual KITTI 2)"),
    "m": (1.0, "metres"),
    "kitti": (256.0, "1/256 metre (KITTI)"),
    "tum": (5000.0, "1/5000 metre (TUM RGB-D)"),
    "sun": (8000.0, "1/8000 metre (SUN RGB-D)"),
}
ALIASES = {"millimetre": "mm", "millimeter": "mm", "centimetre": "cm", "centimeter": "cm", "metre": "m", "meter": "m"}
UNIT = Option(
    "unit",
    AUTO,
    "Unit of the depth files",
    f"units in a metre: a number, or {', '.join(PRESETS)}, {NO_UNIT} (near and far only), {AUTO} (guess, and say so)",
)
DEFAULTS = {"i": "mm", "f": "m"}  # kind of numbers -> what they are in unless there is evidence against it
PRIORS = {
    "i": {"mm": 0.0, "cm": -2.0, "kitti": -2.5, "tum": -2.5, "sun": -5.0},
    "f": {"m": 0.0, "mm": -1.5, "cm": -2.5},
}
USUAL_MEDIAN = 3.0  # metres; medians of rooms lie about it, those of streets above it
NEAR_SPREAD, FAR_SPREAD = 0.7, 1.1  # of the logarithm of the median, below and above it
WHOLE_NEAR_SPREAD = 0.35  # for millimetres of a deep view without a hole: sensors that near leave holes
DEEP = 2.9  # 95 % by 5 % quantile of rooms and streets, not of things on a table
HOLES = 0.001  # share of pixels without a reading below each column's first; sky above it is none
SENSOR_REACH, STREET_REACH = 12.0, 100.0  # metres; dense files in millimetres come from sensors of rooms
NEARLY_AS_PLAUSIBLE, MORE_PLAUSIBLE, FAR_MORE_PLAUSIBLE = 1.2, 0.7, 2.3  # differences of log-likelihood
STILL_POSSIBLE, DOUBTFUL_BESIDE_UNUSUAL = -4.0, 4.0
NAMES = {  # what paths of public sets say of their unit
    "tum": re.compile(r"freiburg|(^|/)(rgb|depth)/\d{9,10}\.\d{3,6}\.|icl[-_]?nuim|(^|[/_])tum[/_]", re.IGNORECASE),
    "cm": re.compile(r"v(irtual)?[-_ ]?kitti|/camera_[01]/(rgb|depth)_\d+\.", re.IGNORECASE),
    "kitti": re.compile(r"(?<!v)(?<!virtual)(?<!virtual[-_ ])kitti|proj_depth|groundtruth_depth", re.IGNORECASE),
}
NAME_EVIDENCE = {"tum": 6.0, "cm": 4.7, "kitti": 6.0}  # less than what usual numbers in the usual unit weigh
STEP_EVIDENCE, SKY_EVIDENCE = 5.5, 1.5
SPARSE, WIDE = 0.4, 2.5  # share of pixels with a reading; width / height
SPARSE_EVIDENCE, WIDE_EVIDENCE, LASER_EVIDENCE = 1.8, 2.5, 2.0  # the last: both at once, a laser's lines


@dataclass(frozen=True)
class Numbers:
    """A summary of the raw values of a set's depth maps of one kind.

    Args:
        kind: "i" for whole numbers, "f" for others.
        median: of all maps' medians of readings.
        high: the same of their 95 % quantiles.
        deep: the same of 95 % by 5 % quantile.
        step: the largest whole number that divides all readings looked at; 1 for kind "f".
        covered: mean share of pixels with a reading.
        holes: mean share of pixels without one below each column's first.
        aspect: width / height.
        sky: whether readings lay at the largest number of 16 bits.
        tops: each map's largest reading.
        names: paths inside the set.
    """

    kind: str
    median: float
    high: float
    deep: float = 2.0
    step: int = 1
    covered: float = 1.0
    holes: float = 0.01
    aspect: float = 4 / 3
    sky: bool = False
    tops: tuple[float, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guess:
    """The unit that a set's files are taken to be in, and why.

    Args:
        unit: a name of `PRESETS`, or "" for a number given by hand.
        scale: metres a unit.
        message: a sentence for people, with the other units that are possible.
        doubtful: whether another unit is nearly as plausible, or more so.
    """

    unit: str
    scale: float
    message: str
    doubtful: bool = False


def parse_unit(value: str | float | None) -> float | None:
    """Return metres a unit; None for "auto" and for "none".

    Args:
        value: a name of `PRESETS` (or the word in full), "auto", "none", or the units in a metre as a number or text.

    Raises:
        ValueError: for anything else.
    """
    if value is None or value in (AUTO, NO_UNIT):
        return None
    name = str(value).strip().lower()
    name = ALIASES.get(name.removesuffix("s"), name)
    if name in PRESETS:
        return 1 / PRESETS[name][0]
    try:
        number = float(name.removeprefix("1/") if name.startswith("1/") else name)
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not (math.isfinite(number) and 1e-6 <= number <= 1e9):
        raise ValueError(
            f"unit must be {', '.join(PRESETS)}, {NO_UNIT}, {AUTO}, or the units in a metre (1000 for millimetres); "
            f"got {value!r}"
        )
    return 1 / number


def guess_unit(numbers: Numbers) -> Guess:
    """Return the unit that a set's numbers and names make most plausible.

    The usual unit (millimetres for whole numbers, metres for others) stays unless another is twice as likely by its
    numbers, or ten times by numbers and names. A guess is doubtful, and the person to be asked, where another unit is
    still possible beside an unusual one, or nearly as likely as the usual one.

    Raises:
        ValueError: when no known unit gives depths of a scene.
    """
    scores = {name: prior + _plausibility(name, numbers) for name, prior in PRIORS[numbers.kind].items()}
    by_numbers = dict(scores)
    for name, pattern in NAMES.items():
        if name in scores and any(pattern.search(path) for path in numbers.names):
            scores[name] += NAME_EVIDENCE[name]
    best, usual = max(scores, key=lambda name: scores[name]), DEFAULTS[numbers.kind]
    if scores[best] < -12:
        raise ValueError(
            f"half of the readings are beyond {numbers.median:.4g} units, so the unit is another than usual; say how "
            "many units are in a metre (unit)"
        )
    needed = MORE_PLAUSIBLE if best == max(by_numbers, key=lambda name: by_numbers[name]) else FAR_MORE_PLAUSIBLE
    taken = best if scores[best] - scores[usual] >= needed else usual
    others = [
        name
        for name in sorted(scores, key=lambda name: -scores[name])
        if name != taken and scores[name] - scores[taken] > STILL_POSSIBLE
    ]
    near = NEARLY_AS_PLAUSIBLE if taken == usual else DOUBTFUL_BESIDE_UNUSUAL
    doubtful = any(scores[name] > scores[taken] - near for name in scores if name != taken) or _normalised(numbers)
    return Guess(taken, 1 / PRESETS[taken][0], _sentence(taken, usual, others, numbers, doubtful), doubtful)


def _plausibility(name: str, numbers: Numbers) -> float:
    """Return the log-likelihood of a set's numbers in a unit, up to a constant."""
    scale = 1 / PRESETS[name][0]
    off = math.log(numbers.median * scale / USUAL_MEDIAN)
    outdoors = name in ("kitti", "cm") and off > 0
    whole = numbers.kind == "i" and numbers.holes < HOLES and numbers.deep > DEEP
    near = WHOLE_NEAR_SPREAD if name == "mm" and whole else NEAR_SPREAD
    score = -0.5 * (off / (near if off < 0 else FAR_SPREAD * (1.5 if outdoors else 1))) ** 2
    sparse, wide = numbers.covered < SPARSE, numbers.aspect > WIDE
    reach = SENSOR_REACH if name == "mm" and not (sparse or wide) else STREET_REACH
    score -= 5 * max(0.0, math.log(numbers.high * scale / reach))
    if name == "tum" and numbers.step % 5 == 0 and numbers.step % 10:
        score += STEP_EVIDENCE  # sensors give millimetres, five units of a 1/5000 metre
    if name == "sun" and numbers.step % 8 == 0:
        score += STEP_EVIDENCE  # millimetres, turned by three bits
    if name == "kitti":
        score += SPARSE_EVIDENCE * sparse + LASER_EVIDENCE * (sparse and wide)
    if name in ("kitti", "cm"):
        score += WIDE_EVIDENCE * wide  # of cameras on cars
    if name == "cm" and numbers.sky and numbers.high >= 2000:
        score += SKY_EVIDENCE
    elif name == "cm":
        score -= min(1.0, max(0.0, off))  # a street without sky
    return score


def _normalised(numbers: Numbers) -> bool:
    return set(numbers.tops) in ({1.0}, {65535.0})


def _sentence(taken: str, usual: str, others: Sequence[str], numbers: Numbers, doubtful: bool) -> str:
    median = numbers.median / PRESETS[taken][0]
    text = f"Read as {PRESETS[taken][1]}: median {median:.2f} m, 95 % within {numbers.high / PRESETS[taken][0]:.2f} m."
    if taken != usual:
        text = (
            f"Taken for {PRESETS[taken][1]}, not {PRESETS[usual][1]}, by the numbers and names."
            + text[text.index(":") :]
        )
        text = text.replace(".:", ":", 1)
    if doubtful:
        text = f"The unit is a guess. {text}"
    if others:
        listed = ", ".join(f"{PRESETS[name][1]}: {numbers.median / PRESETS[name][0]:.2f} m" for name in others)
        text += f" If that is not so, choose the unit; the median would be in {listed}."
    if _normalised(numbers):
        text += f" The maps end at exactly {numbers.tops[0]:g}: they look normalised; then there is no unit (none)."
    return text


def _holes(values: np.ndarray) -> float:
    """Return the share of pixels without a reading that lie below their column's first reading."""
    seen = values > 0
    return float((np.maximum.accumulate(seen, axis=0) & ~seen).mean())


def names_a_unit(names: Sequence[str]) -> bool:
    """Return whether paths are those of a public set whose depth is in metres."""
    return any(pattern.search(name) for pattern in NAMES.values() for name in names)


def measure(
    values: Sequence[np.ndarray], kind: str, names: Sequence[str] = (), sky: bool = False, most: int = 20_000
) -> Numbers:
    """Describe raw depth maps (H, W), 0 where there is no reading, for `guess_unit`."""
    readings = [v[v > 0] for v in values]
    thinned = [r[:: max(1, len(r) // most)] for r in readings if len(r)]
    step = 1
    if kind == "i":
        whole = np.concatenate(thinned).astype(np.int64)
        step = int(np.gcd.reduce(whole)) if len(np.unique(whole)) >= 50 else 1
    return Numbers(
        kind,
        float(np.median([np.median(r) for r in thinned])),
        float(np.median([np.quantile(r, 0.95) for r in thinned])),
        float(np.median([np.quantile(r, 0.95) / np.quantile(r, 0.05) for r in thinned])),
        step,
        float(np.mean([len(r) / v.size for r, v in zip(readings, values, strict=True)])),
        float(np.mean([_holes(v) for v in values])),
        values[0].shape[1] / values[0].shape[0],
        sky,
        tuple(float(r.max()) for r in thinned),
        tuple(names),
    )
