"""Read one depth map: 16-bit PNG or TIFF in a unit, NumPy arrays in metres."""

import io
import tokenize

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...io.images import DAMAGE, MAX_PIXELS
from .exr import read_exr
from .files import DEPTH_TYPES, BadFile, Entry, read_bytes

ASPECT_TOLERANCE = 0.02  # relative; sensors and photos are cropped to whole pixels
MAX_METRES = 1000.0


def read_depth(entry: Entry, scale: float | None = None, invalid: float | None = None) -> np.ndarray:
    """Read a depth map as (H, W) float32 metres, 0 where there is no reading.

    scale: metres a unit; None means 0.001 for whole numbers, 1 for others. invalid: the value for no reading besides
    0, nan and inf. Raises BadFile with what to do.
    """
    suffix = entry.name.suffix.lower()
    if suffix not in DEPTH_TYPES:
        raise BadFile(
            entry, "depth in this type is no measurement; save it as 16-bit PNG in millimetres, or npy or exr"
        )
    data = read_bytes(entry)
    values = {".npy": _read_npy, ".exr": read_exr}.get(suffix, _read_picture)(data, entry)
    if invalid is not None:
        values = np.where(values == invalid, 0, values)
    if scale is None:
        scale = 0.001 if values.dtype.kind in "iu" else 1.0
    with np.errstate(over="ignore"):
        metres = values.astype(np.float32) * np.float32(scale)
    metres = np.where(np.isfinite(metres) & (metres > 0), metres, 0)
    if not metres.any():
        raise BadFile(entry, "the depth map holds no reading (all 0, negative or nan); leave the pair out")
    middle = float(np.median(metres[metres > 0]))
    if middle > MAX_METRES:
        raise BadFile(
            entry, f"half of it is beyond {middle:.0f} m; the unit is another: give the scale (metres a unit)"
        )
    return metres


def same_shape(depth: tuple[int, int], photo: tuple[int, int]) -> bool:
    """Tell whether a depth map's size (H, W) has a photo's aspect; sensors often have fewer pixels than cameras."""
    ratio = (depth[0] / depth[1]) / (photo[0] / photo[1])
    return abs(np.log(ratio)) <= ASPECT_TOLERANCE


def sees_depth(data: bytes) -> bool:
    """Tell whether a file given as photo is a depth map: 16-bit or floating-point grey."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "TIFF")) as image:
            return image.mode.startswith("I") or image.mode == "F"
    except (UnidentifiedImageError, Image.DecompressionBombError, *DAMAGE):
        return False


def _read_npy(data: bytes, entry: Entry) -> np.ndarray:
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (*DAMAGE, MemoryError, tokenize.TokenError) as error:  # the last: a damaged header
        raise BadFile(entry, f"is no NumPy array that can be read ({error}); save it again with np.save") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        raise BadFile(entry, "must be one array of numbers; save the depth map alone with np.save")
    values = values.squeeze()
    if values.ndim != 2 or not values.size:
        raise BadFile(entry, f"has shape {values.shape}, expected (height, width); save one depth map a file")
    return values


def _read_picture(data: bytes, entry: Entry) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "TIFF")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFile(entry, f"has more than {MAX_PIXELS // 1_000_000} million pixels; scale it down")
            if not (image.mode.startswith("I") or image.mode == "F"):
                raise BadFile(entry, _not_depth(image.mode))
            image.load()
            values = np.asarray(image)
    except BadFile:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadFile(entry, "is not a picture that can be read; save depth as 16-bit PNG in millimetres") from error
    except DAMAGE as error:
        raise BadFile(entry, f"is truncated or damaged ({error}); export it again") from error
    if values.dtype.kind in "iu" and 0 < values.max(initial=0) <= 255:
        raise BadFile(entry, "holds values up to 255 only: 8-bit depth in a 16-bit file; export it in millimetres")
    return values


def _not_depth(mode: str) -> str:
    if mode in ("L", "P", "1", "LA"):
        return "is an 8-bit picture, 256 steps without a unit; export depth as 16-bit PNG in millimetres"
    return f"is a colour picture ({mode}), no depth map; if photo and depth are swapped, exchange the files"
