"""From what was painted to a segmenter: which references count as the object, and which as not the object."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ...io.images import Photo
from .draw import Reference
from .grow import Grown, Paint
from .match import OBJECT
from .reference import ReferenceSegmenter

if TYPE_CHECKING:
    from ...web.services import Services

MOST_TARGETS = 50
DEFAULT_NAME = "object"


def fit(
    services: "Services",
    wanted: list[Reference],
    others: list[Reference],
    backbone: str,
    resolution: int,
    target: str = OBJECT,
    absent: Sequence[Photo] = (),
) -> ReferenceSegmenter:
    """Fit a segmenter on references.

    Args:
        services: of the app.
        wanted: references of the object; their "not this" paint is a negative.
        others: references of other objects, negatives too.
        backbone, resolution: what computes the features.
        target: see `ReferenceSegmenter`.
        absent: photos that do not show the object; they set the bound of the match.
    """
    segmenter = ReferenceSegmenter(services.pool.get(backbone), resolution=resolution, target=target)
    wanted, others = ([grown(segmenter, r) for r in references] for references in (wanted, others))
    pairs = [(r.photo, r.this) for r in wanted]
    negatives: list = [(r.photo, r.not_this) for r in wanted if r.not_this.any()]
    negatives += [(r.photo, r.this) for r in others]
    return segmenter.fit(pairs, negatives=[*negatives, *absent])


def from_box(photo: Photo, box: Sequence[float], name: str = DEFAULT_NAME) -> Reference:
    """Return a reference that a box x0, y0, x1, y1 in the photo's pixels is drawn on."""
    values = _numbers(box, "a box is x0, y0, x1, y1 in pixels")
    if len(values) != 4 or not (values[0] < values[2] and values[1] < values[3]):
        raise ValueError(f"a box is x0, y0, x1, y1 in pixels, with x0 < x1 and y0 < y1; got {list(box)}")
    height, width = photo.size
    if values[0] >= width or values[1] >= height or values[2] <= 0 or values[3] <= 0:
        raise ValueError(f"the box {list(box)} lies outside of {photo.name}, which is {width} x {height}")
    nothing = np.zeros(photo.size, bool)
    return Reference(photo, nothing, nothing, name, (values[0], values[1], values[2], values[3]), exact=False)


def from_points(photo: Photo, points: Sequence[Sequence[float]], name: str = DEFAULT_NAME) -> Reference:
    """Return a reference that was clicked at points (x, y) in the photo's pixels."""
    height, width = photo.size
    dots = np.zeros(photo.size, np.uint8)
    for point in points:
        values = _numbers(point, "a point is x, y in pixels")
        if len(values) != 2 or not (0 <= values[0] < width and 0 <= values[1] < height):
            raise ValueError(f"a point is x, y in pixels inside {photo.name} ({width} x {height}); got {list(point)}")
        cv2.circle(dots, (round(values[0]), round(values[1])), max(2, max(photo.size) // 150), 1, -1)
    if not dots.any():
        raise ValueError("no point is given; click the object at least once")
    return Reference(photo, dots > 0, np.zeros(photo.size, bool), name, exact=False)


def _numbers(values: Sequence[float], what: str) -> list[float]:
    if not isinstance(values, list | tuple) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in values
    ):
        raise ValueError(f"{what}; got {values!r}"[:200])
    return [float(v) for v in values]


def grown(segmenter: ReferenceSegmenter, reference: Reference) -> Reference:
    """Return a reference whose paint is grown to the object; an exact one stays as it is."""
    if reference.exact:
        return reference
    return replace(reference, this=object_of(segmenter, reference).mask, box=None, exact=True)


def object_of(segmenter: ReferenceSegmenter, reference: Reference) -> Grown:
    """Return the object that a reference's paint means."""
    return segmenter.grow(reference.photo, Paint(reference.this, reference.not_this, reference.box))
