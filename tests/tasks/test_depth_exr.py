"""Depth in EXR files: compressions, layers of a renderer, damage."""

import itertools
import struct
import zlib
from pathlib import PurePosixPath

import numpy as np
import pytest
from depth_files import METRES, PHOTO, write

from dinodemo.tasks.depth import read_pairs
from dinodemo.tasks.depth.exr import read_exr
from dinodemo.tasks.depth.files import BadFile, Entry


def run_lengths(data: bytes) -> bytes:
    """Pack equal bytes as a count and the byte, others as they are behind a negative count."""
    packed = b""
    for byte, run in itertools.groupby(data):
        length = len(list(run))
        while length > 0:
            part = min(length, 128)
            packed += struct.pack("bB", part - 1, byte) if part > 1 else struct.pack("bB", -1, byte)
            length -= part
    return packed


def make_exr(planes: dict[str, np.ndarray], compression: int) -> bytes:
    """Write scan lines as openexr.com's file layout has them; checked once against the OpenEXR library's own files."""
    kinds = {"uint32": 0, "float16": 1, "float32": 2}
    height, width = next(iter(planes.values())).shape
    names = sorted(planes)

    def attribute(name, kind, value):
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<I", len(value)) + value

    listed = b"".join(n.encode() + b"\0" + struct.pack("<iIii", kinds[planes[n].dtype.name], 0, 1, 1) for n in names)
    window = struct.pack("<4i", 0, 10, width - 1, height + 9)
    head = struct.pack("<II", 20000630, 2) + attribute("channels", "chlist", listed + b"\0")
    head += attribute("compression", "compression", bytes([compression]))
    head += attribute("dataWindow", "box2i", window) + attribute("displayWindow", "box2i", window) + b"\0"
    step = 16 if compression == 3 else 1
    chunks, offsets = b"", []
    start = len(head) + 8 * -(-height // step)
    for top in range(0, height, step):
        lines = range(top, min(top + step, height))
        raw = b"".join(planes[n][y].astype(planes[n].dtype.newbyteorder("<")).tobytes() for y in lines for n in names)
        if compression:
            split = raw[0::2] + raw[1::2]
            steps = bytes([split[0], *((b - a + 128) % 256 for a, b in itertools.pairwise(split))])
            packed = run_lengths(steps) if compression == 1 else zlib.compress(steps)
            raw = packed if len(packed) < len(raw) else raw
        offsets.append(start + len(chunks))
        chunks += struct.pack("<iI", top + 10, len(raw)) + raw
    return head + struct.pack(f"<{len(offsets)}Q", *offsets) + chunks


ENTRY = Entry(PurePosixPath("x.exr"), bytes)


@pytest.mark.parametrize("compression", [0, 2, 3])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_exr_is_read(compression, kind):
    depth = np.linspace(0.5, 9, 37 * 21).reshape(37, 21).round(1).astype(kind)
    planes = {"Z": depth, "A": np.ones(depth.shape, np.float16), "B": np.zeros(depth.shape, np.uint32)}
    found = read_exr(make_exr(planes, compression), ENTRY)
    assert found.dtype == np.float32 and np.array_equal(found, depth.astype(np.float32))


@pytest.mark.parametrize(
    "name", ["ViewLayer.Depth.Z", "RenderLayer.Depth.Z", "View Layer.Depth.V", "scene.depth", "ViewLayer.Z"]
)
def test_depth_is_found_among_a_renderers_layers(name):
    depth = np.linspace(0.5, 9, 20 * 9).reshape(20, 9).astype(np.float32)
    wrong = np.zeros(depth.shape, np.float32)
    layer = name.split(".")[0]
    others = ("Combined.R", "Combined.G", "Combined.A", "Normal.Z", "Position.Z", "Vector.Z", "Mist.Z", "Vector.Y")
    planes = {f"{layer}.{other}": wrong for other in others} | {name: depth, "R": wrong}
    assert np.array_equal(read_exr(make_exr(planes, 3), ENTRY), depth)


def test_run_lengths_are_read():
    depth = np.repeat(np.float32([1, 2, 5]), 60).reshape(20, 9)
    assert np.array_equal(read_exr(make_exr({"Z": depth}, 1), ENTRY), depth)


def test_other_kinds_of_exr_are_refused():
    whole = make_exr({"Z": np.ones((20, 9), np.float32)}, 3)
    tiled = whole[:5] + b"\2" + whole[6:]
    cases = {
        "tiled": tiled,
        "compression": whole.replace(b"compression\0\1\0\0\0\3", b"compression\0\1\0\0\0\4"),
        "none of them called Z": make_exr({n: np.ones((2, 2), np.float32) for n in ("one", "two")}, 0),
        "no EXR file": whole[:-7],
    }
    for reason, data in cases.items():
        with pytest.raises(BadFile, match=reason):
            read_exr(data, ENTRY)


def test_damaged_exr_never_raises_anything_else():
    whole = make_exr({"Z": np.linspace(1, 5, 180).reshape(20, 9).astype(np.float32)}, 3)
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            read_exr(bytes(data), ENTRY)
        except BadFile:
            continue


def test_exr_reaches_the_pairs_in_metres(tmp_path):
    pairs, _ = read_pairs(write(tmp_path, {"rgb/1.jpg": PHOTO, "depth/1.exr": make_exr({"depth": METRES}, 3)}))
    assert np.array_equal(pairs[0].depth, METRES)


@pytest.mark.parametrize("others", ["same", "none"])
def test_one_value_in_three_channels_is_depth(others):
    depth = np.linspace(1, 5, 12 * 16, dtype=np.float32).reshape(12, 16)
    other = depth if others == "same" else np.zeros_like(depth)
    assert np.array_equal(read_exr(make_exr({"R": depth, "G": other, "B": other}, 3), ENTRY), depth)


def test_a_picture_in_colours_is_no_depth():
    colours = np.linspace(0, 1, 12 * 16, dtype=np.float32).reshape(12, 16)
    with pytest.raises(BadFile, match="holds colours") as error:
        read_exr(make_exr({"R": colours, "G": colours * 0.5, "B": 1 - colours}, 3), ENTRY)
    assert "Z or Depth" in error.value.reason


@pytest.mark.parametrize(("number", "name"), [(4, "PIZ"), (5, "PXR24"), (8, "DWAA"), (77, "a compression")])
def test_a_compression_that_is_not_read_is_named(number, name):
    data = make_exr({"Z": np.ones((12, 16), np.float32)}, 0)
    at = data.index(b"compression\0compression\0") + 24 + 4
    with pytest.raises(BadFile) as error:
        read_exr(data[:at] + bytes([number]) + data[at + 1 :], ENTRY)
    assert name in error.value.reason and "ZIP" in error.value.reason
