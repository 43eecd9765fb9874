"""Few-shot anomaly detection: a memory of the patches of good photos; what has no near one there is an anomaly.

The recipe of PatchCore (Roth et al. 2022, arXiv:2106.08265) with tokens of a vision transformer as in AnomalyDINO
(Damm et al. 2025, arXiv:2405.14529), own code. Scores and maps are in units of the *line*: what the good photos score
against each other, and a little more. 1 means the same for every photo of a set, so no map is ever stretched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...io.files import write_file
from ...io.images import ImageSource, Photo, fit_within
from ...io.render import enlarge
from .. import base as shared
from ..base import Option
from ..estimator import Estimator
from . import store
from .calibration import line_of, warnings
from .foreground import Foreground
from .learning import (
    Described,
    GoodPhotos,
    Tokens,
    as_photo,
    fitting_resolution,
    gaps,
    layers_of,
    leave_one_out,
    read_good,
)
from .memory import Space, coreset, describe, nearest, top_mean
from .views import PLAIN, VIEWS, View

if TYPE_CHECKING:
    from ...engine.engine import Engine

MOST_PATCHES = 50_000  # of the memory; above that a coreset
DIMENSIONS = 128
LEAST_LINE = 1e-3  # good photos that are copies of one another would leave no room at all
THUMB_SIDE = 256  # pixels of the good photos that are kept to show where a patch came from
RESOLUTION = shared.RESOLUTION
AUGMENT = Option(
    "augment", "none", "Augment good photos", "also remember flips, quarter turns or crops", choices=tuple(VIEWS)
)
FOREGROUND = Option(
    "foreground",
    "auto",
    "Only the object",
    "leave the background out: auto does where an object clearly stands out",
    choices=("auto", "off"),
)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Anomaly:
    """What a detector says of one photo. 1 is the line up to which good photos reach.

    Attributes:
        score: Mean of the highest 1 % of `patches`, of three at most; above 1 the photo is an anomaly.
        patches: (h, w) float32, distance of each patch to the nearest good one; 0 off the object.
        neighbours: (h, w) int32, index of the nearest patch in the memory.
        image_size: (H, W) of the photo.
    """

    score: float
    patches: np.ndarray
    neighbours: np.ndarray
    image_size: tuple[int, int]

    @cached_property
    def map(self) -> np.ndarray:
        """Return the map at the photo's size: (H, W) float32, from 0."""
        return np.maximum(enlarge(self.patches, self.image_size), 0)

    @property
    def verdict(self) -> str:
        """Return "good" or "anomaly": on which side of the calibrated line the score lies."""
        return self.verdict_at(1.0)

    @property
    def mask(self) -> np.ndarray:
        """Return where the map is above the calibrated line: (H, W) bool."""
        return self.at(1.0)

    def verdict_at(self, line: float) -> str:
        """Return the verdict for another line, in units of the calibrated one."""
        return "anomaly" if self.score > line else "good"

    def at(self, line: float = 1.0, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return where the map is above the line, (H, W) bool; nowhere on a photo that is good.

        Args:
            line: In units of the calibrated one.
            size: (H, W) of the mask; None for the photo's own.
        """
        size = size or self.image_size
        return enlarge(self.patches, size) > line if self.score > line else np.zeros(size, bool)


@dataclass(frozen=True)
class Neighbour:
    """The good patch nearest to one of a checked photo.

    Attributes:
        patch: (row, column) on the checked photo.
        distance: Between the two; 1 is the line.
        photo: Index of the good photo.
        place: x and y of the good patch's middle on it, from 0 to 1.
    """

    patch: tuple[int, int]
    distance: float
    photo: int
    location: tuple[float, float]


class AnomalyDetector(Estimator):
    """Learn what good photos look like, and score others by what is unlike all of them.

    Args:
        engine: The network that makes the features.
        resolution: It sees about this number squared of pixels, and no more than the good photos have.
        augment: "none", "flips", "rotations" or "crops": also remember such views of the good photos.
        foreground: "auto" leaves the background out where an object clearly stands out, "off" never does.
        layers: Layers whose tokens are compared, from 0; None for the last one.
        max_patches: Size of the memory; more good patches than that become a coreset.

    Learned: memory_ (M, k) float32, owner_ (M,) index of the good photo of each patch, place_ (M, 2) its x and y there,
    space_, foreground_, line_ (in the memory's units), good_scores_ leave-one-out scores in units of the line,
    resolution_ (in use), warnings_, names_, thumbs_, backbone_.
    """

    memory_: np.ndarray
    owner_: np.ndarray
    location_: np.ndarray

    def __init__(
        self,
        engine: "Engine",
        resolution: int = RESOLUTION.default,
        augment: str = AUGMENT.default,
        foreground: str = FOREGROUND.default,
        layers: tuple[int, ...] | None = None,
        max_patches: int = MOST_PATCHES,
    ):
        self.engine, self.resolution, self.augment = engine, resolution, augment
        self.foreground, self.layers, self.max_patches = foreground, layers, max_patches

    def fit(self, good: GoodPhotos, progress: Progress | None = None) -> Self:
        """Learn from good photos.

        Args:
            good: 1 to 100 photos (paths, bytes, PIL, (H, W, 3) uint8 or Photo), or a folder of them.
            progress: Called as progress(done, total) after each photo.

        Returns:
            Self.

        Raises:
            ValueError: For no photos, too many, one that cannot be read, or parameters out of range.
        """
        photos = read_good(good)
        views = VIEWS[AUGMENT.check(self.augment)]
        FOREGROUND.check(self.foreground)
        layers_of(self.engine.backbone.depth, self.layers)
        self.resolution_ = fitting_resolution(photos, self.resolution, self.engine.backbone.patch_size)
        seen = []
        for i, photo in enumerate(photos, start=1):
            seen.append([self._tokens(photo, view) for view in views])
            if progress:
                progress(i, len(photos))
        self.foreground_ = Foreground.fit([tokens[0].last for tokens in seen]) if self.foreground == "auto" else None
        self.names_, self.backbone_ = [photo.name for photo in photos], self.engine.backbone.name
        self.thumbs_ = [fit_within(photo.rgb, THUMB_SIDE) for photo in photos]
        described = [[self._describe(one) for one in tokens] for tokens in seen]
        self._remember(described, views)
        self._calibrate(photos, [ones[0].patches for ones in described])
        return self

    def predict(self, image: ImageSource | Photo) -> Anomaly:
        """Return the score of one photo; raises ValueError when it cannot be read, or nothing was learned yet."""
        check_fitted(self)
        photo = as_photo(image)
        described = self._describe(self._tokens(photo, PLAIN))
        kept = described.kept
        patches, neighbours = np.zeros(kept.shape, np.float32), np.zeros(kept.shape, np.int32)
        if kept.any():
            patches[kept], neighbours[kept] = nearest(self.space_(described.patches), self.memory_)
        patches /= self.line_
        return Anomaly(top_mean(patches[kept]) if kept.any() else 0.0, patches, neighbours, photo.size)

    def add(self, image: ImageSource | Photo) -> Self:
        """Add one more good photo and return self; the scale and the line stay as they are."""
        check_fitted(self)
        photo = as_photo(image)
        described = self._describe(self._tokens(photo, PLAIN))
        new = self.space_(described.patches)
        self.memory_ = np.concatenate([self.memory_, new])
        self.owner_ = np.concatenate([self.owner_, np.full(len(new), len(self.names_), np.int32)])
        self.location_ = np.concatenate([self.location_, described.locations(PLAIN)])
        self.names_, self.thumbs_ = [*self.names_, photo.name], [*self.thumbs_, fit_within(photo.rgb, THUMB_SIDE)]
        self._thin()
        return self

    def nearest(self, result: Anomaly, x: float, y: float) -> Neighbour:
        """Return the good patch nearest to the patch under a point of a checked photo.

        Args:
            result: Of `predict`.
            x: 0 to 1 from left to right.
            y: 0 to 1 from top to bottom.
        """
        check_fitted(self)
        h, w = result.patches.shape
        row, column = min(max(int(y * h), 0), h - 1), min(max(int(x * w), 0), w - 1)
        index = int(result.neighbours[row, column])
        location = (float(self.location_[index, 0]), float(self.location_[index, 1]))
        return Neighbour((row, column), float(result.patches[row, column]), int(self.owner_[index]), location)

    def _tokens(self, photo: Photo, view: View) -> Tokens:
        depth = self.engine.backbone.depth
        seen = photo if view is PLAIN else Photo(view.pixels(photo.rgb), photo.name)
        wanted = (*layers_of(depth, self.layers), depth - 1)
        layers = [patches for _, patches in self.engine.layers(seen, wanted, self.resolution_)]
        # half precision: a hundred photos with all their views are kept until the space is fitted
        return Tokens(describe(layers[:-1]).astype(np.float16), layers[-1].astype(np.float16))

    def _describe(self, tokens: Tokens) -> Described:
        kept = np.ones(tokens.last.shape[:2], bool) if self.foreground_ is None else self.foreground_.mask(tokens.last)
        return Described(tokens.described[kept], kept)

    def _remember(self, seen: list[list[Described]], views: Sequence[View]) -> None:
        """Fill the memory with what was seen of each photo in each view, and calibrate the scale on it."""
        flat = [(i, one, view) for i, ones in enumerate(seen) for one, view in zip(ones, views, strict=True)]
        every = np.concatenate([one.patches for _, one, _ in flat])
        self.space_ = Space.fit(every, DIMENSIONS)
        self.memory_ = self.space_(every)
        self.owner_ = np.concatenate([np.full(len(one.patches), i, np.int32) for i, one, _ in flat])
        self.location_ = np.concatenate([one.locations(view) for _, one, view in flat])
        self._thin()

    def _calibrate(self, photos: Sequence[Photo], plain: Sequence[np.ndarray]) -> None:
        """Fix the scale by what good photos score against each other; one alone is scored against its own views."""
        patches, memory, owner = [self.space_(p) for p in plain], self.memory_, self.owner_
        if len(photos) == 1:
            mirrored = [self._describe(self._tokens(photos[0], view)).patches for view in VIEWS["flips"][1:]]
            memory = self.space_(np.concatenate(mirrored))
            owner = np.full(len(memory), 1)
        raw = leave_one_out(patches, memory, owner)
        self.line_ = max(line_of(raw, alone=len(photos) == 1), LEAST_LINE)
        self.good_scores_ = raw[np.isfinite(raw)] / self.line_
        self.warnings_ = warnings(raw, gaps(plain), self.names_)

    def _thin(self) -> None:
        kept = coreset(self.memory_, self.max_patches)
        if len(kept) < len(self.memory_):
            self.memory_, self.owner_, self.location_ = self.memory_[kept], self.owner_[kept], self.location_[kept]

    def card(self) -> dict[str, Any]:
        """Return what a person should know of the set, and what `load` needs; raises ValueError before `fit`."""
        check_fitted(self)
        return store.card_of(self)

    def to_bytes(self) -> bytes:
        """Return the learned set as a safetensors file with its card."""
        check_fitted(self)
        return store.pack(self)

    def save(self, path: str | Path) -> None:
        """Write the learned set as safetensors with its card; small copies of the good photos are part of it."""
        write_file(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path, engine: "Engine") -> "AnomalyDetector":
        """Return a set that `save` wrote.

        Args:
            path: The file.
            engine: Must run the backbone that the set was learned with.

        Raises:
            ValueError: For any other file, or another backbone.
        """
        return store.unpack(cls, Path(path), engine)


def check_fitted(detector: AnomalyDetector) -> None:
    """Raise ValueError when nothing was learned yet."""
    if not hasattr(detector, "memory_"):
        raise ValueError("nothing was learned yet; call fit with good photos, or load a set")
