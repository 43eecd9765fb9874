"""Patch tokens small enough for a browser: unit vectors as int8, with fewer directions where there are many."""

import base64
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...engine.features import Features
from ...io.images import Photo, fit_within
from ...io.render import jpeg_url
from ..tokens import flat_unit, without

MOST_PHOTOS = 8
MOST_BYTES = 8_000_000  # of all photos' tokens
MOST_ERROR = 0.02  # of a cosine
SHOWN_SIDE = 896  # pixels of the pictures
PROBES = 97  # tokens whose cosines to all others are compared with the exact ones
_versions = itertools.count(1)


@dataclass(frozen=True, eq=False)
class Packed:
    """Int8 tokens of some photos; the cosine of two of them is the cosine of the originals to `error`.

    Attributes:
        tokens: one (h, w, k) int8 a photo; k is the same for all. Each token has a scale of its own.
        error: largest difference from an exact cosine among those that were checked.
    """

    tokens: tuple[np.ndarray, ...]
    error: float


def pack(features: Sequence[Features], basis: np.ndarray | None = None, most_bytes: int = MOST_BYTES) -> Packed:
    """Quantise the patch tokens of photos so that a browser can compare them.

    Where D directions would take more than `most_bytes`, tokens are projected on the leading ones of all of them.

    Args:
        features: of photos, from one backbone.
        basis: directions of position (D, n) that are taken out first, see `tokens.positional_basis_of`.
        most_bytes: of all tokens together.

    Returns:
        The tokens as a browser takes them.

    Raises:
        ValueError: for no photo, several backbones, or where cosines would be off by more than 0.02.
    """
    if not features:
        raise ValueError("there are no photos to look at; give at least one")
    if len(names := sorted({f.backbone for f in features})) > 1:
        raise ValueError(f"photos must share one backbone, these come from {', '.join(names)}")
    exact = np.concatenate([flat_unit(f.patches if basis is None else without(f.patches, basis)) for f in features])
    width = min(exact.shape[1], most_bytes // len(exact))
    small = exact if width == exact.shape[1] else _project(exact, width)
    scale = np.maximum(np.abs(small).max(axis=1, keepdims=True), 1e-12)
    tokens = np.rint(127 * small / scale).astype(np.int8)
    error = _error(exact, tokens)
    if error > MOST_ERROR:
        raise ValueError(
            f"{len(exact)} patches are too many to compare in a browser; lower the input size or give fewer photos"
        )
    ends = np.cumsum([f.grid[0] * f.grid[1] for f in features])[:-1]
    parts = np.split(tokens, ends)
    return Packed(tuple(part.reshape(*f.grid, width) for part, f in zip(parts, features, strict=True)), error)


def lens_value(photos: Sequence[Photo], packed: Packed | None) -> dict:
    """Return what the browser's side of the lens is given: pictures and tokens as text.

    Args:
        photos: In the order of the tokens.
        packed: Of `pack`; None for an empty lens.
    """
    rows = []
    for photo, tokens in zip(photos, packed.tokens if packed else (), strict=True):
        row = {"name": photo.name, "size": list(photo.size), "grid": list(tokens.shape[:2])}
        row |= {
            "picture": jpeg_url(fit_within(photo.rgb, SHOWN_SIDE), quality=88),
            "tokens": base64.b64encode(tokens.tobytes()).decode(),
        }
        rows.append(row)
    width = packed.tokens[0].shape[2] if packed else 0
    return {"version": next(_versions), "width": width, "photos": rows}


def _project(tokens: np.ndarray, width: int) -> np.ndarray:
    _, directions = np.linalg.eigh(tokens.T @ tokens)  # ascending
    return tokens @ directions[:, ::-1][:, : max(width, 1)]


def _error(exact: np.ndarray, tokens: np.ndarray) -> float:
    chosen = np.linspace(0, len(exact) - 1, min(PROBES, len(exact))).round().astype(int)
    near = tokens.astype(np.float32)
    near /= np.maximum(np.linalg.norm(near, axis=1, keepdims=True), 1e-12)
    return float(np.abs(exact[chosen] @ exact.T - near[chosen] @ near.T).max())
