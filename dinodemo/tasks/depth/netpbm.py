"""Read depth out of netpbm files: 16-bit grey (.pgm) and floating point (.pfm), the numbers as they are written."""

import re

import numpy as np

from ...io.images import MAX_PIXELS
from .files import BadFile, Entry

HEADER = re.compile(
    rb"(P5|Pf)\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s+(?:#[^\n]*\n\s*)*([-+.\deE]{1,40})\s"
)


def sees_numbers(data: bytes) -> bool:
    """Return whether a file holds grey values of more than 8 bits, in netpbm's formats."""
    found = HEADER.match(data)
    return bool(found and (found[1] == b"Pf" or _white(found[4]) > 255))


def read_netpbm(data: bytes, entry: Entry, grey: bool = False) -> np.ndarray:
    """Read the numbers of a .pgm or .pfm file.

    Pillow would stretch those of a .pgm by its largest value.

    Args:
        data: Content of the file.
        entry: The file, for errors.
        grey: Also take 8-bit pictures.

    Returns:
        (H, W) uint8, uint16 or float32.

    Raises:
        BadFile: It is colour, 8-bit without `grey`, or damaged.
    """
    found = HEADER.match(data)
    if not found:
        raise BadFile(entry, "is no .pgm (P5) or .pfm (Pf) of one channel; save depth as 16-bit PNG in millimetres")
    width, height = int(found[2]), int(found[3])
    if width * height > MAX_PIXELS:
        raise BadFile(entry, f"has more than {MAX_PIXELS // 1_000_000} million pixels; scale it down")
    if found[1] == b"Pf":
        kind = "<f4" if _white(found[4]) < 0 else ">f4"  # the sign of the scale tells the order of bytes
    else:
        kind = ">u2" if _white(found[4]) > 255 else "u1"
    if kind == "u1" and not grey:
        raise BadFile(
            entry,
            "is an 8-bit picture, 256 steps without a unit; export depth as 16-bit PNG in millimetres, or learn near "
            "and far only (unit none)",
        )
    content = data[found.end() :]
    if len(content) < width * height * np.dtype(kind).itemsize or not width * height:
        raise BadFile(entry, "is truncated or damaged; export it again")
    values = np.frombuffer(content, kind, width * height).reshape(height, width)
    native = values.astype(values.dtype.newbyteorder("="))
    return native[::-1] if found[1] == b"Pf" else native  # .pfm begins at the bottom


def _white(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
