"""Pictures of more than 8 bits: which numbers become black and white, and what is said of it."""

import io
import logging
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from dinodemo.io import images
from dinodemo.io.images import load_image, load_photo
from dinodemo.io.tones import find_tones

y, x = np.mgrid[:120, :160]
SCENE = (127.5 + 127.5 * np.sin(x / 11) * np.cos(y / 17)).astype(np.uint16)  # 0 to 255
PLAIN = np.repeat(SCENE[..., None], 3, 2).astype(np.uint8)


def saved(values: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **options)
    return stream.getvalue()


def colours(values: np.ndarray, suffix: str) -> bytes:
    """Encode 16-bit RGB or RGBA, which Pillow does not write."""
    order = [2, 1, 0, 3][: values.shape[2]]
    return cv2.imencode(suffix, np.ascontiguousarray(values[..., order]))[1].tobytes()


RGB16 = np.repeat(SCENE[..., None], 3, 2)
SMALL_RANGES = {
    "16 bits, all used": saved(SCENE * 257, "PNG"),
    "12 bits in a TIFF": saved(SCENE * 16, "TIFF"),
    "12 bits in a PNG": saved(SCENE * 16, "PNG"),
    "10 bits": saved(SCENE * 4, "PNG"),
    "14 bits, most significant byte first": saved((SCENE * 64).astype(">u2"), "TIFF"),
    "8 bits in 16": saved(SCENE, "TIFF"),
    "thermal": saved((7000 + SCENE * 8).astype(np.uint16), "PNG"),
    "thermal, high": saved((29000 + SCENE * 8).astype(np.uint16), "TIFF"),
    "32 bits up to 4095": saved(SCENE.astype(np.int32) * 16, "TIFF"),
    "32 bits below zero": saved(SCENE.astype(np.int32) * 9 - 1000, "TIFF"),
    "whole floats up to 4095": saved((SCENE * 16).astype(np.float32), "TIFF"),
    "floats from 0 to 1": saved((SCENE / 255).astype(np.float32), "TIFF"),
    "floats up to 300": saved((SCENE * 1.17).astype(np.float32), "TIFF"),
    "48 bits, 12 used, PNG": colours(RGB16 * 16, ".png"),
    "48 bits, 10 used, TIFF": colours(RGB16 * 4, ".tif"),
    "48 bits, a small part": colours(20000 + RGB16 * 40, ".png"),
    "64 bits, 12 used": colours(np.dstack([RGB16 * 16, np.full_like(SCENE, 65535)]), ".png"),
    "48 bits, all used": colours(RGB16 * 257, ".png"),
}


@pytest.mark.parametrize("data", SMALL_RANGES.values(), ids=SMALL_RANGES)
def test_small_ranges_look_like_the_8_bit_picture(data):
    photo = load_photo(data)
    assert np.abs(photo.rgb.astype(int) - PLAIN).max() <= 3
    np.testing.assert_array_equal(load_photo(data).rgb, photo.rgb)
    np.testing.assert_array_equal(load_image(data), photo.rgb)


def test_what_was_decided_is_noted_and_logged_once(caplog):
    images._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "dinodemo"):
        notes = [load_photo(SMALL_RANGES["12 bits in a PNG"]).notes for _ in range(3)]
    assert notes == [("Values up to 4064 are taken as 12 bits: 4095 is white.",)] * 3
    assert len(caplog.records) == 1
    assert load_photo(SMALL_RANGES["thermal"]).notes == ("Values from 7000 to 9032 are stretched from black to white.",)


@pytest.mark.parametrize("data", [saved(SCENE.astype(np.uint8), "PNG"), SMALL_RANGES["16 bits, all used"]])
def test_nothing_is_said_where_nothing_is_decided(data):
    assert load_photo(data).notes == ()


def test_a_few_hot_pixels_do_not_blacken_the_rest():
    values = SCENE * 4
    values[3, 4] = values[70, 90] = 65535
    photo = load_photo(saved(values, "PNG"))
    inside = values < 65535
    assert np.abs(photo.rgb[inside].astype(int) - PLAIN[inside]).max() <= 3
    assert "clipped" in photo.notes[0]


@pytest.mark.parametrize("mark", [-9999.0, -3.4028235e38, np.nan])
def test_marks_of_no_reading_are_black_and_do_not_count(mark):
    values = (SCENE * 3.7 + 100).astype(np.float32)
    values[:20] = mark
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[42113] = f"{mark:g}"
    loaded = load_image(saved(values, "TIFF", tiffinfo=tags))
    assert (loaded[:20] == 0).all()
    assert np.abs(loaded[20:].astype(int) - PLAIN[20:]).max() <= 3


def test_white_is_zero_is_turned_over():
    data = bytearray(saved(SCENE * 16, "TIFF"))
    tag = data.find(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00")  # PhotometricInterpretation, one short: 1
    data[tag + 8] = 0
    assert np.abs(load_image(bytes(data)).astype(int) - (255 - PLAIN)).max() <= 3


def test_a_dark_photograph_with_a_profile_is_left_dark():
    from PIL import ImageCms

    dark = colours(RGB16 * 16, ".png")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.open(io.BytesIO(dark))
    image.info["icc_profile"] = profile
    assert load_image(image).max() <= 16


def test_an_opened_file_of_48_bits_is_stretched_from_its_high_bytes():
    loaded = load_image(Image.open(io.BytesIO(SMALL_RANGES["48 bits, 12 used, PNG"])))
    assert np.abs(loaded.astype(int) - PLAIN).max() <= 18


@pytest.mark.parametrize("constant", [0, 5000, 65535])
def test_a_constant_picture_keeps_its_level(constant):
    loaded = load_image(saved(np.full((4, 5), constant, np.uint16), "PNG"))
    assert (loaded == {0: 0, 5000: 78, 65535: 255}[constant]).all()


def test_nothing_but_no_readings_is_black():
    assert (load_image(Image.fromarray(np.full((4, 5), np.nan, np.float32))) == 0).all()


def test_the_range_does_not_depend_on_the_size_of_blocks():
    values = np.random.default_rng(0).integers(3000, 3900, 50_000).astype(np.uint16)
    whole = find_tones(lambda: [values])
    assert find_tones(lambda: np.split(values, [7, 1000, 31_000])) == whole


def tiff_of(values: np.ndarray, sample_format: int) -> bytes:
    """Write one strip of numbers as TIFF 6.0 has them; Pillow writes none of 32 bits without a sign."""
    height, width = values.shape
    tags = {
        256: width,
        257: height,
        258: 8 * values.itemsize,
        259: 1,
        262: 1,
        273: 8 + 2 + 120 + 4,
        277: 1,
        278: height,
    }
    tags |= {279: values.nbytes, 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values.tobytes()


@pytest.mark.parametrize(("kind", "sample_format"), [("<u4", 1), ("<i4", 2), ("<u2", 1)])
def test_the_sign_of_a_tiff_is_minded(kind, sample_format):
    top = np.iinfo(kind).max
    values = (SCENE / 255 * top).astype(kind)
    found = load_image(tiff_of(values, sample_format))
    assert np.abs(found.astype(int) - PLAIN).mean() < 1
