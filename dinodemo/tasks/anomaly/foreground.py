"""Where the object is, when it does not fill the photo: the first principal component of good patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

SHARES = (0.03, 0.75)  # of a photo's patches: what covers less or more is no object on a background
BORDER = 0.1  # at most this share of the border's patches may belong to the object
APART = 0.82  # least share of the variance along the axis that the two groups explain; 0.75 where it is spread evenly
BINS = 256


@dataclass(frozen=True, eq=False)
class Foreground:
    """Object against background, as AnomalyDINO does it (arXiv:2405.14529, section 3.2).

    Attributes:
        mean: (D,) float32, the mean patch.
        axis: (D,) float32, the first component; the object lies on its positive side.
        threshold: Projections above it are object.
    """

    mean: np.ndarray
    axis: np.ndarray
    threshold: float

    @classmethod
    def fit(cls, grids: Sequence[np.ndarray]) -> Self | None:
        """Fit on the last layer's tokens (h, w, D) of good photos; None where no object stands out.

        An object is taken to be there when the first component splits the patches into two clear groups, one of which
        hardly touches the border, on nearly every photo.
        """
        patches = np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in grids]).astype(np.float32)
        mean = patches.mean(axis=0)
        centred = patches - mean
        axis = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1][:, -1].astype(np.float32)
        values = centred @ axis
        threshold, explained = split(values)
        border = np.concatenate([edge(grid.shape[:2]).ravel() for grid in grids])
        if (values[border] > threshold).mean() > 0.5:
            axis, threshold = -axis, -threshold
        found = cls(mean, axis, threshold)
        fits = [found._fits(grid) for grid in grids]
        return found if explained >= APART and np.mean(fits) >= 0.8 else None

    def mask(self, tokens: np.ndarray) -> np.ndarray:
        """Return where the object is, with one patch around it: (h, w) bool from tokens (h, w, D)."""
        return cv2.dilate(self._inside(tokens).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0

    def _inside(self, tokens: np.ndarray) -> np.ndarray:
        inside = (tokens.astype(np.float32) - self.mean) @ self.axis > self.threshold
        # holes are part of the object: a defect in its middle looks like background
        filled = inside.astype(np.uint8)
        contours, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        return cv2.drawContours(filled, contours, -1, 1, cv2.FILLED) > 0

    def _fits(self, tokens: np.ndarray) -> bool:
        inside = self._inside(tokens)
        return bool(SHARES[0] <= inside.mean() <= SHARES[1] and inside[edge(inside.shape)].mean() <= BORDER)


def edge(grid: tuple[int, int]) -> np.ndarray:
    """Return which patches of a grid lie at its border: (h, w) bool."""
    outer = np.ones(grid, bool)
    outer[1:-1, 1:-1] = False
    return outer


def split(values: np.ndarray) -> tuple[float, float]:
    """Return Otsu's threshold (1979) of values (N,) and the share of their variance that the two groups explain."""
    counts, edges = np.histogram(values, bins=BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    weight = np.cumsum(counts)[:-1].astype(np.float64)
    moment, total = np.cumsum(counts * middles)[:-1], len(values)
    mean = (counts * middles).sum() / total
    between = (mean * weight - moment) ** 2 / np.maximum(weight * (total - weight), 1)
    best = int(between.argmax())
    return float(edges[1:][best]), float(between[best] / max(values.var(), 1e-12))
