"""Depth from frozen tokens: the DINOv2 paper's linear probes, one's own or published."""

from ..base import Task, lazy

TASK = Task("depth", "Depth")
__getattr__ = lazy(
    __name__,
    {
        "LinearDepthHead": "head",
        "OFFICIAL_HEADS": "official",
        "fetch_official": "official",
        "official_heads": "official",
        "RGBDPair": "pairs",
        "read_pairs": "pairs",
        "DepthProbe": "probe",
    },
)
