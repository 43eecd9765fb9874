"""Sizes: patch grids for pictures of any shape, and resampling as the backbones were trained."""

import math

import numpy as np
from PIL import Image

LARGE = 40_000_000  # pixels of a picture that is resampled in parts
STRIP_PIXELS = 4_000_000  # that are handed to Pillow at once where a picture is reduced


def grid_size(size: tuple[int, int], resolution: int, patch_size: int) -> tuple[int, int]:
    """Return the patch grid (h, w) of a picture: aspect kept, h * w about (resolution / patch_size)^2.

    Very long pictures get one row of patches and no more patches than a square picture would.

    Args:
        size: (H, W) of the picture, px.
        resolution: Side of a square picture as the network sees it, px.
        patch_size: Side of a patch, px.
    """
    if not (isinstance(resolution, int | np.integer) and patch_size <= resolution <= 16384):
        raise ValueError(f"resolution must be a whole number from {patch_size} to 16384, got {resolution!r}")
    height, width = size
    side = resolution / patch_size
    h = side * math.sqrt(height / width)
    w = side * math.sqrt(width / height)
    most = round(side * side)
    return min(max(round(h), 1), max(most, 1)), min(max(round(w), 1), max(most, 1))


def resize(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture at another size: bicubic, antialiased when shrinking, as the backbones were trained.

    Args:
        rgb: (H, W, 3) uint8.
        size: (H, W) of the result.
    """
    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    # a cheap box reduction first, still three times finer than the target: Pillow's reducing_gap, in strips
    factors = tuple(max(1, int(old / new / 3)) for old, new in zip(rgb.shape[:2], size, strict=True))
    return _bicubic(_reduced(rgb, factors), size, (rgb.shape[0] / factors[0], rgb.shape[1] / factors[1]))


def _reduced(rgb: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Average blocks of (rows, columns) pixels; blocks at the lower and right edge may be smaller."""
    down, across = factors
    if (down, across) == (1, 1):
        return rgb
    rows = max(1, STRIP_PIXELS // (rgb.shape[1] * down)) * down
    strips = (Image.fromarray(rgb[top : top + rows]) for top in range(0, rgb.shape[0], rows))
    return np.concatenate([np.asarray(strip.reduce((across, down))) for strip in strips])


def _bicubic(rgb: np.ndarray, size: tuple[int, int], extent: tuple[float, float]) -> np.ndarray:
    """Resample the upper left `extent` (H, W) of a picture, of a large one in bands: Pillow copies what it is given."""
    (height, width), (down, across) = size, extent
    scale = down / height
    margin = 2 * max(scale, 1.0) + 1  # rows that the kernel reaches beyond a band
    bands = -(-rgb.shape[0] * rgb.shape[1] // LARGE)
    made = []
    for band in np.array_split(np.arange(height), min(bands, height)):
        first, last = band[0] * scale, (band[-1] + 1) * scale
        top, bottom = max(0, int(first - margin)), min(rgb.shape[0], int(last + margin) + 1)
        box = (0.0, first - top, across, min(last - top, bottom - top))
        part = Image.fromarray(rgb[top:bottom]).resize((width, len(band)), Image.Resampling.BICUBIC, box)
        made.append(np.asarray(part))
    return made[0] if len(made) == 1 else np.concatenate(made)


def fit_within(rgb: np.ndarray, longest: int) -> np.ndarray:
    """Return a picture shrunk so that its longer side is at most `longest`; smaller ones unchanged.

    Args:
        rgb: (H, W, 3) uint8.
        longest: Of the result, px.
    """
    return rgb if max(rgb.shape[:2]) <= longest else scale_to(rgb, longest)


def scale_to(rgb: np.ndarray, longest: int) -> np.ndarray:
    """Return a picture resized, up or down, so that its longer side is `longest`.

    Args:
        rgb: (H, W, 3) uint8.
        longest: Of the result, px.
    """
    height, width = rgb.shape[:2]
    scale = longest / max(height, width)
    return resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))


def center_crop(rgb: np.ndarray, resolution: int) -> np.ndarray:
    """Return the central square after resizing the shorter side to resolution * 256/224: the classification protocol.

    Args:
        rgb: (H, W, 3) uint8.
        resolution: Side of the square, px.
    """
    # the ends of a strip first: enlarged whole it would fill the memory, and only its middle counts
    reach = 4 * min(rgb.shape[:2])
    top, left = max(0, (rgb.shape[0] - reach) // 2), max(0, (rgb.shape[1] - reach) // 2)
    rgb = rgb[top : top + reach, left : left + reach]
    height, width = rgb.shape[:2]
    short = round(resolution * 256 / 224)
    scale = short / min(height, width)
    square = resize(rgb, (max(short, round(height * scale)), max(short, round(width * scale))))
    top, left = (square.shape[0] - resolution) // 2, (square.shape[1] - resolution) // 2
    return square[top : top + resolution, left : left + resolution]


def network_input(rgb: np.ndarray, resolution: int, patch_size: int, crop: str | None = None) -> np.ndarray:
    """Return an upright picture as the network takes it, (h, w, 3) uint8 with whole patches.

    Args:
        rgb: (H, W, 3) uint8.
        resolution: Side of a square picture, px.
        patch_size: Side of a patch, px.
        crop: None keeps the whole picture, "center" takes the classification crop, `resolution` in whole patches.
    """
    if crop == "center":
        h, w = grid_size((1, 1), resolution, patch_size)
        return center_crop(rgb, h * patch_size)
    if crop is not None:
        raise ValueError(f'crop must be None or "center", got {crop!r}')
    h, w = grid_size(rgb.shape[:2], resolution, patch_size)
    return resize(rgb, (h * patch_size, w * patch_size))
