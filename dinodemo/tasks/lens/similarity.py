"""What the pins of a lens select: patches like some, unlike others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine.features import Features
from ...io.render import enlarge
from ..tokens import flat_unit, without

MOST_PINS = 32


@dataclass(frozen=True)
class Pin:
    """A patch of one of the photos, marked as alike (sign 1) or not alike (sign -1)."""

    photo: int
    row: int
    column: int
    sign: int


def pinned_similarity(
    features: Sequence[Features], pins: Sequence[Pin], basis: np.ndarray | None = None
) -> list[np.ndarray]:
    """Compute each photo's similarity to the pins: the best cosine to those alike minus the best to the others.

    Args:
        features: of photos, from one backbone.
        pins: at least one that is alike.
        basis: directions of position that are left out.

    Returns:
        One (h, w) float32 a photo: cosines from -1 to 1, or their difference from -2 to 2.

    Raises:
        ValueError: without a pin that is alike, or for a pin outside of the photos.
    """
    if not any(pin.sign > 0 for pin in pins):
        raise ValueError("nothing is pinned as alike yet; click the object on a photo first")
    tokens = [flat_unit(f.patches if basis is None else without(f.patches, basis)) for f in features]
    chosen: dict[int, list[np.ndarray]] = {1: [], -1: []}
    for pin in pins:
        h, w = features[pin.photo].grid if 0 <= pin.photo < len(features) else (0, 0)
        if not (0 <= pin.row < h and 0 <= pin.column < w):
            raise ValueError("a pin lies outside of the photos; clear the pins and set them again")
        chosen[1 if pin.sign > 0 else -1].append(tokens[pin.photo][pin.row * w + pin.column])
    maps = []
    for f, all_tokens in zip(features, tokens, strict=True):
        similarity = (all_tokens @ np.stack(chosen[1]).T).max(axis=1)
        if chosen[-1]:
            similarity = similarity - (all_tokens @ np.stack(chosen[-1]).T).max(axis=1)
        maps.append(similarity.reshape(f.grid).astype(np.float32))
    return maps


def mask_above(similarity: np.ndarray, threshold: float, size: tuple[int, int]) -> np.ndarray:
    """Return where a similarity (h, w) is above a threshold, at a photo's size (H, W), bool.

    Raises:
        ValueError: if nothing or everything is above it.
    """
    mask = enlarge(similarity, size) >= threshold
    if mask.all() or not mask.any():
        what = "everything" if mask.all() else "nothing"
        raise ValueError(f"{what} is above the threshold {threshold:.2f}; move it and try again")
    return mask


def read_state(state: Any) -> tuple[list[Pin], float]:
    """Read the pins and the threshold that a browser sends; raises ValueError for anything else."""
    try:
        rows = state["pins"]
        if not isinstance(rows, list) or len(rows) > MOST_PINS:
            raise ValueError("a list of pins was expected")
        pins = [Pin(*(int(row[key]) for key in ("photo", "row", "column", "sign"))) for row in rows]
        threshold = float(state["threshold"])
        if not -2 <= threshold <= 2:  # also false for nan
            raise ValueError("a threshold from -2 to 2 was expected")
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValueError("the pins that came from the browser cannot be read; reload the page") from error
    return pins, threshold
