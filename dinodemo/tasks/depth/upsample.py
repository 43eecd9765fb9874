"""Depth maps to pixels, led by the photo, so that depth steps lie where the picture has its edges."""

import cv2
import numpy as np

RADIUS = 8  # cells of the head's grid: two patches to each side
EPSILON = 4e-3  # variance of the colours, each in [0, 1], below which a window counts as even


def to_pixels(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample a depth map bilinearly, or by area when shrinking.

    Args:
        depth: (h, w).
        size: (H, W) of the result.

    Returns:
        (H, W) float32, in the map's own unit.
    """
    height, width = size
    shrink = height < depth.shape[0] and width < depth.shape[1]
    how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return cv2.resize(depth.astype(np.float32), (width, height), interpolation=how)


def guided_to_pixels(depth: np.ndarray, rgb: np.ndarray, radius: int = RADIUS, epsilon: float = EPSILON) -> np.ndarray:
    """Resample a depth map to its photo's size by a guided filter in colour.

    In every window of (2 radius + 1)^2 cells log depth is fitted as a linear function of the colour, with ridge
    `epsilon`; the fits are averaged, resampled and applied to the photo's own pixels. Source: He, Sun and Tang 2013,
    eq. 16 to 21; He and Sun 2015 for the fit on the coarse grid.

    Args:
        depth: (h, w), above 0.
        rgb: (H, W, 3) uint8.
        radius: Of the window, in cells of the map.
        epsilon: Ridge, of colours from 0 to 1.

    Returns:
        (H, W) float32, within the depths that the map has around a pixel.
    """
    logs = np.log(np.maximum(depth, 1e-6)).astype(np.float32)
    cells = cv2.resize(rgb, depth.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    slope, offset = _fit(logs, cells, radius, epsilon)
    size = rgb.shape[:2]
    result = to_pixels(offset, size)
    for channel in range(3):  # one at a time: large photos have many pixels
        result += to_pixels(slope[..., channel], size) * (rgb[..., channel].astype(np.float32) / 255)
    around = np.ones((2 * (radius // 2) + 1,) * 2, np.uint8)
    low, high = (to_pixels(bound(logs, around), size) for bound in (cv2.erode, cv2.dilate))
    return np.exp(np.clip(result, low, high), out=result)


def _fit(values: np.ndarray, guide: np.ndarray, radius: int, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Return averaged slopes (h, w, 3) and offsets (h, w) of the windows' linear fits."""

    def mean(array: np.ndarray) -> np.ndarray:
        return cv2.blur(array, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT)

    centre, level = mean(guide), mean(values)
    products = guide[..., :, None] * guide[..., None, :]  # [h, w, 3, 3]
    covariance = mean(products.reshape(*values.shape, 9)).reshape(products.shape)
    covariance = covariance - centre[..., :, None] * centre[..., None, :] + epsilon * np.eye(3, dtype=np.float32)
    shared = mean(guide * values[..., None]) - centre * level[..., None]
    slope = np.linalg.solve(covariance, shared[..., None])[..., 0]
    offset = level - (slope * centre).sum(-1)
    return mean(slope.astype(np.float32)), mean(offset.astype(np.float32))
