"""The drawing: no Gradio, so that the API and the command line draw the same."""

import numpy as np

from dinodemo.engine.features import Features
from dinodemo.engine.provenance import made_with
from dinodemo.io.images import Photo
from dinodemo.io.render import colourise, enlarge, normalise, png_bytes
from dinodemo.tasks.base import Option

from .maps import typical_map

SMOOTH = Option("smooth", True, "Smooth (off shows individual patches)", "false draws one square a patch")


def draw(photo: Photo, f: Features, smooth: bool) -> np.ndarray:
    """Return the coloured map, (H, W, 3) uint8."""
    return colourise(enlarge(normalise(typical_map(f)), photo.size, smooth))


def picture_file(photo: Photo, f: Features, smooth: bool) -> tuple[str, bytes]:
    """Return the download: (name, PNG)."""
    return "typical.png", png_bytes(draw(photo, f, smooth), made_with(f))
