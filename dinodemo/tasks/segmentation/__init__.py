"""Reference-mask segmentation: mark an object once, find it in other pictures; nothing is trained.

`grow` takes paint to the object, `scores` spreads the reference's labels to a target's patches, `match` says whether
the object is there at all, `refine` takes masks to pixels along the picture's edges, `instances` lists the objects,
`reference` is the estimator, `video` carries masks through frames; `labels`, `mask_pictures`, `annotations` and
`shapes` read the masks that people bring.

What it reaches stands in docs/figures.md and is measured by `benchmarks/segmentation.py`. Tried without gain, on the
tokens of version 0.1: earlier layers and their mixtures, a ridge classifier, a learned mixture of cosines, diffusion on
the target's own patch graph, prototypes of smoothed tokens (better by themselves on COCO, worse elsewhere), a gate set
by the reference's own background, a narrower band for GrabCut, a second look at a crop of the target, views of the
reference (mirrored, closer, smaller), tokens averaged with the mirror image's, keeping the plain threshold where
GrabCut differs much from it (helps small objects, harms pasted ones), and twenty more measures of presence.
"""

from ..base import Task, lazy

TASK = Task("segmentation", "Segmentation")
__getattr__ = lazy(
    __name__,
    {
        "DEFAULT_THRESHOLD": "reference",
        "MIN_PRESENCE": "reference",
        "Prediction": "reference",
        "ReferenceSegmenter": "reference",
        "Segmentation": "reference",
        "Instance": "instances",
        "Instances": "instances",
        "find_instances": "instances",
        "propagate": "video",
    },
)
