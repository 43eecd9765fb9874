"""Arrays to pictures: colour maps, overlays, sheets. Everything is RGB uint8."""

import base64
import io

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

COLOUR_MAPS = {
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "magma": cv2.COLORMAP_MAGMA,
    "plasma": cv2.COLORMAP_PLASMA,
    "turbo": cv2.COLORMAP_TURBO,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "jet": cv2.COLORMAP_JET,
    "grey": None,
}


def normalise(values: np.ndarray) -> np.ndarray:
    """Return an array stretched to 0..1 by its own range; a constant array becomes zeros."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return ((values - low) / (high - low) if high > low else np.zeros_like(values)).astype(np.float32)


def colourise(values: np.ndarray, colour_map: str = "inferno") -> np.ndarray:
    """Map values to colours.

    Args:
        values: (h, w), 0 to 1.
        colour_map: A name of `COLOUR_MAPS`.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        ValueError: The colour map is unknown.
    """
    if colour_map not in COLOUR_MAPS:
        raise ValueError(f"colour map must be one of {', '.join(COLOUR_MAPS)}, got {colour_map!r}")
    levels = (np.clip(np.nan_to_num(values), 0, 1) * 255).round().astype(np.uint8)
    code = COLOUR_MAPS[colour_map]
    if code is None:
        return np.repeat(levels[..., None], 3, axis=-1)
    return cv2.cvtColor(cv2.applyColorMap(levels, code), cv2.COLOR_BGR2RGB)


def colour_table(colour_map: str) -> np.ndarray:
    """Return the 256 colours (256, 3) uint8 RGB of a colour map; raises ValueError for one that is unknown."""
    return colourise(np.linspace(0, 1, 256, dtype=np.float32)[None], colour_map)[0]


def enlarge(values: np.ndarray, size: tuple[int, int], smooth: bool = True) -> np.ndarray:
    """Resample a map to the size of a picture.

    Args:
        values: (h, w) or (h, w, c).
        size: (H, W) of the result.
        smooth: Bicubic; else nearest, so that patches stay visible.

    Returns:
        (H, W) or (H, W, c) float32.
    """
    how = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST
    return cv2.resize(np.ascontiguousarray(values, dtype=np.float32), (size[1], size[0]), interpolation=how)


def overlay(
    rgb: np.ndarray, values: np.ndarray, opacity: float = 0.6, colour_map: str = "inferno", smooth: bool = True
) -> np.ndarray:
    """Lay a heat map over a photo; values are stretched to their own range, zeros stay transparent if any is zero.

    Args:
        rgb: (H, W, 3) uint8.
        values: (h, w), 0 or more.
        opacity: 0 (photo only) to 1 (map only).
        colour_map: A name of `COLOUR_MAPS`.
        smooth: Interpolate between patches.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    heat = np.clip(enlarge(normalise(values), rgb.shape[:2], smooth), 0, 1)
    colours = colourise(heat, colour_map)
    weight = np.full(rgb.shape[:2], opacity, np.float32)
    if (values == 0).any():  # a map cut by its mass: hide what was cut
        weight *= np.clip(enlarge((values > 0).astype(np.float32), rgb.shape[:2], smooth), 0, 1)
    return blend(rgb, colours, weight)


def blend(rgb: np.ndarray, colours: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mix two pictures.

    Args:
        rgb: (H, W, 3) uint8.
        colours: (H, W, 3) uint8.
        weight: (H, W), the second one's share, 0 to 1.

    Returns:
        (H, W, 3) uint8.
    """
    weight = weight[..., None]
    return (rgb * (1 - weight) + colours * weight).round().astype(np.uint8)


def pca_picture(
    colours: np.ndarray, size: tuple[int, int], smooth: bool = False, background: np.ndarray | None = None
) -> np.ndarray:
    """Draw colours of patches at the size of a picture: black, or a faint photo, off the foreground.

    Args:
        colours: (h, w, 3), 0 to 1, nan off the foreground.
        size: (H, W) of the result.
        smooth: Interpolate between patches.
        background: (H, W, 3) uint8 photo to show, dimmed, where there is no colour.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    inside = np.isfinite(colours[..., 0]).astype(np.float32)
    weight = np.clip(enlarge(inside, size, smooth), 0, 1)
    # weighted, so that no black bleeds in over the edge of the foreground
    filled = enlarge(np.nan_to_num(colours) * inside[..., None], size, smooth) / np.maximum(weight, 1e-3)[..., None]
    picture = (np.clip(filled, 0, 1) * 255).round().astype(np.uint8)
    weight = (weight > 0.5).astype(np.float32)
    under = np.zeros_like(picture) if background is None else (background // 4).astype(np.uint8)
    return blend(under, picture, weight)


def mark_patch(rgb: np.ndarray, patch: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """Return a copy of a photo with one patch outlined.

    Args:
        rgb: (H, W, 3) uint8.
        patch: (row, column).
        grid: Patches (h, w) of the photo.
    """
    (row, column), (h, w), (height, width) = patch, grid, rgb.shape[:2]
    top_left = (column * width // w, row * height // h)
    bottom_right = ((column + 1) * width // w, (row + 1) * height // h)
    thick = max(2, round(max(height, width) / 320))
    marked = np.ascontiguousarray(rgb).copy()
    cv2.rectangle(marked, top_left, bottom_right, (0, 0, 0), thick + 2)
    cv2.rectangle(marked, top_left, bottom_right, (255, 255, 255), thick)
    return marked


def png_bytes(rgb: np.ndarray, comment: str = "") -> bytes:
    """Return a picture as PNG.

    Args:
        rgb: (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey uint8.
        comment: Kept in the file's metadata.
    """
    buffer, info = io.BytesIO(), PngInfo()
    info.add_itxt("Comment", comment)
    Image.fromarray(rgb).save(buffer, "PNG", compress_level=3, pnginfo=info)
    return buffer.getvalue()


def jpeg_url(rgb: np.ndarray, quality: int = 95) -> str:
    """Return a picture as text that a browser shows.

    Args:
        rgb: (H, W, 3) uint8.
        quality: Of the JPEG, 0 to 100.

    Returns:
        A data URL.

    Raises:
        RuntimeError: If it cannot be encoded.
    """
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError(f"a picture of {rgb.shape[1]} x {rgb.shape[0]} pixels could not be encoded for the browser")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def distinct_colours(count: int) -> np.ndarray:
    """Return `count` RGB colours (count, 3) uint8 that are easy to tell apart: golden-angle steps around the hues."""
    hues = (np.arange(count) * 137.508 + 200) % 360 / 2  # OpenCV counts hues to 180
    hsv = np.stack([hues, np.full(count, 200.0), np.full(count, 255.0)], axis=-1).round().astype(np.uint8)
    return cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
