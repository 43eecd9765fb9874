"""The fixed scale: what good photos score against each other, the line above them, and whether they belong together."""

from collections.abc import Sequence

import numpy as np

from ...io.files import plural

MARGIN = 0.15  # of the typical score: how far the next good photo may lie above it
SPREADS = 1.5  # standard deviations of the good photos' scores that it may lie above it, where that is more
ALONE = 1.35  # with a single good photo: the line, as a multiple of its score against its own mirrored views
STRANGE = 1.5  # a good photo that scores, or lies from the others, this many times as far as the median is named
DIFFERENT = 0.85  # median distance of good patches to the nearest on another photo, above which photos do not agree


def line_of(scores: np.ndarray, alone: bool = False) -> float:
    """Return the score up to which a photo counts as good.

    The median and the median deviation, so that one odd good photo does not move it; with few photos a wider margin,
    because they know little of the next one.

    Args:
        scores: (n,) what each good photo scores when it is left out of the memory; nan where that was not tried.
        alone: Whether there was one good photo only, so that its score is that of its own views.
    """
    scores = scores[np.isfinite(scores)]
    middle = float(np.median(scores))
    if alone:
        return ALONE * middle
    spread = 1.4826 * float(np.median(np.abs(scores - middle)))
    margin = MARGIN * (1 + 1 / max(len(scores) - 1, 1))
    return middle + max(SPREADS * spread, margin * middle)


def warnings(scores: np.ndarray, gaps: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return what is doubtful about a set of good photos; an empty list when nothing is.

    Args:
        scores: (n,) leave-one-out scores, or nan.
        gaps: (n,) median distance (0 to 2) of each photo's unit descriptors to the nearest on another photo.
        names: Of the photos.
    """
    if len(scores) == 1:
        return [
            "With one good photo the line is a guess from its own mirrored views; give five or more, or move the line."
        ]
    found = []
    if np.median(gaps) > DIFFERENT:
        found.append(
            f"These {plural(len(scores), 'good photo')} differ too much among themselves: a typical patch has nothing "
            "alike on the others. Give photos of one kind of object, taken the same way."
        )
    times = np.fmax(scores / np.nanmedian(scores), gaps / max(float(np.median(gaps)), 1e-6))
    for often, name in zip(times, names, strict=True):
        if len(scores) > 2 and often > STRANGE:
            found.append(
                f"{name} is unlike the other good photos ({often:.1f} times as far from them as they are from each "
                "other); take it out if it is not good."
            )
    return found
