"""What to leave out of a folder, each with its reason."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..io.vectors import CHUNK, linked_groups
from .copies import near_copies
from .examine import QUALITY, Examination

KINDS = ("unreadable", "tiny", "copy", "near copy", "blurred", "dark", "washed out", "plain", "outlier")


@dataclass(frozen=True)
class Thresholds:
    """Where a photo begins to be suggested; None switches a kind off.

    Args:
        tiny: Pixels of the shorter side.
        cosine: Of near copies, see `near_copies`.
        overlap: Of near copies.
        blurred: Sharpness below which a photo is suggested; this and the next three are of `Examination.quality`.
        dark: 95th percentile of grey.
        washed_out: Contrast.
        plain: Information in bits.
        outlier: How many robust standard deviations further than usual the 5 nearest photos are.
    """

    tiny: int | None = 64
    cosine: float | None = 0.25
    overlap: float = 0.91
    blurred: float | None = 0.07
    dark: float | None = 40.0
    washed_out: float | None = 40.0
    plain: float | None = 1.2
    outlier: float | None = 4.0


@dataclass(frozen=True)
class Suggestion:
    """A photo that might be left out, and why; `instead` is the copy that would stay."""

    path: Path
    kind: str  # of KINDS
    reason: str
    instead: Path | None = None


def suggest(found: Examination, thresholds: Thresholds | None = None) -> list[Suggestion]:
    """Return what might be left out, in the order of `KINDS`; at most one suggestion for a photo.

    Args:
        found: Of `examine`.
        thresholds: From which something is suggested.
    """
    limits = thresholds or Thresholds()
    made = [Suggestion(path, "unreadable", reason) for path, reason in found.problems]
    taken: set[Path] = set()
    for part in (_tiny, _copies, _near_copies, _bad_quality, _outliers):
        for suggestion in part(found, limits):
            if suggestion.path not in taken:
                taken.add(suggestion.path)
                made.append(suggestion)
    return made


def kept(found: Examination, left_out: Collection[Path]) -> list[Path]:
    """Return the readable photos that are not left out.

    Args:
        found: Of `examine`.
        left_out: Paths.
    """
    gone = set(left_out)
    return [path for path in found.paths if path not in gone]


def _tiny(found: Examination, limits: Thresholds) -> list[Suggestion]:
    if limits.tiny is None:
        return []
    sides = zip(found.paths, found.sizes.tolist(), strict=True)
    return [Suggestion(path, "tiny", f"only {w} x {h} pixels") for path, (h, w) in sides if min(h, w) < limits.tiny]


def _copies(found: Examination, limits: Thresholds) -> list[Suggestion]:
    first: dict[str, Path] = {}
    made = []
    for path, digest in zip(found.paths, found.digests, strict=True):
        if digest in first:
            made.append(Suggestion(path, "copy", f"the same file as {first[digest].name}", first[digest]))
        first.setdefault(digest, path)
    return made


def _near_copies(found: Examination, limits: Thresholds) -> list[Suggestion]:
    if limits.cosine is None or not len(found):
        return []
    pairs = near_copies(found, limits.cosine, limits.overlap)
    linked = np.array([pair[:2] for pair in pairs], int).reshape(-1, 2).T
    made = []
    for members in linked_groups(linked, len(found)):
        best = max(members, key=lambda m: (found.sizes[m].prod(), found.quality[m, 0], -m))
        made += [
            Suggestion(found.paths[m], "near copy", f"shows what {found.paths[best].name} shows", found.paths[best])
            for m in members
            if m != best
        ]
    return made


def _bad_quality(found: Examination, limits: Thresholds) -> list[Suggestion]:
    reasons = {
        "blurred": "nothing in it is sharp",
        "dark": "nearly black",
        "washed out": "hardly any contrast",
        "plain": "hardly anything in it",
    }
    bounds = {
        "dark": ("dark", limits.dark),
        "washed out": ("contrast", limits.washed_out),
        "plain": ("information", limits.plain),
        "blurred": ("sharpness", limits.blurred),
    }
    made = []
    for kind, (measure, bound) in bounds.items():
        if bound is None:
            continue
        values = found.quality[:, QUALITY.index(measure)]
        low = np.flatnonzero(values < bound)
        made += [
            Suggestion(
                found.paths[i], kind, f"{reasons[kind]} ({measure} {values[i]:.3g}, usual {np.median(values):.3g})"
            )
            for i in low
        ]
    return made


def _outliers(found: Examination, limits: Thresholds) -> list[Suggestion]:
    if limits.outlier is None or len(found) < 10:  # among a handful nothing is unusual
        return []
    distance = 1 - _mean_cosine_to_nearest(found.vectors, 5)
    centre = np.median(distance)
    spread = 1.4826 * np.median(np.abs(distance - centre))  # the standard deviation, were they normally distributed
    z = (distance - centre) / max(float(spread), 1e-6)
    return [
        Suggestion(found.paths[i], "outlier", f"unlike all others: {z[i]:.1f} deviations further than usual")
        for i in np.argsort(-z)
        if z[i] > limits.outlier
    ]


def _mean_cosine_to_nearest(vectors: np.ndarray, count: int) -> np.ndarray:
    means = []
    for start in range(0, len(vectors), CHUNK):
        scores = vectors[start : start + CHUNK] @ vectors.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -1
        means.append(np.partition(scores, -count, axis=1)[:, -count:].mean(axis=1))
    return np.concatenate(means)
