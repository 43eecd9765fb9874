"""Photos of coloured rectangles with their masks."""

import numpy as np

COLOURS = ((40, 60, 40), (230, 40, 40), (40, 60, 240), (240, 230, 60))


def scene(seed: int, size=(84, 112), labels=4) -> tuple[np.ndarray, np.ndarray]:
    """Paint one rectangle a class on a dark ground: photo and mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    strip = size[1] // (labels - 1)
    for place, label in enumerate(rng.permutation(np.arange(1, labels))):
        top, left = rng.integers(4, size[0] // 3), place * strip + 2
        mask[top : top + size[0] // 2, left : left + strip - 6] = label
    photo = np.array(COLOURS, np.uint8)[mask] + rng.integers(0, 12, (*size, 1), dtype=np.uint8)
    return photo, mask


PHOTO, MASK = scene(0)
