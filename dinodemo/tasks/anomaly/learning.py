"""From good photos to what is remembered of them: reading, patches of the object, and scores with one left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...io.images import ImageSource, Photo, as_photo
from ...io.uploads import photos_in
from .memory import nearest, top_mean
from .views import View, centres

MOST_GOOD = 100  # photos
MOST_LEFT_OUT = 30  # photos that the scale is calibrated on: enough for a mean and a deviation
MOST_COMPARED = 400  # patches of a photo that its distance to the others is judged by
LAYERS: tuple[float, ...] = ()  # depths of layers that are compared besides the last, as shares of the network
LEAST_RESOLUTION = 224
GoodPhotos = Sequence[ImageSource | Photo] | ImageSource | Photo


@dataclass(frozen=True, eq=False)
class Tokens:
    """One view of a photo: descriptors of its patches (h, w, L * D), and the last layer's tokens (h, w, D), float16."""

    described: np.ndarray
    last: np.ndarray


@dataclass(frozen=True, eq=False)
class Described:
    """Descriptors of one view's patches.

    Attributes:
        patches: (N, D) float16 of unit length, those of the object only.
        kept: (h, w) bool, where they lie.
    """

    patches: np.ndarray
    kept: np.ndarray

    def locations(self, view: View) -> np.ndarray:
        """Return where the patches lie on the photo that the view was made of: (N, 2) x and y from 0 to 1."""
        return view.back(centres(self.kept.shape)[self.kept.ravel()]).astype(np.float32)


def read_good(good: GoodPhotos) -> list[Photo]:
    """Read good photos: a sequence, a folder, or one; raises ValueError for none, too many, or an unreadable one."""
    if isinstance(good, str | Path) and Path(good).expanduser().is_dir():
        good = [path for path, _ in photos_in(Path(good).expanduser())]
    elif isinstance(good, str | Path | bytes | np.ndarray | Image.Image | Photo):
        good = [good]
    photos = [as_photo(one) for one in good]
    if not 1 <= len(photos) <= MOST_GOOD:
        raise ValueError(f"give 1 to {MOST_GOOD} good photos, got {len(photos)}")
    return photos


def fitting_resolution(photos: Sequence[Photo], most: int, patch: int) -> int:
    """Return the resolution for photos: the asked one, or less where that would only enlarge them.

    Args:
        photos: The good ones; the median of their sizes counts.
        most: What was asked for.
        patch: Side of a patch in pixels.
    """
    own = float(np.median([(photo.size[0] * photo.size[1]) ** 0.5 for photo in photos]))
    return int(min(most, max(LEAST_RESOLUTION, -(-own // patch) * patch)))


def layers_of(depth: int, layers: Sequence[int] | None) -> tuple[int, ...]:
    """Return which layers are compared; raises ValueError for none or one that a network of `depth` layers lacks."""
    if layers is None:
        return tuple(sorted({*(int(share * depth) for share in LAYERS), depth - 1}))
    if not layers or not all(isinstance(i, int | np.integer) and 0 <= i < depth for i in layers):
        raise ValueError(f"layers must be whole numbers from 0 to {depth - 1}, got {layers!r}")
    return tuple(int(i) for i in layers)


def leave_one_out(photos: Sequence[np.ndarray], memory: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Score good photos against the memory of the others.

    Args:
        photos: Patches (N, k) of each photo, in the memory's space.
        memory: (M, k) float32.
        owner: (M,) index of the photo that each row comes from.

    Returns:
        (n,) scores; nan for all but `MOST_LEFT_OUT` photos, evenly spread, and for those without patches.
    """
    scores = np.full(len(photos), np.nan)
    for i in np.unique(np.linspace(0, len(photos) - 1, min(len(photos), MOST_LEFT_OUT)).round().astype(int)):
        if len(photos[i]):
            scores[i] = top_mean(nearest(photos[i], memory, owner == i)[0])
    return scores


def gaps(photos: Sequence[np.ndarray]) -> np.ndarray:
    """Return the median distance (0 to 2) of each photo's unit descriptors (N, D) to the nearest on any other: (n,)."""
    few = [patches[:: max(1, len(patches) // MOST_COMPARED)].astype(np.float32) for patches in photos]  # BLAS
    every, owner = np.concatenate(few), np.concatenate([np.full(len(p), i) for i, p in enumerate(few)])
    if len(photos) < 2:
        return np.zeros(len(photos))
    return np.array(
        [np.median(nearest(patches, every, owner == i)[0]) for i, patches in enumerate(few) if len(patches)]
    )
