"""The pinhole camera behind a photo: its field of view, from the photo's file or assumed, and pixels in space."""

import math

import numpy as np

from ...io.images import Photo
from .options import FOV

ALONG = "along the longer side"
ASSUMED = f"{FOV.default:g}° {ALONG} are assumed, as phones' main cameras have"


def field_of_view(photo: Photo) -> float:
    """Return the field of view along the longer side, in degrees: the file's, else the default."""
    fov = photo.focal.fov if photo.focal else None
    return FOV.default if fov is None else round(min(max(fov, FOV.low), FOV.high), 1)  # as the slider has it


def camera_words(photo: Photo, fov: float) -> str:
    """Return in a sentence where a field of view is from: the photo's file, the default, or set by hand.

    Args:
        photo: Whose file may tell it.
        fov: Along the longer side, in degrees.
    """
    evidence = photo.focal.words if photo.focal else "the photo's file tells no focal length"
    evidence = f"{evidence[0].upper()}{evidence[1:]}"
    told = photo.focal.fov if photo.focal else None
    if abs(fov - field_of_view(photo)) > FOV.step / 2:
        by_hand = f"Field of view set by hand: {fov:.1f}° {ALONG}"
        return f"{by_hand}. {evidence}." if told is None else f"{by_hand}. {evidence}, {told:.1f}° {ALONG}."
    return f"{evidence}; {ASSUMED}." if told is None else f"{evidence}, {told:.1f}° {ALONG}."


def focal_pixels(size: tuple[int, int], fov: float) -> float:
    """Return the focal length in pixels.

    Args:
        size: (H, W) of the picture.
        fov: Along the longer side, in degrees.

    Raises:
        ValueError: The field of view is out of range.
    """
    if not FOV.low <= fov <= FOV.high:
        raise ValueError(
            f"the field of view must be {FOV.low:g} to {FOV.high:g} degrees, got {fov}; phones have about 65"
        )
    return max(size) / (2 * math.tan(math.radians(fov) / 2))


def place(depth: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: tuple[int, int], fov: float) -> np.ndarray:
    """Return where pixels lie: x to the right, y up, the camera at the origin looking along -z through the middle.

    Args:
        depth: (...) along the camera's axis.
        rows: (...) of the pixels.
        columns: (...) of the pixels.
        size: (H, W) of the picture.
        fov: Along the longer side, in degrees.

    Returns:
        (..., 3) float32 in the depth's unit.
    """
    focal = focal_pixels(size, fov)
    x = (np.asarray(columns) + 0.5 - size[1] / 2) / focal
    y = (size[0] / 2 - np.asarray(rows) - 0.5) / focal
    return np.stack(np.broadcast_arrays(depth * x, depth * y, -np.asarray(depth)), axis=-1).astype(np.float32)
