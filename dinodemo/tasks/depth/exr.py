"""Read a depth channel out of an OpenEXR file: scan lines, stored plainly or with ZIP compression."""

import re
import struct
import zlib

import numpy as np

from ...io.images import MAX_PIXELS
from .files import BadFile, Entry

MAGIC = 20000630
TILED, DEEP, MULTIPART = 1 << 9, 1 << 11, 1 << 12  # flags of the version field
LINES = {0: 1, 1: 1, 2: 1, 3: 16}  # compression (none, run lengths, zips, zip) -> scan lines a chunk
OTHERS = {4: "PIZ", 5: "PXR24", 6: "B44", 7: "B44A", 8: "DWAA", 9: "DWAB"}
RLE = 1
TYPES = {0: "<u4", 1: "<f2", 2: "<f4"}
DEPTH_CHANNELS = ("Z", "depth", "Depth", "depth.Z")  # the first of these
PLAIN_CHANNELS = ("Y", "R", "V")  # of pictures of one value, where nothing is called depth
LAYER_CHANNELS = re.compile(
    r"(^|\.)(depth|z)(\.(z|v|y|r|x))?$", re.IGNORECASE
)  # ViewLayer.Depth.Z of a renderer's layers
OTHER_LAYERS = re.compile(r"(normal|position|vector|mist|uv|cryptomatte)[^.]*\.[^.]+$", re.IGNORECASE)
ADVICE = "save it as one-channel scan lines with ZIP compression, or as npy"


def read_exr(data: bytes, entry: Entry) -> np.ndarray:
    """Read (H, W) depth of an EXR file's bytes as float32, in the file's unit; raises BadFile for other kinds.

    Source: "OpenEXR File Layout", openexr.com.
    """
    try:
        return _read(data, entry)
    except (struct.error, zlib.error, ValueError, KeyError, IndexError, OverflowError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(entry, f"is no EXR file that can be read ({error}); {ADVICE}") from error


def _read(data: bytes, entry: Entry) -> np.ndarray:
    magic, version = struct.unpack_from("<II", data)
    if magic != MAGIC:
        raise ValueError("it does not start as one")
    if version & (TILED | DEEP | MULTIPART):
        raise BadFile(entry, f"is a tiled, deep or multi-part EXR; {ADVICE}")
    header, at = _header(data)
    channels = _channels(header["channels"])
    left, top, right, bottom = struct.unpack("<4i", header["dataWindow"])
    height, width = bottom - top + 1, right - left + 1
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise ValueError(f"its window is {width} x {height}")
    if header["compression"][0] not in LINES:
        used = OTHERS.get(header["compression"][0], "a")
        raise BadFile(entry, f"uses {used} compression, which is not read here; {ADVICE}")
    name = _depth_channel(channels)
    if name is None:
        raise BadFile(entry, f"has channels {', '.join(channels)}, none of them called Z or Depth; {ADVICE}")
    depth = _read_channel(data, at, (height, width), top, channels, name, header["compression"][0])
    if name == "R" and {"G", "B"} <= channels.keys():
        others = [_read_channel(data, at, (height, width), top, channels, n, header["compression"][0]) for n in "GB"]
        if not all(np.array_equal(other, depth, equal_nan=True) or not other.any() for other in others):
            raise BadFile(entry, f"holds colours (R, G and B differ), and no channel called Z or Depth; {ADVICE}")
    return depth


def _read_channel(
    data: bytes, at: int, size: tuple[int, int], top: int, channels: dict, name: str, compression: int
) -> np.ndarray:
    height, width = size
    chunk_lines = LINES[compression]
    offsets = struct.unpack_from(f"<{-(-height // chunk_lines)}Q", data, at)
    depth = np.empty((height, width), np.float32)
    for offset in offsets:
        _read_chunk(data, offset, depth, top, channels, name, compression)
    return depth


def _header(data: bytes) -> tuple[dict[str, bytes], int]:
    at, attributes = 8, {}
    while data[at]:
        name, at = _text(data, at)
        _, at = _text(data, at)
        (size,) = struct.unpack_from("<I", data, at)
        attributes[name] = data[at + 4 : at + 4 + size]
        at += 4 + size
    return attributes, at + 1


def _channels(content: bytes) -> dict[str, np.dtype]:
    """Return name -> type in the file's order; raises ValueError for channels of lower resolution."""
    at, found = 0, {}
    while content[at]:
        name, at = _text(content, at)
        kind, _, across, down = struct.unpack_from("<iIii", content, at)
        if (across, down) != (1, 1):
            raise ValueError("it has subsampled channels")
        found[name], at = np.dtype(TYPES[kind]), at + 16
    return found


def _read_chunk(
    data: bytes, offset: int, depth: np.ndarray, top: int, channels: dict, name: str, compression: int
) -> None:
    """Decode one chunk of scan lines into depth: a line holds all its values of one channel, then those of the next."""
    y, size = struct.unpack_from("<iI", data, offset)
    first, width = y - top, depth.shape[1]
    lines = min(LINES[compression], len(depth) - first)
    stride = sum(kind.itemsize for kind in channels.values()) * width
    raw = data[offset + 8 : offset + 8 + size]
    if first < 0 or lines < 1 or len(raw) != size:
        raise ValueError("a chunk lies outside of the file or picture")
    if size < stride * lines:  # chunks that would not get smaller are stored plainly
        raw = _unzip(raw, stride * lines, compression)
    start = 0
    for channel, kind in channels.items():
        if channel == name:
            break
        start += kind.itemsize * width
    for line in range(lines):
        depth[first + line] = np.frombuffer(raw, channels[name], width, line * stride + start)


def _depth_channel(channels: dict[str, np.dtype]) -> str | None:
    """Return the channel of depth: a usual name, else a layer's depth (the first layer's), else the only channel."""
    if name := next((n for n in DEPTH_CHANNELS if n in channels), None):
        return name
    layers = [n for n in channels if LAYER_CHANNELS.search(n) and not OTHER_LAYERS.search(n)]
    named = [n for n in layers if "depth" in n.lower()] or layers
    if named:
        return min(named)
    return next((n for n in PLAIN_CHANNELS if n in channels), next(iter(channels)) if len(channels) == 1 else None)


def _unpack_runs(raw: bytes, size: int) -> bytes:
    """Undo run lengths: a count below 0 is followed by that many bytes as they are, others by one to repeat."""
    at, parts, total = 0, [], 0
    while at < len(raw) and total < size:
        count = raw[at] - 256 if raw[at] > 127 else raw[at]
        parts.append(raw[at + 1 : at + 1 - count] if count < 0 else raw[at + 1 : at + 2] * (count + 1))
        at += 1 - count if count < 0 else 2
        total += len(parts[-1])
    return b"".join(parts)


def _unzip(raw: bytes, size: int, compression: int) -> bytes:
    """Undo zlib or run lengths, then the differences, then the split into even and odd bytes."""
    plain = _unpack_runs(raw, size) if compression == RLE else zlib.decompressobj().decompress(raw, size)
    if len(plain) != size:
        raise ValueError("a chunk is cut off")
    differences = np.frombuffer(plain, np.uint8).astype(np.int64)
    differences[1:] -= 128
    summed = np.cumsum(differences).astype(np.uint8)
    joined = np.empty(size, np.uint8)
    joined[0::2], joined[1::2] = summed[: (size + 1) // 2], summed[(size + 1) // 2 :]
    return joined.tobytes()


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode("ascii", "replace"), end + 1
