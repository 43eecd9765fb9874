"""Pictures as files of every kind."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encode(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """Write a PNG by hand, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    chunk = struct.Struct(">I").pack
    packed = (chunk(len(data)) + kind + data + chunk(zlib.crc32(kind + data)) for kind, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a stored picture by its EXIF orientation, pixel by pixel from the standard's table."""
    height, width = stored.shape[:2]
    rows, columns = (width, height) if orientation >= 5 else (height, width)
    bottom, right = height - 1, width - 1
    source = {
        1: lambda y, x: (y, x),
        2: lambda y, x: (y, right - x),
        3: lambda y, x: (bottom - y, right - x),
        4: lambda y, x: (bottom - y, x),
        5: lambda y, x: (x, y),
        6: lambda y, x: (bottom - x, y),
        7: lambda y, x: (bottom - x, right - y),
        8: lambda y, x: (x, right - y),
    }[orientation]
    return np.array([[stored[source(y, x)] for x in range(columns)] for y in range(rows)])
