"""Pictures in: whatever a person drags into the page becomes an upright RGB uint8 array; arrays to patch grids."""

import hashlib
import io
import math
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

LONGEST_SIDE = 2048  # pixels kept of a photo: twice the highest resolution of the network
DISPLAY_SIDE = 1024  # pixels of the pictures on the page
MAX_PIXELS = 150_000_000  # the one limit against decompression bombs: 12000 x 12000 passes
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
    struct.error,
    zlib.error,
)

pillow_heif.register_heif_opener()
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # so that Pillow neither warns below our limit nor decodes above twice of it

ImageSource = str | Path | bytes | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False)
class Photo:
    """Hold an upright picture and its name. `rgb` is (H, W, 3) uint8, read-only."""

    rgb: np.ndarray
    name: str = "picture"

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W)."""
        return self.rgb.shape[:2]

    @cached_property
    def digest(self) -> str:
        """Return a hash of the pixels and the shape: the identity under which features are cached."""
        return content_digest(self.rgb)


def content_digest(rgb: np.ndarray) -> str:
    """Hash an array's shape and content to 32 hexadecimal digits."""
    h = hashlib.blake2b(repr(rgb.shape).encode(), digest_size=16)
    h.update(np.ascontiguousarray(rgb).data)
    return h.hexdigest()


def load_photo(source: ImageSource, name: str | None = None) -> Photo:
    """Load a picture like `load_image` and keep its file name."""
    rgb = load_image(source)
    rgb.flags.writeable = False
    return Photo(rgb, name or (Path(source).name if isinstance(source, str | Path) else "picture"))


def load_image(source: ImageSource) -> np.ndarray:
    """Read a picture into an upright (H, W, 3) uint8 RGB array; alpha is laid over white, animations give frame one.

    The array may be read-only.
    source: a path, the bytes of a file, a PIL image, or an (H, W), (H, W, 3) or (H, W, 4) uint8 array.
    Raises ValueError, with what to do, for anything that is not a picture of at most `MAX_PIXELS`.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the picture")
    if isinstance(source, str | Path):
        return _from_file(Path(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_stream(io.BytesIO(source), "the picture")
    raise ValueError(f"expected a path, bytes, a PIL image or a uint8 array, got {type(source).__name__}")


def _from_file(path: Path) -> np.ndarray:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read ({error.strerror or error}); check the path") from error
    with stream:
        return _from_stream(stream, path.name)


def _from_stream(stream, name: str) -> np.ndarray:
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
        return _from_pil(image, name)


def _from_pil(image: Image.Image, name: str) -> np.ndarray:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(_too_large(name, width, height))
    if width * height == 0:
        raise ValueError(f"{name} has no pixels ({width} x {height})")
    try:
        image.load()
        # after load(): some formats learn their orientation only then
        return np.asarray(_to_rgb(_upright(image)))
    except Image.DecompressionBombError as error:  # a frame larger than the header said
        raise ValueError(_too_large(name)) from error
    except DAMAGE as error:
        raise ValueError(_damaged(name, error)) from error


def _upright(image: Image.Image) -> Image.Image:
    # exif_transpose copies also what is upright already: 0.6 GB for the largest pictures
    return image if image.getexif().get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image, dtype=np.float64))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _stretch(values: np.ndarray) -> np.ndarray:
    """Map 16-bit integers by their full range, any other numbers by their own range, to uint8."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if low >= 0 and 255 < high <= 65535:
        low, high = 0.0, 65535.0
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / max(high - low, 1e-12)
    return (scaled * 255).round().astype(np.uint8)


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(f"expected a uint8 array (0 to 255), got {array.dtype}; scale and convert it first")
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(f"expected an array of shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.size == 0:
        raise ValueError(f"the array has no pixels: shape {array.shape}")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ValueError(_too_large("the array", array.shape[1], array.shape[0]))
    return np.array(_to_rgb(Image.fromarray(array)))


def _too_large(name: str, width: int = 0, height: int = 0) -> str:
    size = f" ({width} x {height})" if width else ""
    return f"{name}{size} has more than {MAX_PIXELS // 1_000_000} million pixels; scale it down and try again"


def _damaged(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f"{name} is truncated or damaged ({reason}); copy or export it again"


def grid_size(size: tuple[int, int], resolution: int, patch_size: int) -> tuple[int, int]:
    """Return the patch grid (h, w) for a picture of `size` (H, W): aspect kept, h*w about (resolution/patch_size)**2.

    Very long pictures get one row of patches and no more patches than a square picture would.
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
    """Resample (H, W, 3) uint8 to `size` (H, W): bicubic, antialiased when shrinking, as the backbones were trained."""
    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    # reducing_gap: a cheap box reduction first, still three times finer than the target
    image = Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)


def fit_within(rgb: np.ndarray, longest: int) -> np.ndarray:
    """Shrink (H, W, 3) uint8 so that its longer side is at most `longest`; smaller ones are returned as they are."""
    return rgb if max(rgb.shape[:2]) <= longest else scale_to(rgb, longest)


def scale_to(rgb: np.ndarray, longest: int) -> np.ndarray:
    """Resize (H, W, 3) uint8, up or down, so that its longer side is `longest`."""
    height, width = rgb.shape[:2]
    scale = longest / max(height, width)
    return resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))


def center_crop(rgb: np.ndarray, resolution: int) -> np.ndarray:
    """Resize the shorter side to resolution * 256/224 and cut out the central square: the classification protocol."""
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
    """Resize an upright picture for the network: (H, W, 3) uint8 with whole patches.

    crop: None keeps the whole picture, "center" takes the classification crop (resolution rounded to whole patches).
    """
    if crop == "center":
        h, w = grid_size((1, 1), resolution, patch_size)
        return center_crop(rgb, h * patch_size)
    if crop is not None:
        raise ValueError(f'crop must be None or "center", got {crop!r}')
    h, w = grid_size(rgb.shape[:2], resolution, patch_size)
    return resize(rgb, (h * patch_size, w * patch_size))


def shrink(photo: Photo) -> Photo:
    """Limit a photo to `LONGEST_SIDE`: what is kept in a person's session."""
    rgb = fit_within(photo.rgb, LONGEST_SIDE)
    return photo if rgb is photo.rgb else Photo(rgb, photo.name)
