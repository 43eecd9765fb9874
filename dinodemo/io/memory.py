"""What reading a picture costs, by its header: no accepted picture takes more than about a gigabyte."""

from typing import IO, Any

from PIL import Image

from .decoding import BUDGET, ROWS_PER_STRIP, stored_bytes

# bytes a pixel that a decoder takes besides what Pillow keeps: measured on 4000 x 4000 pixels with an alpha channel
WORKING = {"WEBP": 14, "AVIF": 14, "HEIF": 12, "JPEG2000": 22, "ICO": 4}
JPEG_STARTS_SCAN = 0xDA
JPEG_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))


def most_pixels(image: Image.Image, stream: IO[bytes] | None = None) -> int:
    """Return how many pixels of an image of this kind are read at most.

    Args:
        image: An image that was opened and not loaded yet.
        stream: Its file, at any place, for what Pillow does not tell of it; the place is kept.
    """
    return BUDGET // (stored_bytes(image.mode) + _working_bytes(image, stream))


def _working_bytes(image: Image.Image, stream: IO[bytes] | None) -> int:
    if image.format in ("JPEG", "MPO"):
        return _coefficients(image, stream)
    if image.format == "TIFF":
        return _strip_bytes(image)
    return WORKING.get(image.format or "", 0)


def _strip_bytes(image: Image.Image) -> int:
    """Return what libtiff takes for one strip, spread over all pixels: some writers put all rows into one."""
    if image.tile and image.tile[0][0] == "raw":  # type: ignore[attr-defined]
        return 0  # copied straight from the file
    rows = getattr(image, "tag_v2", {}).get(ROWS_PER_STRIP, image.height)
    share = min(1.0, rows / max(image.height, 1)) if isinstance(rows, int) else 1.0
    return round(share * max(4, stored_bytes(image.mode)))


def _coefficients(image: Any, stream: IO[bytes] | None) -> int:
    """Return what libjpeg keeps of a file with several scans: two bytes for each sample."""
    if stream is None or not _has_several_scans(stream):
        return 0
    layers = getattr(image, "layer", None) or [(0, 1, 1, 0)] * 3
    widest, tallest = max(layer[1] for layer in layers), max(layer[2] for layer in layers)
    return round(2 * sum(layer[1] * layer[2] for layer in layers) / max(widest * tallest, 1) + 0.5)


def _has_several_scans(stream: IO[bytes]) -> bool:
    """Read a JPEG's segments up to its first scan: whether that scan is a progressive one, or lacks a component."""
    position = stream.tell()
    try:
        stream.seek(2)
        components = progressive = 0
        while (mark := stream.read(2))[:1] == b"\xff":
            if mark[1] in JPEG_WITHOUT_LENGTH or mark[1] == 0xFF:
                stream.seek(-1 if mark[1] == 0xFF else 0, 1)
                continue
            size = int.from_bytes(stream.read(2), "big")
            if mark[1] == JPEG_STARTS_SCAN:
                return bool(progressive) or stream.read(1)[:1] != bytes([components & 255])
            if 0xC0 <= mark[1] <= 0xCF and mark[1] not in (0xC4, 0xC8, 0xCC):
                progressive, components = mark[1] in (0xC2, 0xC6, 0xCA, 0xCE), stream.read(6)[-1]
                stream.seek(size - 8, 1)
            else:
                stream.seek(size - 2, 1)
        return True  # not understood: taken for the costly kind
    except (IndexError, OSError, ValueError):
        return True
    finally:
        stream.seek(position)
