"""From a decoded file to upright sRGB, block by block, so that the largest pictures stay within a bounded memory."""

import tempfile
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from .colour_profiles import to_srgb
from .focal import Focal
from .tones import Tones, find_tones

BUDGET = 900_000_000  # bytes that one picture may take while it is read; what blocks need comes on top
BLOCK_PIXELS = 1_000_000  # that are converted at once
WHITE_IS_ZERO = 0  # TIFF 6.0, PhotometricInterpretation
PHOTOMETRIC, BITS, ROWS_PER_STRIP, NO_DATA = 262, 258, 278, 42113  # tags of TIFF; the last is GDAL's
SAMPLE_FORMAT, UNSIGNED = 339, 1  # of a TIFF
DEEP_BYTES = 15  # a pixel, where both decoders hold it, and its file
DEEP_SMALL = 63  # the largest high byte of 16-bit colours that use 14 bits or fewer

Box = tuple[int, int, int, int]
Convert = Callable[[Image.Image], np.ndarray]


class Decoded(NamedTuple):
    """A picture, upright (H, W, 3) uint8 sRGB, sentences on how its numbers were read, and its focal length."""

    rgb: np.ndarray
    notes: tuple[str, ...] = ()
    focal: Focal | None = None


def decode(image: Image.Image, own: bool, high_bytes: bool = False) -> Decoded:
    """Convert a loaded image.

    Args:
        image: A Pillow image whose pixels are loaded.
        own: Whether nobody else needs the image, so that it may be closed on the way to save memory.
        high_bytes: Whether it holds the high bytes of 16-bit colours of a small range, which are stretched then.

    Returns:
        An array of its own.
    """
    convert, note = _stretcher(image) if high_bytes else _converter(image)
    width, height = image.size
    # after load(): some formats learn their orientation only then
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    upright = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    pixels = width * height
    if own and pixels * (stored_bytes(image.mode) + 3) > BUDGET:
        return Decoded(_by_way_of_a_file(image, convert, upright, orientation), note)
    rgb = np.empty((*upright, 3), np.uint8)
    stored = as_stored(rgb, orientation)
    for left, top, right, bottom in boxes(image.size):
        stored[top:bottom, left:right] = convert(image.crop((left, top, right, bottom)))
    return Decoded(rgb, note)


def _by_way_of_a_file(image: Image.Image, convert: Convert, upright: tuple[int, int], orientation: int) -> np.ndarray:
    """Convert into a temporary file first: the image and its array would be too much for the memory at once."""
    size = image.size
    with tempfile.TemporaryFile() as file:
        for box in boxes(size):
            file.write(convert(image.crop(box)).tobytes())
        image.close()  # frees its pixels
        file.seek(0)
        rgb = np.empty((*upright, 3), np.uint8)
        stored = as_stored(rgb, orientation)
        for left, top, right, bottom in boxes(size):
            shape = (bottom - top, right - left, 3)
            stored[top:bottom, left:right] = np.frombuffer(file.read(int(np.prod(shape))), np.uint8).reshape(shape)
    return rgb


def stored_bytes(mode: str) -> int:
    """Return the bytes that Pillow takes for a pixel of a mode."""
    return 1 if mode in ("1", "L", "P") else 2 if mode.startswith("I;16") else 4


