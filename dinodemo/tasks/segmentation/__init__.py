"""Reference-mask segmentation: draw a mask once, find the same thing in other pictures; nothing is trained.

`scores` spreads the reference's labels to a target's patches, `refine` takes them to pixels along the picture's edges,
`instances` lists the pieces, `reference` is the estimator, `video` carries masks through frames.

What each step brings (`benchmarks/segmentation.py`; dinov2-small-offline at 518, mean IoU in percent over groups;
settings were chosen on the first half of the groups, the second was held out; pasted: DreamBooth's objects on COCO's
photos, a background that no reference shows):

                                        DreamBooth     DAVIS 2016     COCO classes   pasted
    mean prototype, cosine, Otsu        61.5   75.6    47.8   29.3    20.1   16.5    26.0   19.1
    mean prototype, cosine, 0.6         69.6   79.7    47.3   37.8    21.5   19.1    36.6   25.7
    10 nearest patches, nearest mask    82.3   84.6    78.2   59.6    21.3   25.8    44.0   30.0
    + mask reduced by area              87.4   88.2    83.3   66.0    22.1   26.1    46.2   31.4
    + up to 200 nearest, T = 0.05       87.7   88.1    83.5   64.5    22.6   26.0    49.7   32.8
    + place taken out of the tokens     85.7   86.5    83.6   67.8    25.8   27.1    39.1   27.8
    + gate on centred likeness          91.0   90.5    83.3   66.5    25.0   28.4    65.9   39.3
    + faint maps lifted                 91.0   90.5    83.3   67.3    25.9   29.4    65.9   39.3
    + groups of patches                 91.0   90.5    83.3   67.3    26.0   29.4    65.9   39.3
    + edges (presence not asked)        94.9   94.3    85.3   63.9    28.0   31.6    76.2   46.2
    + empty where absent                94.9   94.3    85.3   63.9    22.4   24.7    76.2   40.5

Three choices are not blind to the second half: that a small thing gets fewer votes, that ten directions count as
place (both halves were in view when it was found to pay), and that presence rather lets a spurious mask pass than
overlook the thing: at its default it misses 0, 0, 24 and 5 % of the things and paints 58, 61, 39 and 52 % of the
targets that lack them (AUROC 0.975, 0.952, 0.749 and 0.865, all groups). At a bound of 0.9 they would be 7, 7, 81
and 24 %, and 20, 30, 4 and 22 %: no bound suits both the same thing and another of its class. A fit of twenty more
measures (centred cosines, mutual neighbours, likeness of the found region, what unrelated photos give) changed little.

The late steps do not pay everywhere: small, thin things (DAVIS, held out) are best without refined edges. On COCO
which patches are taken is the limit, not the grid: the best threshold for each picture would give 28 and 32 percent
before edges. Tried on the first half without gain: earlier layers and their mixtures, a ridge classifier, a learned
mixture of cosines, diffusion on the target's own patch graph, prototypes of smoothed tokens (better by themselves on
COCO, worse elsewhere), a gate set by the reference's own background, a narrower band for GrabCut, a second look at a
crop with edges refined, views of the reference (mirrored, closer, smaller), tokens averaged with the mirror image's,
keeping the plain threshold where GrabCut differs much from it (helps small things, harms pasted ones).
"""

from ..base import Task, lazy

TASK = Task("segmentation", "Segmentation")
__getattr__ = lazy(
    __name__,
    {
        "DEFAULT_THRESHOLD": "reference",
        "MIN_PRESENCE": "reference",
        "SURE_PRESENCE": "reference",
        "Prediction": "reference",
        "ReferenceSegmenter": "reference",
        "Segmentation": "reference",
        "Instance": "instances",
        "Instances": "instances",
        "find_instances": "instances",
        "propagate": "video",
    },
)
