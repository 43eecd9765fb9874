"""From patch scores to pixels: upsampling, and edges that follow the picture."""

import cv2
import numpy as np

from ...io.images import resize

WORK_PIXELS = 320 * 320  # of the box around the object: at most so many are cut, however large the picture is
ITERATIONS = 1
UNSURE = 0.4  # GrabCut may only change pixels between this share of the threshold and its mirror image above it
MARGIN = 1 / 3  # of the object's box: how much background around it GrabCut sees
THIN = 2.5  # patches: an object whose widest place has a smaller radius is cut by colour, GrabCut would eat its limbs
BINS = 16  # of the colour histograms, along each channel
SMOOTH_EDGE = 1e-3  # of the guided filter, for colours from 0 to 1: lower follows weaker edges
SPECK = 0.0005  # of the picture: smaller pieces and holes are removed


def to_pixels(score: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return patch scores at the size of a picture, (H, W) float32, bicubic, kept within 0 to 1.

    Args:
        score: (h, w).
        size: (H, W).
    """
    large = cv2.resize(score.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(large, 0, 1, out=large)


def follow_edges(rgb: np.ndarray, score: np.ndarray, threshold: float) -> np.ndarray:
    """Cut the object out along the picture's edges.

    GrabCut (Rother et al. 2004) with the score as prior, or, for thin objects, colour histograms and a guided filter;
    in a box around the object: a small one is seen at the picture's own resolution, a large one at a coarser one, so
    that the time stays the same.

    Args:
        rgb: (H, W, 3) uint8.
        score: (h, w) patch scores, 0 to 1.
        threshold: 0 to 1.

    Returns:
        (H, W) bool.
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
    small, prior = resize(crop, work), _shrink(pixels[rows, columns], work)
    patch = scale * (size[0] * size[1] / score.size) ** 0.5
    thin = _radius(prior > threshold) < THIN * patch
    cut = _colour_cut(small, prior, threshold, low, patch) if thin else _grabcut(small, prior, threshold, low)
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


def _colour_cut(rgb: np.ndarray, score: np.ndarray, threshold: float, low: float, patch: float) -> np.ndarray:
    """Cut by what colours are more frequent inside than around, smoothed along edges (He et al. 2013).

    Args:
        rgb: (H, W, 3) uint8.
        score: (H, W), 0 to 1.
        threshold, low: pixels below `low` stay background.
        patch: side of a patch in pixels.
    """
    plain = score > threshold
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    inside, outside = (_histogram(lab, weight) for weight in (score, 1 - score))
    cells = tuple((lab[..., i].astype(int) * BINS) >> 8 for i in range(3))
    colour = inside[cells] / (inside[cells] + outside[cells])
    middle = np.where(
        score > threshold, 0.5 + 0.5 * (score - threshold) / max(1 - threshold, 1e-6), 0.5 * score / threshold
    )
    both = colour * middle / np.maximum(colour * middle + (1 - colour) * (1 - middle), 1e-6)
    cut = _guided(lab.astype(np.float32) / 255, both.astype(np.float32), max(2, round(patch / 2))) > 0.5
    cut &= score > low
    return cut if 0.25 < cut.sum() / max(plain.sum(), 1) < 4 else plain


def _histogram(lab: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the smoothed frequencies (BINS, BINS, BINS) of colours, weighted pixel by pixel."""
    cells = (lab.astype(np.int64) * BINS) >> 8
    flat = (cells[..., 0] * BINS + cells[..., 1]) * BINS + cells[..., 2]
    counts = np.bincount(flat.ravel(), weights=weight.ravel(), minlength=BINS**3).reshape((BINS,) * 3)
    for axis in range(3):  # a triangle over three bins
        padded = np.pad(counts, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
        parts = [np.take(padded, range(k, k + BINS), axis=axis) for k in range(3)]
        counts = 0.25 * parts[0] + 0.5 * parts[1] + 0.25 * parts[2]
    return counts / max(counts.sum(), 1e-6) + 1e-6


def _guided(guide: np.ndarray, values: np.ndarray, radius: int) -> np.ndarray:
    """Smooth values (H, W) along the edges of a colour guide (H, W, 3): the guided filter of He et al. 2013."""

    def mean(array: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(array, -1, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    center, level = mean(guide), mean(values)
    products = guide[..., :, None] * guide[..., None, :]
    spread = (
        mean(products.reshape(*values.shape, 9)).reshape(products.shape) - center[..., :, None] * center[..., None, :]
    )
    along = mean(guide * values[..., None]) - center * level[..., None]
    slope = np.linalg.solve(spread + SMOOTH_EDGE * np.eye(3, dtype=np.float32), along[..., None])[..., 0]
    offset = level - (slope * center).sum(axis=-1)
    return (mean(slope.astype(np.float32)) * guide).sum(axis=-1) + mean(offset.astype(np.float32))


def clean(mask: np.ndarray, speck: float = SPECK) -> np.ndarray:
    """Remove pieces and holes of a mask (H, W) bool below a share of the picture; the largest piece stays."""
    for inverted in (False, True):
        area = ~mask if inverted else mask
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8), connectivity=8 - 4 * inverted)
        if count <= 2:
            continue
        sizes = stats[:, cv2.CC_STAT_AREA]
        small = sizes < speck * mask.size
        small[[0, 1 + int(sizes[1:].argmax())]] = False
        mask = mask ^ (small[pieces] & area)
    return mask


def _radius(mask: np.ndarray) -> float:
    """Return the radius in pixels of the largest disc inside a mask (H, W) bool."""
    inside = np.pad(mask, 1).astype(np.uint8)
    return float(cv2.distanceTransform(inside, cv2.DIST_L2, 5).max())


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
