"""From patch scores to pixels: upsampling, and edges that follow the picture."""

import cv2
import numpy as np

from ...io.images import resize

WORK_PIXELS = 320 * 320  # of the box around the thing: at most so many are cut, however large the picture is
ITERATIONS = 1
UNSURE = 0.4  # GrabCut may only change pixels between this share of the threshold and its mirror image above it
MARGIN = 1 / 3  # of the thing's box: how much background around it GrabCut sees


def to_pixels(score: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge patch scores (h, w) to (H, W) float32, bicubic, kept within 0 to 1."""
    large = cv2.resize(score.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(large, 0, 1, out=large)


def follow_edges(rgb: np.ndarray, score: np.ndarray, threshold: float) -> np.ndarray:
    """Cut the thing out along the picture's edges: picture (H, W, 3) uint8, patch scores (h, w) -> (H, W) bool.

    GrabCut (Rother et al. 2004) with the score as prior, in a box around the thing: a small thing is seen at the
    picture's own resolution, a large one at a coarser one, so that the time stays the same.
    """
    size = rgb.shape[:2]
    pixels = to_pixels(score, size)
    mask = pixels > threshold
    low = UNSURE * threshold
    rows, columns = _box(pixels > low)
    if not mask[rows, columns].any() or mask[rows, columns].all():
        return mask
    crop = rgb[rows, columns]
    scale = min(1.0, (WORK_PIXELS / (crop.shape[0] * crop.shape[1])) ** 0.5)
    work = (max(1, round(crop.shape[0] * scale)), max(1, round(crop.shape[1] * scale)))
    cut = _grabcut(resize(crop, work), _shrink(pixels[rows, columns], work), threshold, low)
    mask[rows, columns] = _enlarge(cut, crop.shape[:2])
    return mask


def _grabcut(rgb: np.ndarray, score: np.ndarray, threshold: float, low: float) -> np.ndarray:
    """Run GrabCut on (H, W, 3) uint8 and (H, W) scores; where it runs away in area, keep the plain threshold."""
    plain = score > threshold
    trimap = np.full(score.shape, cv2.GC_BGD, np.uint8)
    trimap[score > low] = cv2.GC_PR_BGD
    trimap[plain] = cv2.GC_PR_FGD
    trimap[score > 1 - UNSURE * (1 - threshold)] = cv2.GC_FGD
    if plain.all() or not plain.any():
        return plain
    cv2.setRNGSeed(0)  # its k-means starts at random; the same picture shall give the same mask
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    no_box = (0, 0, 0, 0)  # the mask says it all
    cv2.grabCut(bgr, trimap, no_box, np.zeros((1, 65)), np.zeros((1, 65)), ITERATIONS, cv2.GC_INIT_WITH_MASK)
    cut = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
    return cut if 0.25 < cut.sum() / plain.sum() < 4 else plain


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns of a box around the mask with a margin; empty slices for an empty mask."""
    slices = []
    for axis in (1, 0):
        at = np.flatnonzero(mask.any(axis=axis))
        if not len(at):
            return slice(0, 0), slice(0, 0)
        margin = int((at[-1] + 1 - at[0]) * MARGIN) + 8
        slices.append(slice(max(0, at[0] - margin), at[-1] + 1 + margin))
    return slices[0], slices[1]


def _shrink(score: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return score if score.shape == size else cv2.resize(score, size[::-1], interpolation=cv2.INTER_AREA)


def _enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a mask (h, w) bool to (H, W) bool with smooth edges."""
    if mask.shape == tuple(size):
        return mask
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
