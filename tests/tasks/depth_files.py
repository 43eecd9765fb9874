"""Small RGB-D files for tests: a photo, depth maps in many kinds of numbers, folders of them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (60, 80)
_Y, _X = np.mgrid[: SIZE[0], : SIZE[1]]
METRES = (6 - 5 * _Y / SIZE[0] - 0.5 * _X / SIZE[1]).astype(np.float32)  # 0.6 to 6 m, the floor rule kept
SKY = (_Y < 12) & (_X < 40)


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def as_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def in_units(factor: float, depth: np.ndarray = METRES) -> bytes:
    """Return a 16-bit PNG with so many units in a metre."""
    return encoded(np.rint(depth * factor).astype(np.uint16))


PHOTO = encoded(np.full((*SIZE, 3), 90, np.uint8), "JPEG")
COLOUR_PNG = encoded(np.full((*SIZE, 3), 90, np.uint8))


def write(folder: Path, content: dict[str, bytes | str]) -> Path:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder
