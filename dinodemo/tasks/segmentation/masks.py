"""Masks in: arrays and files of any accepted format, with sentences that say what to do."""

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ...io.images import DAMAGE, FORMATS, Photo, load_image
from ...io.zips import unpacked_size
from .annotations import ACCEPTED, BAD, MAX_BYTES, read_annotations
from .labels import Label, MaskFile, from_index, from_layers, scaled
from .mask_pictures import read_picture, read_values
from .shapes import MOST_PIXELS, Annotated

MAX_ARRAY_BYTES = 600_000_000  # that a NumPy file unpacks to
__all__ = ["Label", "MaskFile", "as_mask", "check_reference", "open_mask_file", "read_mask_file"]


def as_mask(mask: np.ndarray, photo: Photo) -> np.ndarray:
    """Return an array as an (H, W) bool mask of a picture.

    Args:
        mask: bool, or numbers: above half of the range (127 for 0 to 255, 0.5 for 0 to 1) counts as inside.
        photo: the picture.

    Raises:
        ValueError: when it is not two-dimensional or not of the picture's size.
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


def read_mask_file(path: str | Path, photo: Photo, labels: Sequence[str] = (), invert: bool = False) -> np.ndarray:
    """Read a mask file as the mask of a photo.

    Args:
        path: a picture, NumPy file or annotation file, see `open_mask_file`.
        photo: what it is the mask of.
        labels: which of its labels are the object; needed where it holds several.
        invert: take what these labels do not cover.

    Returns:
        (H, W) bool, at the photo's size.

    Raises:
        ValueError: as `open_mask_file` and `MaskFile.choose`, and for a mask that marks nothing.
    """
    file = open_mask_file(path, photo)
    mask = file.choose(labels, invert)
    if not mask.any():
        raise ValueError(f"{file.name} marks nothing; the object has to be white, coloured or opaque in it")
    return mask


def split_labels(text: str) -> list[str]:
    """Return the labels of a list with commas; the commas of a colour "200,0,0" or "(200, 0, 0)" belong to it."""
    colour = re.fullmatch(r"\(?\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)?", text.strip())
    if colour and "(" in text:
        return [text.strip()]
    return [part.strip() for part in text.split(",") if part.strip()]


def open_mask_file(path: str | Path, photo: Photo, name: str = "") -> MaskFile:
    """Read the labels that a file holds for a photo, scaled to its size.

    Args:
        path: a picture (black and white, class indices, flat colours, opaque parts), .npy or .npz (one mask, labels,
            or a stack of masks), COCO json, YOLO polygons, labelme json, CVAT xml or a Label Studio json export.
        photo: the photo; in a file of many photos its name finds it.
        name: of the file, where the path does not tell.

    Raises:
        ValueError: for a photo, an unknown or damaged file, and a picture of another shape than the photo's (a
            uniformly scaled one is accepted).
    """
    path = Path(path)
    name = name or path.name
    head = _head(path)
    if head.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        file = read_array(path, name)
    elif is_text(head):
        return from_annotations(_of_photo(read_annotations(_content(path, name), name), photo, name), photo, name)
    else:
        file = _open_picture(path, name)
    _check_shape(file, photo)
    return scaled(file, photo.size)


def read_array(source: Path | bytes, name: str) -> MaskFile:
    """Read a .npy or .npz: (H, W) mask or labels, or a stack (N, H, W) or (H, W, N) of masks."""
    _check_unpacked(source, name)
    try:
        with np.load(io.BytesIO(source) if isinstance(source, bytes) else source, allow_pickle=False) as archive:
            if len(archive.files) != 1:
                raise ValueError(f"it holds {len(archive.files)} arrays, one was expected")
            array = archive[archive.files[0]]
    except (AttributeError, TypeError):  # a .npy has no `with`
        array = np.load(io.BytesIO(source) if isinstance(source, bytes) else source, allow_pickle=False)
    except (*DAMAGE, zipfile.BadZipFile, MemoryError) as error:
        raise ValueError(f"{name} cannot be read as NumPy masks ({error}); save it with np.save") from error
    array = np.squeeze(array)
    if array.dtype.kind not in "biuf" or not 2 <= array.ndim <= 3 or not array.size:
        raise ValueError(f"{name} must hold (H, W) numbers or a stack of masks, got {array.shape} {array.dtype}")
    if array.dtype == bool and array.ndim == 2:
        return from_index(name, array.astype(np.int32), ["1"], background="0", binary=True)
    if array.ndim == 2:
        return read_values(array, name)
    if array.dtype == np.uint8 and array.shape[-1] in (3, 4) and array.max() > 1:
        return read_picture(Image.fromarray(array), name)  # colours
    stack = np.moveaxis(array, -1, 0) if array.shape[-1] < min(array.shape[:2]) else array
    layers = {str(i): layer > (127 if stack.max() > 1 else 0.5) for i, layer in enumerate(stack, start=1)}
    return from_layers(name, layers, stack.shape[1:])


def _check_unpacked(source: Path | bytes, name: str) -> None:
    """Raise ValueError for an archive of arrays that would fill the memory."""
    if not zipfile.is_zipfile(io.BytesIO(source) if isinstance(source, bytes) else source):
        return
    try:
        size = unpacked_size(source, most=1)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{name} cannot be read as NumPy masks ({error}); save it with np.save") from error
    if size > MAX_ARRAY_BYTES:
        raise ValueError(f"{name} unpacks to more than {MAX_ARRAY_BYTES // 1_000_000} MB; save one mask as uint8")


def from_annotations(annotated: Annotated, photo: Photo, name: str) -> MaskFile:
    """Return the shapes of a photo as a mask file of the photo's size.

    Args:
        annotated: The shapes.
        photo: That they lie on.
        name: Of the file, for messages.

    Raises:
        ValueError: They were drawn on a photo of another size, cannot be drawn, or have no area.
    """
    size = annotated.size
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"{name} says that its photo is {size[1]}x{size[0]}, more than can be; export it again")
    if size is not None and not _same_shape(size, photo.size):
        raise ValueError(
            f"{name} was drawn on {size[1]}x{size[0]} but the photo is {photo.size[1]}x{photo.size[0]}; "
            "give the photo that it belongs to"
        )
    try:
        layers = annotated.layers(photo.size)
    except BAD as error:
        raise ValueError(f"{name} holds a shape that cannot be drawn ({error}); export it again") from error
    if annotated.left_out and not layers:
        kinds = ", ".join(sorted(set(annotated.left_out)))
        raise ValueError(f"{name} holds no areas on {photo.name}, only {kinds}; export polygons or masks")
    notes = (f"{len(annotated.left_out)} shapes without an area are left out",) if annotated.left_out else ()
    return from_layers(name, layers, photo.size, notes=notes)


def is_text(head: bytes) -> bool:
    """Return whether a file's first bytes are those of an annotation file."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return bool(start) and (start in b"{[<" or start.isdigit()) and b"\0" not in head and b"<svg" not in head.lower()


