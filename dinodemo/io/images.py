"""Pictures in: whatever a person drags into the page becomes an upright sRGB uint8 array."""

import hashlib
import io
import logging
import struct
import threading
import zlib
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO

import numpy as np
import pillow_heif
from PIL import Image, UnidentifiedImageError

from .decoding import Decoded, decode, decode_deep, is_deep, is_small_range
from .focal import Focal, read_focal
from .memory import most_pixels
from .resizing import center_crop, fit_within, grid_size, network_input, resize, scale_to

__all__ = [
    "ACCEPTED",
    "DAMAGE",
    "DISPLAY_SIDE",
    "FORMATS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "LONGEST_SIDE",
    "MAX_PIXELS",
    "ImageSource",
    "Photo",
    "center_crop",
    "content_digest",
    "fit_within",
    "grid_size",
    "load_image",
    "load_photo",
    "network_input",
    "resize",
    "scale_to",
    "shrink",
]

log = logging.getLogger(__name__)

LONGEST_SIDE = 2048  # pixels kept of a photo: twice the highest resolution of the network
DISPLAY_SIDE = 1024  # pixels of the pictures on the page
MAX_PIXELS = 150_000_000  # the limit against decompression bombs: 12000 x 12000 passes; of costly kinds fewer are read
LARGE = 40_000_000  # pixels: pictures beyond are decoded one at a time
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# An allow-list: Pillow's other readers include some that start programs (EPS) or are rarely fuzzed.
# JPEG stands for MPO too, which has no opener of its own.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF", "JPEG2000", "PPM", "ICO")
ACCEPTED = "JPEG, PNG, WebP, GIF, HEIC, AVIF, TIFF or BMP"

# Pillow's readers raise all of these on damaged or truncated data.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)

pillow_heif.register_heif_opener()
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # so that Pillow neither warns below our limit nor decodes above twice of it

ImageSource = str | Path | bytes | Image.Image | np.ndarray

_large_ones = threading.Lock()  # so that several large pictures at once do not add up


@dataclass(frozen=True, eq=False)
class Photo:
    """An upright picture, its name, and what had to be decided to read it.

    Attributes:
        rgb: (H, W, 3) uint8, sRGB, read-only.
        name: The file's name.
        notes: Sentences for the person, such as how numbers of 16 bits became levels; mostly none.
        focal: What the file says of the focal length; None for nothing, and for parts of photos.
    """

    rgb: np.ndarray
    name: str = "picture"
    notes: tuple[str, ...] = ()
    focal: Focal | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W)."""
        return self.rgb.shape[:2]

    @cached_property
    def digest(self) -> str:
        """Return a hash of the pixels and the shape: the identity under which features are cached."""
        return content_digest(self.rgb)


def content_digest(rgb: np.ndarray) -> str:
    """Return a hash of an array's shape and content, 32 hexadecimal digits."""
    h = hashlib.blake2b(repr(rgb.shape).encode(), digest_size=16)
    h.update(np.ascontiguousarray(rgb).data)
    return h.hexdigest()


def load_photo(source: ImageSource, name: str | None = None, longest: int | None = None) -> Photo:
    """Return a picture like `load_image`, with its file name and the notes on how it was read.

    Args:
        source: As for `load_image`.
        name: The name, where it is not that of the path.
        longest: Pixels that the longer side keeps; None keeps all. Large pictures take less memory so than when they
            are shrunk afterwards.

    Raises:
        ValueError: As `load_image` does.
    """
    rgb, notes, focal = _read(source, longest)
    rgb.flags.writeable = False
    return Photo(rgb, name or (Path(source).name if isinstance(source, str | Path) else "picture"), notes, focal)


def as_photo(image: "ImageSource | Photo", name: str | None = None) -> "Photo":
    """Return a photo as it is, and load anything else as `load_photo` does."""
    return image if isinstance(image, Photo) else load_photo(image, name)


def load_image(source: ImageSource) -> np.ndarray:
    """Read a picture into an upright (H, W, 3) uint8 sRGB array.

    Alpha is laid over white, animations give frame one, colours with an ICC profile become sRGB. Numbers of more than
    8 bits are stretched by the range that they use (`tones.find_tones`), which the log says once.

    Args:
        source: A path, the bytes of a file, a PIL image, or an (H, W), (H, W, 3) or (H, W, 4) uint8 array.

    Returns:
        The array. Reading it takes less than 1 GB, whatever the file.

    Raises:
        ValueError: With what to do, for anything that is not a picture of at most `MAX_PIXELS`, fewer for kinds that
            take more memory.
    """
    return _read(source, None).rgb


