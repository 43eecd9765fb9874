"""Reference-mask segmentation: draw a mask once, find the same thing in other pictures; nothing is trained."""

from .instances import Instance, Instances, find_instances
from .reference import DEFAULT_THRESHOLD, Prediction, ReferenceSegmenter, Segmentation

__all__ = [
    "DEFAULT_THRESHOLD",
    "Instance",
    "Instances",
    "Prediction",
    "ReferenceSegmenter",
    "Segmentation",
    "find_instances",
]
