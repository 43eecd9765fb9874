"""What the file of a classifier has to hold: such files come from anybody."""

from typing import Any

import numpy as np

FORMAT = "dinodemo classifier 1"


def check_card(card: dict[str, Any]) -> None:
    """Check the card of a classifier.

    Raises:
        ValueError: When `save` cannot have written it.
        KeyError, TypeError: When a value is missing, or of another kind.
    """
    if card["format"] != FORMAT:
        raise ValueError(f"its card does not say {FORMAT!r}")
    texts = [card["backbone"], card["identity"], card["summary"], *card["classes"]]
    counts = [card["width"], card["resolution"], *card["photos"]]
    scales = [card["temperature"], card["unknown_beyond"]]
    if not all(isinstance(text, str) for text in texts) or len(card["classes"]) < 2:
        raise ValueError("the texts of its card are damaged")
    if not all(isinstance(count, int) and count >= 0 for count in counts) or not np.isfinite(scales).all():
        raise ValueError("the numbers of its card are damaged")
    if len(card["photos"]) != len(card["classes"]) or card["temperature"] <= 0:
        raise ValueError("its card does not fit together")


def codes_are_sound(codes: np.ndarray, classes: int) -> bool:
    """Return whether codes (N,) are numbers of classes, from 0."""
    whole = codes.ndim == 1 and codes.dtype == np.int64 and codes.size > 0
    return bool(whole and 0 <= codes.min() <= codes.max() < classes)
