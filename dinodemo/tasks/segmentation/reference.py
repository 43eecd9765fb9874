"""The estimator: masks on reference pictures in, masks of the same thing in other pictures out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...io.images import ImageSource, Photo, load_photo
from ..estimator import Estimator
from ..tokens import flat_unit, positional_basis_of, without
from .instances import Instances, find_instances
from .masks import as_mask, check_reference
from .refine import follow_edges, to_pixels
from .scores import (
    Memory,
    PatchScore,
    foreground_labels,
    reduce_by_area,
    score_patches,
)

if TYPE_CHECKING:
    from ...engine.engine import Engine

Picture = ImageSource | Photo
DEFAULT_THRESHOLD = 0.5
MIN_PRESENCE = 0.5
SURE_PRESENCE = 0.9  # below it, a found thing may well be another


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Hold where the thing is in one picture."""

    mask: np.ndarray  # (H, W) bool at the picture's own size
    score: np.ndarray  # (H, W) float32, 0 to 1, before the edges were refined
    presence: float  # 0 to 1: how likely the thing is in the picture at all
    prediction: Prediction  # what it was made of
    refine: bool = True
    min_presence: float = MIN_PRESENCE

    def at(self, threshold: float, min_presence: float | None = None) -> np.ndarray:
        """Return the mask (H, W) bool at another threshold (0 to 1, higher means smaller), all else unchanged.

        min_presence: 0 to 1, another one than the segmenter's.
        """
        return self.prediction.mask(threshold, self.refine, self.min_presence if min_presence is None else min_presence)

    @property
    def found(self) -> bool:
        """Tell whether anything was found."""
        return bool(self.mask.any())

    @cached_property
    def instances(self) -> Instances:
        """Return the separate pieces of the mask, the largest first."""
        return find_instances(self.mask)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Hold what was computed once for a target, so that another threshold costs no features."""

    patches: PatchScore
    photo: Photo

    @property
    def size(self) -> tuple[int, int]:
        """Return the picture's (H, W)."""
        return self.photo.size

    @property
    def presence(self) -> float:
        """Return how likely the thing is in the picture, 0 to 1."""
        return self.patches.presence

    @cached_property
    def score(self) -> np.ndarray:
        """Return the score per pixel: (H, W) float32, 0 to 1."""
        return to_pixels(self.patches.score, self.size)

    def segment(
        self, threshold: float = DEFAULT_THRESHOLD, refine: bool = True, min_presence: float = MIN_PRESENCE
    ) -> Segmentation:
        """Return the segmentation at a threshold; see `mask`."""
        mask = self.mask(threshold, refine, min_presence)
        return Segmentation(mask, self.score, self.presence, self, refine, min_presence)

    def mask(
        self, threshold: float = DEFAULT_THRESHOLD, refine: bool = True, min_presence: float = MIN_PRESENCE
    ) -> np.ndarray:
        """Return the mask (H, W) bool at a threshold (0 to 1); an empty one when `presence` is below `min_presence`.

        refine: let the mask follow the edges of the picture. Raises ValueError for a threshold outside 0 to 1.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be from 0 to 1, got {threshold}")
        if self.presence < min_presence:
            return np.zeros(self.size, bool)
        if not refine:
            return self.score > threshold
        return follow_edges(self.photo.rgb, self.patches.score, threshold)


class ReferenceSegmenter(Estimator):
    """Find in any picture what masks show on a few reference pictures; nothing is trained.

    engine: an Engine. resolution: what the network sees, as in `Engine.features`. threshold: 0 to 1, higher means
    smaller masks. min_presence: a target whose presence is below it gets an empty mask; 0 always paints.
    refine: let masks follow the edges of the picture.

    Learned: memory_ (the patches of all references and their labels), basis_ (see `tokens.positional_basis_of`) and
    backbone_.
    """

    def __init__(
        self,
        engine: Engine,
        resolution: int = 518,
        threshold: float = DEFAULT_THRESHOLD,
        min_presence: float = MIN_PRESENCE,
        refine: bool = True,
    ):
        self.engine, self.resolution = engine, resolution
        self.threshold, self.min_presence, self.refine = threshold, min_presence, refine

    def fit(
        self,
        references: Iterable[tuple[Picture, np.ndarray | Sequence[np.ndarray]]],
        negatives: Iterable[tuple[Picture, np.ndarray] | Picture] = (),
    ) -> ReferenceSegmenter:
        """Remember references [(image, mask or masks), ...] and negatives [(image, mask) or image, ...].

        Masks are (H, W) arrays of their picture's upright size, true or above 127 on the thing. A negative says
        "not this" of what its mask covers, or of the whole picture. Masks on the same picture are united.
        Raises ValueError, with what to do, for a mask that is empty, full or of another size.
        """
        photos, masks = _unite(references)
        if not photos:
            raise ValueError("no reference given; draw a mask on at least one picture")
        self.basis_ = positional_basis_of(self.engine, self.resolution)
        parts = []
        for i, (photo, mask) in enumerate(zip(photos, masks, strict=True)):
            check_reference(mask, photo)
            parts.append(self._remember(photo, mask, i))
        parts += [self._remember_negative(negative) for negative in negatives]
        self.memory_ = Memory(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        self.backbone_ = self.engine.backbone.name
        return self

    def predict(self, image: Picture) -> Segmentation:
        """Segment one picture with the estimator's own settings; see `score` for a live threshold."""
        return self.score(image).segment(self.threshold, self.refine, self.min_presence)

    def score(self, image: Picture) -> Prediction:
        """Compute all that does not depend on the threshold; `Prediction.segment` then gives masks."""
        if not hasattr(self, "memory_"):
            raise ValueError("nothing is fitted yet; call fit with at least one reference first")
        photo = image if isinstance(image, Photo) else load_photo(image)
        return Prediction(score_patches(self.tokens(photo), self.memory_), photo)

    def tokens(self, photo: Photo) -> np.ndarray:
        """Return a picture's patch tokens as they are compared: (h, w, D) float32, unit length, place removed."""
        return without(self.engine.features(photo, resolution=self.resolution).patches, self.basis_)

    def _remember(self, photo: Photo, mask: np.ndarray, number: int) -> tuple[np.ndarray, ...]:
        patches = self.tokens(photo)
        labels, foreground = foreground_labels(reduce_by_area(mask, patches.shape[:2]).ravel())
        return flat_unit(patches), labels, np.full(len(labels), number), foreground

    def _remember_negative(self, negative: tuple[Picture, np.ndarray] | Picture) -> tuple[np.ndarray, ...]:
        image, mask = negative if isinstance(negative, tuple) else (negative, None)
        photo = image if isinstance(image, Photo) else load_photo(image)
        patches = self.tokens(photo)
        mask = np.ones(photo.size, bool) if mask is None else as_mask(mask, photo)
        if not mask.any():
            raise ValueError(f'the "not this" mask on {photo.name} is empty; paint it or leave it out')
        _, covered = foreground_labels(reduce_by_area(mask, patches.shape[:2]).ravel())
        tokens = flat_unit(patches)[covered]
        count = len(tokens)
        return tokens, np.zeros(count, np.float32), np.full(count, -1), np.zeros(count, bool)


def _unite(references) -> tuple[list[Photo], list[np.ndarray]]:
    """Load the references; masks drawn on the same picture become one, or each would call the other background."""
    photos: dict[str, Photo] = {}
    masks: dict[str, np.ndarray] = {}
    for image, given in references:
        photo = image if isinstance(image, Photo) else load_photo(image)
        for one in given if isinstance(given, list | tuple) else [given]:
            mask = as_mask(one, photo)
            before = masks.get(photo.digest)
            photos[photo.digest], masks[photo.digest] = photo, mask if before is None else before | mask
    return list(photos.values()), list(masks.values())
