"""A small head on frozen patch tokens: trained from a few masks, measured, saved, applied to any picture."""

from ..base import lazy

__getattr__ = lazy(
    __name__,
    {"SegmentationHead": "head", "SegmentationResult": "head", "read_dataset": "pairs", "read_pairs": "pairs"},
)
