"""Augmented views of a good photo, and where a point of a view lies on the photo."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CROP = 0.9  # side of a crop, as a share of the photo's


@dataclass(frozen=True)
class View:
    """One way to look at a photo.

    Attributes:
        pixels: Makes the view, (H', W', 3), from the photo (H, W, 3).
        back: Maps points of the view (..., 2), x and y from 0 to 1, to points of the photo.
    """

    pixels: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


def _turned(quarters: int) -> View:
    """Return the view that is turned counterclockwise by quarters of a circle."""

    def back(xy: np.ndarray) -> np.ndarray:
        x, y = xy[..., 0], xy[..., 1]
        return np.stack([(x, y), (1 - y, x), (1 - x, 1 - y), (y, 1 - x)][quarters], axis=-1)

    return View(lambda rgb: np.ascontiguousarray(np.rot90(rgb, quarters)), back)


def _mirrored(axis: int) -> View:
    """Return the view that is mirrored top to bottom (axis 0) or left to right (axis 1)."""
    signs = np.array([-1, 1] if axis == 1 else [1, -1], np.float32)
    offset = (1 - signs) / 2
    return View(lambda rgb: np.ascontiguousarray(np.flip(rgb, axis)), lambda xy: offset + signs * xy)


def _cropped(left: float, top: float) -> View:
    """Return the view of a crop whose upper left corner lies at shares `left`, `top` of the photo."""
    corner = np.array([left, top], np.float32)

    def pixels(rgb: np.ndarray) -> np.ndarray:
        height, width = rgb.shape[:2]
        x, y = int(left * width), int(top * height)
        return np.ascontiguousarray(rgb[y : y + max(1, int(CROP * height)), x : x + max(1, int(CROP * width))])

    return View(pixels, lambda xy: corner + CROP * xy)


PLAIN = View(lambda rgb: rgb, lambda xy: xy)
VIEWS: dict[str, tuple[View, ...]] = {
    "none": (PLAIN,),
    "flips": (PLAIN, _mirrored(1), _mirrored(0), _turned(2)),
    "rotations": (PLAIN, _turned(1), _turned(2), _turned(3)),
    "crops": (PLAIN, _cropped(0, 0), _cropped(1 - CROP, 0), _cropped(0, 1 - CROP), _cropped(1 - CROP, 1 - CROP)),
}


def centres(grid: tuple[int, int]) -> np.ndarray:
    """Return the centres of a grid's patches (h * w, 2): x and y from 0 to 1, row by row."""
    h, w = grid
    rows, columns = np.indices((h, w))
    return np.stack([(columns.ravel() + 0.5) / w, (rows.ravel() + 0.5) / h], axis=-1).astype(np.float32)
