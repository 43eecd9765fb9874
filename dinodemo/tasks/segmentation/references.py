"""From what was painted to a segmenter: which references count as the object, and which as not the object."""

from typing import TYPE_CHECKING

from .draw import Reference
from .reference import ReferenceSegmenter

if TYPE_CHECKING:
    from ...web.services import Services

MOST_TARGETS = 50
DEFAULT_NAME = "thing"


def fit(
    services: "Services", wanted: list[Reference], others: list[Reference], backbone: str, resolution: int
) -> ReferenceSegmenter:
    """Fit a segmenter on references; "not this" is their paint of that kind and what shows other things."""
    pairs = [(r.photo, r.this) for r in wanted]
    negatives = [(r.photo, r.not_this) for r in wanted if r.not_this.any()]
    negatives += [(r.photo, r.this) for r in others]
    return ReferenceSegmenter(services.pool.get(backbone), resolution=resolution).fit(pairs, negatives=negatives)
