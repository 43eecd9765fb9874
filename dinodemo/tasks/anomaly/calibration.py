"""The fixed scale: what good photos score against each other, the line above them, and whether they belong together."""

from collections.abc import Sequence

import numpy as np

from ...io.files import plural

SPREADS = 2.5  # standard deviations of the good photos' scores between their mean and the line
LEAST_SPREAD = 0.08  # of the mean: few photos that happen to agree say little about the next one
ALONE = 1.35  # with a single good photo: the line, as a multiple of its score against its own mirrored views
STRANGE = 1.6  # a good photo that scores this many times the median of the others is named
DIFFERENT = 0.62  # median distance of good patches to the nearest on another photo, above which photos do not agree


def line_of(scores: np.ndarray, alone: bool = False) -> float:
    """Return the score up to which a photo counts as good.

    Args:
        scores: (n,) what each good photo scores when it is left out of the memory.
        alone: Whether there was one good photo only, so that its score is that of its own views.
    """
    mean = float(scores.mean())
    if alone:
        return ALONE * mean
    spread = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    return mean + SPREADS * max(spread, LEAST_SPREAD * mean)


def warnings(scores: np.ndarray, gaps: np.ndarray, names: Sequence[str]) -> list[str]:
    """Say what is doubtful about a set of good photos; an empty list when nothing is.

    Args:
        scores: (n,) leave-one-out scores.
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
    middle = np.median(scores)
    for score, name in zip(scores, names, strict=True):
        if len(scores) > 2 and score > STRANGE * middle:
            found.append(
                f"{name} is unlike the other good photos ({score / middle:.1f} times their typical score); "
                "take it out if it is not good."
            )
    return found
