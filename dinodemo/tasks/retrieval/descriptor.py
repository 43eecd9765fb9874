"""One vector a photo: which tokens it is made of, and how the photo is laid before the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ...io.images import Photo, resize
from ..tokens import unit

if TYPE_CHECKING:
    from ...backbones import Backbone
    from ...engine.engine import Engine

GEM_POWER = 3.0
DESCRIPTORS = ("cls", "cls11", "gem", "cls+gem", "cls+cls11")
DEFAULT_DESCRIPTOR = "cls"


def input_side(resolution: int, patch_size: int) -> int:
    """Return a resolution rounded to whole patches, px.

    Args:
        resolution: Wanted side, px.
        patch_size: Of the backbone, px.
    """
    if not 2 * patch_size <= resolution <= 4096:
        raise ValueError(f"resolution must lie between {2 * patch_size} and 4096, got {resolution!r}")
    return round(resolution / patch_size) * patch_size


def squash(rgb: np.ndarray, side: int, name: str = "picture") -> Photo:
    """Return a photo resized to a square, whatever its shape: photos of one size run in one batch.

    Args:
        rgb: (H, W, 3) uint8.
        side: Of the square, px.
        name: Of the photo.
    """
    small = np.array(resize(rgb, (side, side)))
    small.flags.writeable = False
    return Photo(small, name)


def default_descriptor(backbone: Backbone) -> str:
    """Return the descriptor that serves a backbone best, by its row of the registry."""
    return backbone.descriptor


def descriptor_width(backbone: Backbone, descriptor: str) -> int:
    """Return the length of a descriptor's vectors.

    Args:
        backbone: Gives the width of a token.
        descriptor: As for `describe`.

    Raises:
        ValueError: The descriptor is unknown.
    """
    if descriptor not in DESCRIPTORS:
        raise ValueError(f"descriptor must be one of {', '.join(DESCRIPTORS)}, got {descriptor!r}")
    return backbone.width * (descriptor.count("+") + 1)


def describe(
    engine: Engine, photos: Iterable[Photo], resolution: int, descriptor: str = DEFAULT_DESCRIPTOR
) -> Iterator[np.ndarray]:
    """Yield a unit vector (D,) float32 for each squashed photo, in order.

    Args:
        engine: Computes the tokens; what needs the last layer only runs in batches.
        photos: Squashed.
        resolution: Their side, px.
        descriptor: Parts of equal weight joined by "+". "cls" and "cls11": the class token of the last layer and of the
            one before, after the final norm. "gem": the patches' generalised mean.
    """
    parts = descriptor.split("+")
    if "cls11" not in parts:
        for features in engine.features_batch(photos, resolution=resolution):
            if isinstance(features, Exception):
                raise features
            yield _join([features.cls if part == "cls" else gem(features.patches) for part in parts])
        return
    for photo in photos:
        yield describe_one(engine, photo, resolution, descriptor)


def describe_one(engine: Engine, photo: Photo, resolution: int, descriptor: str) -> np.ndarray:
    """Return the vector of one squashed photo as `describe` does, from the engine's cache when it is there.

    Args:
        engine: Computes the tokens.
        photo: Squashed.
        resolution: Its side, px.
        descriptor: As for `describe`.

    Returns:
        (D,) float32, unit length.
    """
    parts = descriptor.split("+")
    if "cls11" in parts:
        (before, _), (cls, patches) = engine.layers(photo, (-2, -1), resolution=resolution)
        tokens = {"cls11": before, "cls": cls}
    else:
        features = engine.features(photo, resolution=resolution)
        tokens, patches = {"cls": features.cls}, features.patches
    return _join([gem(patches) if part == "gem" else tokens[part] for part in parts])


def gem(patches: np.ndarray, power: float = GEM_POWER) -> np.ndarray:
    """Return the generalised mean of the patches' positive parts (Radenović et al. 2018, eq. 3).

    Args:
        patches: (..., D).
        power: 1 is the mean; the larger, the more the greatest count.

    Returns:
        (D,).
    """
    positive = np.clip(patches.reshape(-1, patches.shape[-1]), 1e-6, None)
    return (positive**power).mean(axis=0) ** (1 / power)


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return unit(np.concatenate([unit(part) for part in parts])).astype(np.float32)