def boxes(size: tuple[int, int]) -> Iterator[Box]:
    """Yield blocks (left, top, right, bottom) of a picture of `size` (width, height), row by row."""
    width, height = size
    across = min(width, BLOCK_PIXELS)
    down = max(1, BLOCK_PIXELS // across)
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield left, top, min(left + across, width), min(top + down, height)


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view of an upright picture in the order of its file.

    Args:
        upright: (H, W, ...).
        orientation: EXIF orientation, 1 to 8 (TIFF 6.0, Orientation).
    """
    views: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        2: lambda u: u[:, ::-1],
        3: lambda u: u[::-1, ::-1],
        4: lambda u: u[::-1],
        5: lambda u: u.transpose(1, 0, 2),
        6: lambda u: u.transpose(1, 0, 2)[::-1],
        7: lambda u: u.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda u: u.transpose(1, 0, 2)[:, ::-1],
    }
    return views.get(orientation, lambda u: u)(upright)


def _converter(image: Image.Image) -> tuple[Convert, tuple[str, ...]]:
    """Return what turns a block of an image into (h, w, 3) uint8 sRGB, and what to tell."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        numbers = unsigned if image.mode == "I" and _tags(image).get(SAMPLE_FORMAT, (0,))[0] == UNSIGNED else np.asarray
        tones = find_tones(lambda: (numbers(image.crop(box)) for box in boxes(image.size)), _no_data(image))
        inverted = image.mode != "F" and _tags(image).get(PHOTOMETRIC) == WHITE_IS_ZERO
        return lambda block: _grey(tones.apply(numbers(block)), inverted), _notes(tones)
    convert = to_srgb(image) or (lambda block: block.convert("RGB"))
    if image.has_transparency_data:
        return lambda block: _over_white(np.array(convert(block)), block), ()
    return lambda block: np.asarray(convert(block)), ()


def unsigned(image: Image.Image) -> np.ndarray:
    """Return the numbers (h, w) of a mode "I" image as uint32: Pillow has taken those of the file as signed."""
    return np.asarray(image).view(np.uint32)


def _stretcher(image: Image.Image) -> tuple[Convert, tuple[str, ...]]:
    tones = find_tones(
        lambda: (np.asarray(image.crop(box).convert("RGB"), np.uint16) << 8 for box in boxes(image.size))
    )
    return lambda block: tones.apply(np.asarray(block.convert("RGB"), np.uint16) << 8), _notes(tones)


def _over_white(rgb: np.ndarray, block: Image.Image) -> np.ndarray:
    white = Image.new("RGB", block.size, "white")
    white.paste(Image.fromarray(rgb), mask=block.convert("RGBA").getchannel("A"))
    return np.asarray(white)


def _grey(levels: np.ndarray, inverted: bool) -> np.ndarray:
    return np.repeat((255 - levels if inverted else levels)[..., None], 3, axis=2)


def _notes(tones: Tones) -> tuple[str, ...]:
    return (f"{tones.note}.",) if tones.note else ()


def _tags(image: Image.Image) -> dict:
    return getattr(image, "tag_v2", None) or {}


def _no_data(image: Image.Image) -> float | None:
    text = str(_tags(image).get(NO_DATA, "")).strip("\0 ")
    try:
        return float(text)
    except ValueError:
        return None


# colours of 16 bits: Pillow keeps the high byte of each, which is black where fewer bits are used


def is_deep(image: Image.Image) -> bool:
    """Return whether a file that is not loaded yet holds colours of 16 bits."""
    tile = image.tile[0] if getattr(image, "tile", None) else None  # type: ignore[attr-defined]
    arguments = (tile[3] or ()) if tile else ()
    raw = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return isinstance(raw, str) and ";16" in raw and not raw.startswith("I;16")


def is_small_range(image: Image.Image) -> bool:
    """Return whether a loaded image of 16-bit colours uses a part of its range, by the high bytes that Pillow kept.

    Colours with a profile are a photograph's, and use all of it whether it is dark or not.
    """
    if image.info.get("icc_profile"):
        return False
    colours = np.array(image.getextrema())[:3]
    low, high = colours[:, 0].min(), colours[:, 1].max()
    return bool(high <= DEEP_SMALL or (low > 32 and high - low < 127))


def decode_deep(image: Image.Image, stream: IO[bytes]) -> Decoded | None:
    """Return the picture of a file with colours of 16 bits; None where OpenCV cannot read it or it is too large.

    Args:
        image: The file as Pillow opened it.
        stream: The same file.
    """
    import cv2

    if image.width * image.height > BUDGET // DEEP_BYTES:
        return None
    stream.seek(0)
    found = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if found is None or found.ndim != 3 or found.shape[2] not in (3, 4) or found.dtype != np.uint16:
        return None
    height, width = found.shape[:2]
    cut = [(slice(top, bottom), slice(left, right)) for left, top, right, bottom in boxes((width, height))]
    tones = find_tones(lambda: (found[at][..., :3] for at in cut))
    rgb = np.empty((*((width, height) if orientation in (5, 6, 7, 8) else (height, width)), 3), np.uint8)
    stored = as_stored(rgb, orientation)
    for at in cut:
        block = tones.apply(found[at][..., 2::-1])
        if found.shape[2] == 4:
            alpha = found[at][..., 3:].astype(np.float32) / 65535
            block = (block * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
        stored[at] = block
    return Decoded(rgb, _notes(tones))
