"""From patch scores to pixels: upsampling, and edges that follow the picture."""

import cv2
import numpy as np

from ...images import resize

WORK_PIXELS = 518 * 518  # edges are looked for at about this size, however large the picture is
ITERATIONS = 1
UNSURE = 0.2  # GrabCut may only change pixels between this share of the threshold and its mirror image above it
MARGIN = 1 / 3  # of the thing's box: how much background around it GrabCut sees


def to_pixels(score: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge patch scores (h, w) to (H, W) float32, bicubic, kept within 0 to 1."""
    large = cv2.resize(score.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(large, 0, 1, out=large)


def work_copy(rgb: np.ndarray) -> np.ndarray:
    """Shrink a picture (H, W, 3) uint8 to at most about `WORK_PIXELS`."""
    height, width = rgb.shape[:2]
    scale = min(1.0, (WORK_PIXELS / (height * width)) ** 0.5)
    return resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))


def follow_edges(rgb: np.ndarray, score: np.ndarray, threshold: float) -> np.ndarray:
    """Cut the thing out along the picture's edges: (H, W, 3) uint8, (H, W) scores -> (H, W) bool.

    GrabCut (Rother et al. 2004) with the score as prior, in a box around the thing; where it runs away, which shows
    in the area, the plain threshold is kept.
    """
    plain = score > threshold
    low, high = UNSURE * threshold, 1 - UNSURE * (1 - threshold)
    rows, columns = _box(score > low)
    if not plain[rows, columns].any() or plain[rows, columns].all():
        return plain
    inside = score[rows, columns]
    trimap = np.full(inside.shape, cv2.GC_BGD, np.uint8)
    trimap[inside > low] = cv2.GC_PR_BGD
    trimap[inside > threshold] = cv2.GC_PR_FGD
    trimap[inside > high] = cv2.GC_FGD
    bgr = np.ascontiguousarray(rgb[rows, columns, ::-1])
    cv2.setRNGSeed(0)  # its k-means starts at random; the same picture shall give the same mask
    cv2.grabCut(bgr, trimap, None, np.zeros((1, 65)), np.zeros((1, 65)), ITERATIONS, cv2.GC_INIT_WITH_MASK)
    cut = np.zeros_like(plain)
    cut[rows, columns] = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
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
    return tuple(slices)


def enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a mask (h, w) bool to (H, W) bool with smooth edges."""
    if mask.shape == tuple(size):
        return mask
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
