"""What the head is trained on: masks are checked, and some photos are held out."""

from collections.abc import Sequence

import numpy as np
import torch

from ...io.images import Photo
from ..segmentation.mask_pictures import is_soft
from .training import IGNORE, Sample

BACKGROUND = "background"
MAX_CLASSES = 254  # 0 is the background, 255 is ignored
LEAST_PHOTOS, HELD_OUT_EVERY = 4, 5  # photos that a held-out figure needs; then every fifth is held out


def check_masks(masks: list[np.ndarray], classes: Sequence[str] | None) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Return the masks as uint8 and the names of all labels; raises ValueError that names the pair."""
    if not masks:
        raise ValueError("no pairs to train on; draw at least one mask")
    masks = [_as_labels(np.asarray(mask), i) for i, mask in enumerate(masks)]
    if classes is None:
        masks, classes = _renumber(masks)
    area = np.sum([np.bincount(mask.ravel(), minlength=256) for mask in masks], axis=0)
    highest = int(np.flatnonzero(area[:IGNORE]).max(initial=0))
    if isinstance(classes, str) or not all(isinstance(name, str) and name for name in classes):
        raise ValueError(f"classes must be a list of names, got {classes!r}")
    names = (BACKGROUND, *classes)
    if len(set(names)) < len(names) or len(classes) > MAX_CLASSES:
        raise ValueError(f'classes must be at most {MAX_CLASSES} different names, none of them "{BACKGROUND}"')
    if highest >= len(names):
        i = next(i for i, mask in enumerate(masks) if (mask == highest).any())
        raise ValueError(
            f"the mask of pair {i + 1} holds label {highest}, but only {len(classes)} classes are named; "
            f"name {highest} of them or use {IGNORE} for what is to be ignored"
        )
    missing = [name for name, pixels in zip(names[1:], area[1:], strict=False) if not pixels]
    if missing:
        shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise ValueError(f"no mask shows {shown}; draw some or leave the name out")
    if np.count_nonzero(area[:IGNORE]) < 2:
        raise ValueError("all masks hold one and the same label, there is nothing to tell apart; leave some background")
    return masks, names


def _renumber(masks: list[np.ndarray]) -> tuple[list[np.ndarray], list[str]]:
    """Close gaps between labels: {0, 15} becomes {0, 1} named "class 15"; soft black-and-white masks become {0, 1}."""
    if any(is_soft(mask) for mask in masks):
        masks = [(mask > 127).astype(np.uint8) for mask in masks]
    found = sorted(set().union(*(np.unique(mask).tolist() for mask in masks)) - {0, IGNORE})
    if not found and any((mask == 0).any() and (mask == IGNORE).any() for mask in masks):
        masks, found = [(mask > 0).astype(np.uint8) for mask in masks], [1]
    table = np.zeros(256, np.uint8)
    table[IGNORE] = IGNORE
    table[found] = np.arange(1, len(found) + 1)
    return [table[mask] for mask in masks], [f"class {label}" for label in found]


def _as_labels(mask: np.ndarray, i: int) -> np.ndarray:
    if mask.ndim != 2 or not (mask.dtype == bool or np.issubdtype(mask.dtype, np.integer)) or not mask.size:
        raise ValueError(
            f"the mask of pair {i + 1} must be (H, W) whole numbers, got shape {mask.shape}, {mask.dtype}; "
            "give the index of a class for every pixel"
        )
    if mask.min() < 0 or mask.max() > IGNORE:
        raise ValueError(f"the mask of pair {i + 1} must hold 0 to {IGNORE}, got {mask.min()} to {mask.max()}")
    mask = np.ascontiguousarray(mask, np.uint8)
    if mask.min() == IGNORE:
        raise ValueError(f"the mask of pair {i + 1} is all {IGNORE} (ignore); draw on it or leave the pair out")
    return mask


def size_mismatch(i: int, photo: Photo, mask: np.ndarray) -> str:
    return (
        f"pair {i + 1}: the mask is {mask.shape[1]} x {mask.shape[0]} but {photo.name} is {photo.size[1]} x "
        f"{photo.size[0]} (upright); draw it on this photo or rotate it"
    )


def choose_held_out(digests: list[str], labels: list[set[int]]) -> list[int]:
    """Choose the pairs to hold out: every k-th photo, then such that show labels not held out yet, up to a third.

    digests: of each pair's photo; one that occurs twice goes with all its masks. labels: those in each pair's mask.
    A photo stays when the training would lose a label without it. Returns indices; none for fewer than 4 photos.
    """
    photos = list(dict.fromkeys(digests))
    if len(photos) < LEAST_PHOTOS:
        return []
    shown = {d: set().union(*(seen for e, seen in zip(digests, labels, strict=True) if e == d)) for d in photos}
    every = min(HELD_OUT_EVERY, len(photos))
    regular = photos[every - 1 :: every]
    held: list[str] = []
    for photo in regular + [photo for photo in photos if photo not in regular]:
        rest = [seen for other, seen in shown.items() if other not in [*held, photo]]
        covered = set().union(*(shown[other] for other in held))
        wanted = photo in regular or not held or (not shown[photo] <= covered and len(held) < len(photos) // 3)
        if wanted and set().union(*rest) == set().union(*labels):
            held.append(photo)
    return [i for i, digest in enumerate(digests) if digest in held]


def check_shares(samples: list[Sample], names: Sequence[str], masks: list[np.ndarray]) -> None:
    """Raise ValueError when a label was drawn, but so small that it has no part in any patch."""
    area = torch.stack([sample.shares.sum((1, 2)) for sample in samples]).sum(0).tolist()
    drawn = set().union(*(np.unique(mask).tolist() for mask in masks))
    lost = [name for i, name in enumerate(names) if i in drawn and not area[i]]
    if lost:
        raise ValueError(
            f"{', '.join(lost)} covers less than the smallest part of a patch; draw more of it or raise the resolution"
        )
