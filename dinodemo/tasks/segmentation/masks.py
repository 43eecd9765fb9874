"""Masks in: checks with sentences that say what to do."""

import numpy as np

from ...images import Photo


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
