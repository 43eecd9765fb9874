"""Masks in: checks with sentences that say what to do."""

from pathlib import Path

import numpy as np
from PIL import Image

from ...io.images import Photo, load_image


def as_mask(mask: np.ndarray, photo: Photo) -> np.ndarray:
    """Turn an array into an (H, W) bool mask of a picture.

    mask: bool, or numbers: above half of the range (127 for 0 to 255, 0.5 for 0 to 1) counts as inside.
    Raises ValueError when it is not two-dimensional or not of the picture's size.
    """
    array = np.asarray(mask)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        raise ValueError(f"a mask must be an array of shape (H, W), got shape {array.shape}; use one channel")
    if array.shape != photo.size:
        raise ValueError(
            f"the mask is {_size(array.shape)} but {photo.name} is {_size(photo.size)}; "
            "draw it on this picture, or scale or rotate it to fit"
        )
    if array.dtype == bool:
        return array
    return array > (127 if array.size and array.max() > 1 else 0.5)


def read_mask_file(path: str | Path, photo: Photo) -> np.ndarray:
    """Read an uploaded mask as (H, W) bool: bright, coloured or opaque is the thing; black or transparent is not.

    Raises ValueError if it does not have the photo's shape (a uniformly scaled one is accepted) or marks nothing.
    """
    load_image(path)  # the same checks and messages as for photos
    with Image.open(path) as image:
        marked = _marked(image)
    (h, w), (height, width) = marked.shape, photo.size
    if abs(h * width - w * height) > max(h, w, height, width):
        raise ValueError(
            f"mask is {w}x{h} but the photo is {width}x{height}; draw it on this photo or export it in its shape"
        )
    if not marked.any():
        raise ValueError(f"{Path(path).name} marks nothing; the thing has to be white or opaque in it")
    mask = Image.fromarray(marked.astype(np.uint8))
    return np.asarray(mask.resize((width, height), Image.Resampling.NEAREST)) > 0


def _marked(image: Image.Image) -> np.ndarray:
    if image.mode == "P":  # annotation tools write class indices
        return np.asarray(image) > 0
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            return alpha > 127
    grey = np.asarray(image.convert("L"))
    return grey > (127 if grey.max() > 127 else 0)


def check_reference(mask: np.ndarray, photo: Photo) -> None:
    """Raise ValueError for a mask that is empty or covers everything: neither says what the thing is."""
    if not mask.any():
        raise ValueError(f"the mask on {photo.name} is empty; draw over the thing to be found")
    if mask.all():
        raise ValueError(
            f"the mask covers all of {photo.name}; leave the background out, it shows what the thing is not"
        )


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]}x{shape[0]} (width x height)"
