"""Depth from frozen tokens: the DINOv2 paper's linear probes, one's own or published."""

from .head import LinearDepthHead
from .official import OFFICIAL_HEADS, fetch_official, official_heads
from .pairs import RGBDPair, read_pairs
from .probe import DepthProbe

__all__ = [
    "OFFICIAL_HEADS",
    "DepthProbe",
    "LinearDepthHead",
    "RGBDPair",
    "fetch_official",
    "official_heads",
    "read_pairs",
]
