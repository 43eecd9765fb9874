"""Arithmetic on tokens that several tasks share: unit length, nearest pairs, and removing the positional part."""

from typing import TYPE_CHECKING

import numpy as np

from ..io.vectors import unit as unit  # tasks have it from here

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.features import Features

POSITIONAL = 10  # directions that encode where a patch lies rather than what it shows
BLANK = np.zeros((64, 64, 3), np.uint8)


def flat_unit(tokens: np.ndarray) -> np.ndarray:
    """Return tokens (..., D) at unit length, as (N, D) float32."""
    return unit(tokens.reshape(-1, tokens.shape[-1]).astype(np.float32, copy=False))


def centred(tokens: np.ndarray) -> np.ndarray:
    """Return tokens (..., D) less their mean, at unit length: (N, D)."""
    flat = tokens.reshape(-1, tokens.shape[-1])
    return unit(flat - flat.mean(axis=0))


def mutual_nearest(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of rows and columns that are each other's nearest in a matrix of cosines (N, M).

    "Best buddies" of Dekel et al. 2015 (arXiv:1502.03327).
    """
    forth, back = cosines.argmax(axis=1), cosines.argmax(axis=0)
    rows = np.flatnonzero(back[forth] == np.arange(len(forth)))
    return rows, forth[rows]


def positional_basis_of(engine: "Engine", resolution: int) -> np.ndarray:
    """Return an engine's positional basis (D, k), from its tokens of a black picture.

    Args:
        engine: Runs the backbone.
        resolution: px.
    """
    return positional_basis(engine.features(BLANK, resolution=resolution).patches)


def positional_basis(blank: np.ndarray) -> np.ndarray:
    """Return the directions (D, k) along which the tokens (h, w, D) of a blank picture vary.

    Tokens of a blank picture differ in their position alone (as in INSID3, arXiv:2603.28480).
    """
    return np.linalg.svd(flat_unit(blank), full_matrices=False)[2][:POSITIONAL].T.copy()


def without(tokens: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return tokens without the directions of a basis, at unit length.

    Args:
        tokens: (h, w, D).
        basis: (D, k), orthonormal.
    """
    flat = flat_unit(tokens)
    return unit(flat - (flat @ basis) @ basis.T).reshape(tokens.shape)


def patch_at(f: "Features", x: float, y: float) -> tuple[int, int]:
    """Return the (row, column) of the patch under a point of the upright picture.

    Args:
        f: Features of the picture.
        x: 0 to 1 from left to right.
        y: 0 to 1 from top to bottom.
    """
    h, w = f.grid
    return min(max(int(y * h), 0), h - 1), min(max(int(x * w), 0), w - 1)
