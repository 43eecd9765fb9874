"""Arithmetic on patch tokens that several tasks share: unit length, and taking out where a patch lies."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..engine.engine import Engine

POSITIONAL = 10  # directions that say where a patch lies rather than what it shows
BLANK = np.zeros((64, 64, 3), np.uint8)


def unit(tokens: np.ndarray) -> np.ndarray:
    """Scale (..., D) tokens to unit length and flatten them to (N, D) float32."""
    flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float32, copy=False)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def place_of(engine: "Engine", resolution: int) -> np.ndarray:
    """Return an engine's directions of place (D, k) at a resolution, from its tokens of a black picture."""
    return positional_basis(engine.features(BLANK, resolution=resolution).patches)


def positional_basis(blank: np.ndarray) -> np.ndarray:
    """Return the directions (D, k) along which the tokens (h, w, D) of a picture that shows nothing lie.

    What such a picture's tokens differ in is their place (as in INSID3, arXiv:2603.28480).
    """
    return np.linalg.svd(unit(blank), full_matrices=False)[2][:POSITIONAL].T.copy()


def without(tokens: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Take the directions of a basis (D, k) out of tokens (h, w, D); returns unit tokens of the same shape."""
    flat = unit(tokens)
    return unit(flat - (flat @ basis) @ basis.T).reshape(tokens.shape)
