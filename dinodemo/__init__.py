"""dinodemo: look at, use and adapt self-supervised vision features on one's own pictures."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine.engine import Engine
    from .engine.features import Features
    from .tasks.attention.maps import attention_map
    from .tasks.classify.classifier import PhotoClassifier
    from .tasks.depth.probe import DepthProbe
    from .tasks.matching import match
    from .tasks.pca.basis import PatchPCA
    from .tasks.probe import knn_classify, linear_probe
    from .tasks.retrieval.index import ImageIndex
    from .tasks.segmentation.reference import ReferenceSegmenter
    from .tasks.segmentation_head.head import SegmentationHead
    from .train.run import finetune

__version__ = "0.2.0"
__all__ = [
    "DepthProbe",
    "Engine",
    "Features",
    "ImageIndex",
    "PatchPCA",
    "PhotoClassifier",
    "ReferenceSegmenter",
    "SegmentationHead",
    "__version__",
    "attention_map",
    "finetune",
    "knn_classify",
    "linear_probe",
    "match",
]

# public name -> the module that has it; most bring torch, so each is imported when it is asked for
_HOMES = {
    "DepthProbe": "tasks.depth",
    "Engine": "engine",
    "Features": "engine",
    "ImageIndex": "tasks.retrieval",
    "PatchPCA": "tasks.pca",
    "PhotoClassifier": "tasks.classify",
    "ReferenceSegmenter": "tasks.segmentation",
    "SegmentationHead": "tasks.segmentation_head",
    "attention_map": "tasks.attention",
    "finetune": "train",
    "knn_classify": "tasks.probe",
    "linear_probe": "tasks.probe",
    "match": "tasks.matching",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'dinodemo' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
