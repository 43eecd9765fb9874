"""Reference-mask segmentation: draw a mask once, find the same thing in other pictures; nothing is trained."""

from .instances import Instance, Instances, find_instances
from .reference import Prediction, ReferenceSegmenter, Segmentation

__all__ = ["Instance", "Instances", "Prediction", "ReferenceSegmenter", "Segmentation", "find_instances"]