def _of_photo(found: list[Annotated], photo: Photo, name: str) -> Annotated:
    """Return what a file says of the photo: by its name, else the only one there is."""
    if len(found) == 1:
        return found[0]
    wanted = PurePosixPath(photo.name)
    for same in (lambda p: p.name == wanted.name, lambda p: p.stem.casefold() == wanted.stem.casefold()):
        matches = [one for one in found if same(PurePosixPath(one.photo.replace("\\", "/")))]
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(one.photo for one in matches[:5])
            raise ValueError(f"{name} is about several photos called {photo.name} ({listed}); give one of them alone")
    names = ", ".join(one.photo for one in found[:5])
    raise ValueError(f"{name} is about {len(found)} photos ({names} ...), none of them called {photo.name}; rename it")


def _open_picture(path: Path, name: str) -> MaskFile:
    load_image(path)  # the same checks and messages as for photos
    with Image.open(path, formats=FORMATS) as image:
        file, pages = read_picture(image, name), getattr(image, "n_frames", 1)
    note = f"{name} holds {pages} pictures; the first one was taken"
    return replace(file, notes=(*file.notes, note)) if pages > 1 else file


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read ({error.strerror or error}); check the path") from error


def _content(path: Path, name: str) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES // 1_000_000} MB; give {ACCEPTED}")
    return path.read_bytes()


def _check_shape(file: MaskFile, photo: Photo) -> None:
    if not _same_shape(file.index.shape, photo.size):
        (h, w), (height, width) = file.index.shape, photo.size
        raise ValueError(
            f"mask is {w}x{h} but the photo is {width}x{height}; draw it on this photo or export it in its shape"
        )


def _same_shape(a: tuple[int, ...], b: tuple[int, int]) -> bool:
    (h, w), (height, width) = a, b
    return abs(h * width - w * height) <= max(h, w, height, width)


def check_reference(mask: np.ndarray, photo: Photo) -> None:
    """Check that a mask says what the object is: one that is empty or covers everything does not.

    Args:
        mask: (H, W) bool.
        photo: That it lies on.

    Raises:
        ValueError: It is empty or covers everything.
    """
    if not mask.any():
        raise ValueError(f"the mask on {photo.name} is empty; draw over the object to be found")
    if mask.all():
        raise ValueError(f"the mask covers all of {photo.name}; leave the background out, it shows what is not meant")


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]}x{shape[0]} (width x height)"
