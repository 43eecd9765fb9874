"""The estimator: masks on reference pictures in, masks of the same object in other pictures out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...io.defaults import RESOLUTION
from ...io.files import resource_folder
from ...io.images import ImageSource, Photo, as_photo
from ..estimator import Estimator
from ..tokens import flat_unit, positional_basis_of, without
from .grow import Grown, Paint, grow
from .instances import Instances, find_instances
from .masks import as_mask, check_reference
from .match import BOUNDS, OBJECT, Whitening, bound_at, calibrated, state_of, whiten
from .refine import clean, follow_edges, to_pixels
from .scores import Memory, PatchScore, foreground_labels, match_cosine, reduce_by_area, score_patches

if TYPE_CHECKING:
    from ...engine.engine import Engine

Picture = ImageSource | Photo
DEFAULT_THRESHOLD = 0.5
MIN_PRESENCE = 0.5
ORDINARY_RESOLUTION = 224  # at which the example photos are seen whose tokens say what all photos share
CROP_MARGIN = 0.5  # of the object's longer side, around it, when a reference is seen once more from near
CROP_BELOW = 0.5  # share of the picture below which that is done


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Represent where the object is in one picture.

    Attributes:
        mask: (H, W) bool at the picture's own size; empty unless the object was found.
        score: (H, W) float32, 0 to 1, before the edges were refined.
        presence: 0 to 1, the match: how likely the object is in the picture at all.
        prediction: what it was made of.
        refine: whether masks follow the picture's edges.
        min_presence: from which presence on the object counts as found.
    """

    mask: np.ndarray
    score: np.ndarray
    presence: float
    prediction: Prediction
    refine: bool = True
    min_presence: float = MIN_PRESENCE

    def at(self, threshold: float, min_presence: float | None = None) -> np.ndarray:
        """Return the mask (H, W) bool at another threshold (0 to 1, higher means smaller), all else unchanged.

        Args:
            threshold: 0 to 1.
            min_presence: 0 to 1, another one than the segmenter's; 0 always paints.
        """
        return self.prediction.mask(threshold, self.refine, self.min_presence if min_presence is None else min_presence)

    @property
    def state(self) -> str:
        """Return "found", "unsure" (look at it: the mask is empty, `at(0.5, 0)` has the candidate) or "not here"."""
        return state_of(self.presence, self.min_presence)

    @property
    def found(self) -> bool:
        """Return whether anything was found."""
        return bool(self.mask.any())

    @cached_property
    def instances(self) -> Instances:
        """Return the separate objects of the mask, the largest first."""
        return find_instances(self.mask)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Represent what was computed once for a target, so that another threshold costs no features.

    Attributes:
        patches: the patches' scores.
        photo: the target.
    """

    patches: PatchScore
    photo: Photo

    @property
    def size(self) -> tuple[int, int]:
        """Return the picture's (H, W)."""
        return self.photo.size

    @property
    def presence(self) -> float:
        """Return how likely the object is in the picture, 0 to 1."""
        return self.patches.presence

    @cached_property
    def score(self) -> np.ndarray:
        """Return the score per pixel: (H, W) float32, 0 to 1."""
        return to_pixels(self.patches.score, self.size)

    def segment(
        self, threshold: float = DEFAULT_THRESHOLD, refine: bool = True, min_presence: float = MIN_PRESENCE
    ) -> Segmentation:
        """Return the segmentation at a threshold; see `mask`.

        Args:
            threshold: Of the score, 0 to 1.
            refine: Follow the photo's edges.
            min_presence: Below it nothing is painted, 0 to 1.
        """
        mask = self.mask(threshold, refine, min_presence)
        return Segmentation(mask, self.score, self.presence, self, refine, min_presence)

    def mask(
        self, threshold: float = DEFAULT_THRESHOLD, refine: bool = True, min_presence: float = MIN_PRESENCE
    ) -> np.ndarray:
        """Return the mask (H, W) bool at a threshold; an empty one when `presence` is below `min_presence`.

        Args:
            threshold: 0 to 1, higher means smaller.
            refine: let the mask follow the edges of the picture.
            min_presence: 0 to 1; 0 always paints.

        Raises:
            ValueError: for a threshold outside 0 to 1.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be from 0 to 1, got {threshold}")
        if self.presence < min_presence:
            return np.zeros(self.size, bool)
        if not refine:
            return self.score > threshold
        return clean(follow_edges(self.photo.rgb, self.patches.score, threshold))


class ReferenceSegmenter(Estimator):
    """Find in any picture what masks show on a few reference pictures; nothing is trained.

    Args:
        engine: an Engine.
        resolution: what the network sees, as in `Engine.features`.
        threshold: 0 to 1, higher means smaller masks.
        min_presence: a target whose presence is below it gets an empty mask; 0 always paints.
        refine: let masks follow the edges of the picture.
        target: "object" finds this very object; "kind" also others of its kind.

    Learned attributes: memory_ (the patches of all references and their labels), basis_ (see
    `tokens.positional_basis_of`), whitening_, backbone_ and identity_.
    """

    def __init__(
        self,
        engine: Engine,
        resolution: int = RESOLUTION,
        threshold: float = DEFAULT_THRESHOLD,
        min_presence: float = MIN_PRESENCE,
        refine: bool = True,
        target: str = OBJECT,
    ):
        self.engine, self.resolution = engine, resolution
        self.threshold, self.min_presence, self.refine, self.target = threshold, min_presence, refine, target

    def fit(
        self,
        references: Iterable[tuple[Picture, np.ndarray | Sequence[np.ndarray]]],
        negatives: Iterable[tuple[Picture, np.ndarray] | Picture] = (),
    ) -> ReferenceSegmenter:
        """Remember references and negatives.

        Args:
            references: [(image, mask or masks), ...]. Masks are (H, W) arrays of their picture's upright size, true or
                above 127 on the object, and taken as they are; for scribbles see `grow`. Masks on the same picture
                are united.
            negatives: [(image, mask) or image, ...]: "not this" of what the mask covers, or "it is not here" of the
                whole picture. The latter also set the bound of the match for these references.

        Returns:
            Self.

        Raises:
            ValueError: for a mask that is empty, full or of another size, with what to do.
        """
        if self.target not in BOUNDS:
            raise ValueError(f"target must be one of {', '.join(BOUNDS)}; got {self.target!r}")
        photos, masks = _unite(references)
        if not photos:
            raise ValueError("no reference given; draw a mask on at least one picture")
        self._prepare()
        self.whitening_ = ordinary(self.engine)
        parts = []
        for i, (photo, mask) in enumerate(zip(photos, masks, strict=True)):
            check_reference(mask, photo)
            parts += [self._remember(*view, i) for view in _views(photo, mask)]
        negatives = list(negatives)
        memory = self._memory(parts)
        absent = [negative for negative in negatives if not isinstance(negative, tuple)]
        bound = calibrated(
            bound_at(self.target, self.resolution), [self._cosine(one, memory) for one in absent], _among(memory)
        )
        parts += [self._remember_negative(negative) for negative in negatives]
        self.memory_ = replace(self._memory(parts), bound=bound)
        self.backbone_, self.identity_ = self.engine.backbone.name, getattr(self.engine, "identity", None)
        return self

    def predict(self, image: Picture) -> Segmentation:
        """Return the mask of one picture with the estimator's own settings; see `score` for a live threshold."""
        return self.score(image).segment(self.threshold, self.refine, self.min_presence)

    def score(self, image: Picture) -> Prediction:
        """Return all that does not depend on the threshold; `Prediction.segment` then gives masks."""
        if not hasattr(self, "memory_"):
            raise ValueError("nothing is fitted yet; call fit with at least one reference first")
        photo = as_photo(image)
        return Prediction(score_patches(self.tokens(photo), self.memory_), photo)

    def grow(self, image: Picture, paint: Paint) -> Grown:
        """Return the object on a picture that scribbles, clicks or a box mean; its mask can be given to `fit`.

        Args:
            image: The picture.
            paint: What was drawn on it.
        """
        photo = as_photo(image)
        if not hasattr(self, "basis_"):
            self._prepare()
        return grow(photo.rgb, self.tokens(photo), paint)

    def tokens(self, photo: Photo) -> np.ndarray:
        """Return a picture's patch tokens as they are compared: (h, w, D) float32, unit length, position removed."""
        return without(self.engine.features(photo, resolution=self.resolution).patches, self.basis_)

    def _prepare(self) -> None:
        self.basis_ = positional_basis_of(self.engine, self.resolution)

    def _memory(self, parts: list[tuple[np.ndarray, ...]]) -> Memory:
        tokens, labels, reference, foreground = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        shared = (self.whitening_, bound_at(self.target, self.resolution), self.target != OBJECT)
        return Memory(tokens, labels, reference, foreground, *shared)

    def _cosine(self, image: Picture, memory: Memory) -> float:
        return match_cosine(memory.whiten(self.tokens(as_photo(image))), memory)

    def _remember(self, photo: Photo, mask: np.ndarray, number: int) -> tuple[np.ndarray, ...]:
        patches = self.tokens(photo)
        labels, foreground = foreground_labels(reduce_by_area(mask, patches.shape[:2]).ravel())
        return flat_unit(patches), labels, np.full(len(labels), number), foreground

    def _remember_negative(self, negative: tuple[Picture, np.ndarray] | Picture) -> tuple[np.ndarray, ...]:
        image, mask = negative if isinstance(negative, tuple) else (negative, None)
        photo = as_photo(image)
        patches = self.tokens(photo)
        mask = np.ones(photo.size, bool) if mask is None else as_mask(mask, photo)
        if not mask.any():
            raise ValueError(f'the "not this" mask on {photo.name} is empty; paint it or leave it out')
        _, covered = foreground_labels(reduce_by_area(mask, patches.shape[:2]).ravel())
        tokens = flat_unit(patches)[covered]
        count = len(tokens)
        return tokens, np.zeros(count, np.float32), np.full(count, -1), np.zeros(count, bool)


