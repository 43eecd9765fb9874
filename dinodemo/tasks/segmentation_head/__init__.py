"""A small head on frozen patch tokens: trained from a few masks, measured, saved, applied to any picture."""

from .head import SegmentationHead, SegmentationResult
from .pairs import read_pairs

__all__ = ["SegmentationHead", "SegmentationResult", "read_pairs"]
