"""Reference-mask segmentation: draw a mask once, find the same thing in other pictures; nothing is trained.

`scores` spreads the reference's labels to a target's patches, `refine` takes them to pixels along the picture's edges,
`instances` lists the pieces, `reference` is the estimator, `video` carries masks through frames.

What each step brings (`benchmarks/segmentation.py`; dinov2-small-offline at 518, mean IoU in percent over groups;
settings were chosen on the first half of the groups, the second was held out):

                                        DreamBooth objects     DAVIS 2016     COCO classes
    mean prototype, cosine, Otsu           61.5   75.6        47.8   29.3     20.1   16.5
    mean prototype, cosine, 0.6            69.6   79.7        47.3   37.8     21.5   19.1
    10 nearest patches, nearest mask       82.3   84.6        78.2   59.6     21.3   25.8
    + mask reduced by area                 87.4   88.2        83.3   66.0     22.1   26.1
    + up to 200 nearest, T = 0.05          87.7   88.1        83.5   64.5     22.6   26.0
    + gate on likeness                     89.4   89.1        83.4   62.9     23.0   26.3
    + faint maps lifted                    89.4   89.1        83.4   64.2     23.2   27.2
    + groups of patches                    89.8   89.2        83.4   64.1     23.2   25.7
    + edges (presence not asked)           94.4   93.7        85.1   60.9     24.2   25.8
    + empty where absent                   90.3   93.7        85.1   59.7     22.0   18.4

Two choices are not blind to the second half: that a small thing gets fewer votes (200 for all gave 56.8 on DAVIS), and
the cosine at which presence is 0.5.

The late steps do not pay everywhere: small, thin things (DAVIS, held out) are best without refined edges, and whether
a class, rather than the same thing, is present is hard to tell with this backbone (AUROC 0.70; 0.98 for DreamBooth's
objects, 0.95 for DAVIS). Tried on the first half without gain: earlier layers and their mixtures, a ridge classifier,
a learned mixture of cosines, diffusion on the target's own patch graph, a second look at a crop with edges refined.
"""

from .instances import Instance, Instances, find_instances
from .reference import DEFAULT_THRESHOLD, Prediction, ReferenceSegmenter, Segmentation
from .video import propagate

__all__ = [
    "DEFAULT_THRESHOLD",
    "Instance",
    "Instances",
    "Prediction",
    "ReferenceSegmenter",
    "Segmentation",
    "find_instances",
    "propagate",
]