def ordinary(engine: Engine) -> Whitening:
    """Return the whitening of an engine: by the tokens of the packaged example photos, at a low resolution."""
    basis = positional_basis_of(engine, ORDINARY_RESOLUTION)
    photos = sorted(resource_folder("assets").glob("*.jpg"))
    tokens = [without(engine.features(path, resolution=ORDINARY_RESOLUTION).patches, basis) for path in photos]
    return whiten(np.concatenate([flat_unit(one) for one in tokens]))


def _views(photo: Photo, mask: np.ndarray) -> list[tuple[Photo, np.ndarray]]:
    """Return a reference, and once more its part around a small object: seen from near it says more of it."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    reach = int(CROP_MARGIN * max(rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0])) + 8
    part = tuple(slice(max(0, at[0] - reach), at[-1] + 1 + reach) for at in (rows, columns))
    near = photo.rgb[part]
    if near.shape[0] * near.shape[1] >= CROP_BELOW * mask.size:
        return [(photo, mask)]
    return [(photo, mask), (Photo(np.ascontiguousarray(near), photo.name), mask[part])]


def _among(memory: Memory) -> list[float]:
    """Return how well the references find each other: none with fewer than two."""
    numbers = np.unique(memory.reference)
    found = []
    for i in numbers if len(numbers) > 1 else ():
        others = memory.foreground & (memory.reference != i)
        rest = replace(memory, foreground=others)
        found.append(match_cosine(memory.white[memory.reference == i], rest))
    return found


def _unite(references) -> tuple[list[Photo], list[np.ndarray]]:
    """Load the references; masks drawn on the same picture become one, or each would call the other background."""
    photos: dict[str, Photo] = {}
    masks: dict[str, np.ndarray] = {}
    for image, given in references:
        photo = as_photo(image)
        for one in given if isinstance(given, list | tuple) else [given]:
            mask = as_mask(one, photo)
            before = masks.get(photo.digest)
            photos[photo.digest], masks[photo.digest] = photo, mask if before is None else before | mask
    return list(photos.values()), list(masks.values())
