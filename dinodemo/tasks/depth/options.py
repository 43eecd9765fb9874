"""The settings of depth, one place each: the page, the API and the command line are made from them."""

from ..base import Option
from .units import UNIT

FLIP = Option("flip", False, "Average with mirrored photo", "average with the mirror image")
GUIDED = Option("guided", True, "Sharpen along edges", "follow the photo's edges")
METRES = Option(
    "metres",
    False,
    "Metres although unsure",
    "give metres also for pictures unlike the probe's own",
)
INVERSE_COLOURS = Option("inverse", False, "Inverse depth (more detail nearby)", "more colours near by")
NEAR = Option("near", 0.0, "Near", "of the colours (default: each photo's own range)", 0, 10, 0.01)
FAR = Option("far", 10.0, "Far", "of the colours", 0, 10, 0.01)
MOST_DEPTH = 1e6  # of the colours, on the command line; the page's sliders follow the photo
FOV = Option(
    "fov",
    65.0,
    "Field of view along the longer side (degrees)",
    "of the camera, along the longer side of the picture, in degrees (default: the photo's file, else 65, as phones' "
    "main cameras have)",
    2,
    140,
    0.1,
)
SPACE = Option(
    "space",
    "none",
    "",
    "also the picture in space: points (.ply), or a mesh with the photo as texture (.glb)",
    choices=("none", "points", "mesh"),
)
FORMS = SPACE.changed(default="points", choices=("points", "mesh"))
KIND = Option(
    "kind",
    "lin4",
    "Tokens of",
    "lin4 reads four layers, lin1 the last one",
    choices=("lin4", "lin1"),
    labels=("Four layers (better)", "Last layer"),
)
EPOCHS = Option("epochs", 20, "Epochs", "at most; ends early when the held-out pictures no longer improve", 1, 100, 1)
RELATIVE = Option(
    "relative", False, "The depth maps have no scale (learn near and far only)", "the depth maps have no scale"
)
DIRECTIONS = {  # name -> (words, whether larger values are nearer)
    "auto": ("Decide by names and pictures", None),
    "farther": ("Farther (depth)", False),
    "nearer": ("Nearer (disparity, inverse depth)", True),
}
DIRECTION = Option("direction", "auto", "Larger values are", choices=tuple(DIRECTIONS))
INVERSE = Option(
    "inverse",
    False,
    "",
    "larger values in the depth maps are nearer (default: decided by the names of folders and, where no unit is given, "
    "by whether the bottom of nearly all pictures is farther than their top; said either way)",
)

__all__ = [
    "DIRECTION", "DIRECTIONS", "EPOCHS", "FAR", "FLIP", "FORMS", "FOV", "GUIDED", "INVERSE", "INVERSE_COLOURS", "KIND",
    "METRES", "MOST_DEPTH", "NEAR", "RELATIVE", "SPACE", "UNIT",
]  # fmt: skip