def _read(source: ImageSource, longest: int | None) -> Decoded:
    if isinstance(source, np.ndarray):
        decoded = Decoded(_from_array(source))
    elif isinstance(source, Image.Image):
        decoded = _from_pil(source, "the picture", longest)
    elif isinstance(source, str | Path):
        decoded = _from_file(Path(source), longest)
    elif isinstance(source, bytes | bytearray | memoryview):
        decoded = _from_stream(io.BytesIO(source), "the picture", longest)
    else:
        raise ValueError(f"expected a path, bytes, a PIL image or a uint8 array, got {type(source).__name__}")
    for note in decoded.notes:
        _say_once(note)
    return decoded if longest is None else decoded._replace(rgb=fit_within(decoded.rgb, longest))


@lru_cache(maxsize=64)
def _say_once(note: str) -> None:
    log.warning("a picture has more than 8 bits. %s", note)


def _from_file(path: Path, longest: int | None) -> Decoded:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read ({error.strerror or error}); check the path") from error
    with stream:
        return _from_stream(stream, path.name, longest)


def _from_stream(stream: IO[bytes], name: str, longest: int | None) -> Decoded:
    head = stream.read(1024)
    stream.seek(0)
    if not head:
        raise ValueError(f"{name} is empty (0 bytes); copy or export it again")
    if b"<svg" in head.lower():
        raise ValueError(f"{name} is an SVG drawing, not a photo; export it as PNG first")
    try:
        image = Image.open(stream, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(_too_large(name)) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not a picture that can be read; use {ACCEPTED}") from error
    except DAMAGE as error:
        raise ValueError(_damaged(name, error)) from error
    with image:
        return _from_pil(image, name, longest, stream)


def _from_pil(image: Image.Image, name: str, longest: int | None, stream: IO[bytes] | None = None) -> Decoded:
    if image.width * image.height == 0:
        raise ValueError(f"{name} has no pixels ({image.width} x {image.height})")
    try:
        most = min(MAX_PIXELS, most_pixels(image, stream))
        _check_size(image, name, most)
        deep, size = is_deep(image), image.size
        with _large_ones if image.width * image.height > LARGE else nullcontext():
            if longest is not None and image.width * image.height > LARGE:
                _decode_reduced(image, longest)
            image.load()
            _check_size(image, name, most)  # once more: a frame may be larger than the header said
            small = deep and is_small_range(image)
            focal = read_focal(image, size)  # before its pixels are freed
            exact = decode_deep(image, stream) if small and stream is not None else None
            found = exact or decode(image, own=stream is not None, high_bytes=small)
            return found._replace(focal=focal)
    except Image.DecompressionBombError as error:
        raise ValueError(_too_large(name)) from error
    except DAMAGE as error:
        if isinstance(error, _TooLarge):
            raise
        raise ValueError(_damaged(name, error)) from error


class _TooLarge(ValueError):
    """A picture has too many pixels."""


def _check_size(image: Image.Image, name: str, most: int) -> None:
    if image.width * image.height > most:
        raise _TooLarge(_too_large(name, image.width, image.height, most))


def _decode_reduced(image: Image.Image, longest: int) -> None:
    """Make a JPEG's decoder leave out detail that shrinking throws away; no other kind can."""
    scale = longest / max(image.size)
    image.draft(None, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))  # type: ignore[arg-type]


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(f"expected a uint8 array (0 to 255), got {array.dtype}; scale and convert it first")
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(f"expected an array of shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.size == 0:
        raise ValueError(f"the array has no pixels: shape {array.shape}")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ValueError(_too_large("the array", array.shape[1], array.shape[0]))
    return decode(Image.fromarray(array), own=True).rgb


def _too_large(name: str, width: int = 0, height: int = 0, most: int | None = None) -> str:
    size = f" ({width} x {height})" if width else ""
    most = MAX_PIXELS if most is None else most
    kind = "" if most == MAX_PIXELS else ", the most that is read of pictures of its kind"
    return f"{name}{size} has more than {most // 1_000_000} million pixels{kind}; scale it down and try again"


def _damaged(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or "its size is wrong, or larger than the memory"
    return f"{name} is truncated or damaged ({reason}); copy or export it again"


def shrink(photo: Photo) -> Photo:
    """Return a photo limited to `LONGEST_SIDE`: what is kept in a person's session."""
    rgb = fit_within(photo.rgb, LONGEST_SIDE)
    return photo if rgb is photo.rgb else replace(photo, rgb=rgb)
