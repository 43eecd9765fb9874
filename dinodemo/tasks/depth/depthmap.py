"""Read one depth map's numbers: 16-bit PNG, TIFF or PGM, PFM, NumPy arrays, EXR."""

import io
import tokenize

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...io.images import DAMAGE, MAX_PIXELS
from .exr import read_exr
from .files import DEPTH_TYPES, BadFile, Entry, read_bytes
from .netpbm import read_netpbm, sees_numbers

NO_READING = "the depth map holds no reading (all 0, negative or nan); leave the pair out"
ASPECT_TOLERANCE = 0.02  # relative; sensors and photos are cropped to whole pixels


def read_values(entry: Entry, invalid: float | None = None, grey: bool = False) -> np.ndarray:
    """Read a depth map's numbers as the file has them.

    Args:
        entry: a 16-bit or floating-point PNG, TIFF or PGM, a PFM, npy or EXR file.
        invalid: the value for no reading besides 0, nan and inf.
        grey: also take 8-bit pictures, whose 256 steps are enough where there is no unit.

    Returns:
        (H, W) whole or floating-point numbers, 0 where `invalid` was.

    Raises:
        BadFile: with what to do.
    """
    suffix = entry.name.suffix.lower()
    if suffix not in DEPTH_TYPES:
        raise BadFile(
            entry, "depth in this type is no measurement; save it as 16-bit PNG in millimetres, or npy or exr"
        )
    data = read_bytes(entry)
    if suffix in (".npy", ".exr"):
        values = (_read_npy if suffix == ".npy" else read_exr)(data, entry)
    else:
        values = read_netpbm(data, entry, grey) if suffix in (".pgm", ".pfm") else _read_picture(data, entry, grey)
        if not grey and values.dtype.kind in "iu" and 0 < values.max(initial=0) <= 255:
            raise BadFile(entry, "holds values up to 255 only: 8-bit depth in a 16-bit file; export it in millimetres")
    if invalid is not None:
        values = np.where(values == invalid, 0, values)
    with np.errstate(invalid="ignore"):
        if not (values > 0).any():
            raise BadFile(entry, NO_READING)
    return values


def same_shape(depth: tuple[int, int], photo: tuple[int, int]) -> bool:
    """Return whether a depth map's size (H, W) has a photo's aspect; sensors often have fewer pixels than cameras."""
    ratio = (depth[0] / depth[1]) / (photo[0] / photo[1])
    return abs(np.log(ratio)) <= ASPECT_TOLERANCE


def sees_depth(data: bytes) -> bool:
    """Return whether a file given as photo is a depth map: 16-bit or floating-point grey."""
    if sees_numbers(data):
        return True
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


def _read_picture(data: bytes, entry: Entry, grey: bool) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "TIFF")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFile(entry, f"has more than {MAX_PIXELS // 1_000_000} million pixels; scale it down")
            if not (image.mode.startswith("I") or image.mode == "F" or (grey and image.mode == "L")):
                raise BadFile(entry, _not_depth(image.mode))
            if (pages := getattr(image, "n_frames", 1)) > 1:
                raise BadFile(entry, f"holds {pages} pages; save one depth map a file")
            image.load()
            values = np.asarray(image)
    except BadFile:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadFile(entry, "is not a picture that can be read; save depth as 16-bit PNG in millimetres") from error
    except DAMAGE as error:
        raise BadFile(entry, f"is truncated or damaged ({error}); export it again") from error
    return values


def _not_depth(mode: str) -> str:
    if mode in ("L", "P", "1", "LA"):
        return (
            "is an 8-bit picture, 256 steps without a unit; export depth as 16-bit PNG in millimetres, or learn "
            "near and far only (unit none)"
        )
    return f"is a colour picture ({mode}), no depth map; if photo and depth are swapped, exchange the files"
