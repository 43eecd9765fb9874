"""The arithmetic: Features in, an array out."""

import numpy as np

from dinodemo.engine.features import Features
from dinodemo.tasks.tokens import unit


def typical_map(f: Features) -> np.ndarray:
    """Return the cosine (h, w), -1 to 1, of each patch to the photo's mean patch."""
    patches = unit(f.patches)
    return patches @ unit(patches.mean(axis=(0, 1)))
