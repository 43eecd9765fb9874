"""What is no picture, is damaged or too large is refused with a reason."""

import resource
import sys
import zlib

import numpy as np
import pytest
from picture_samples import encode, png, with_orientation
from PIL import Image, ImageFile

from dinodemo.io import images
from dinodemo.io.images import load_image

# what is refused


def jpeg(size=(64, 48)) -> bytes:
    return encode(Image.effect_noise(size, 80).convert("RGB"), "JPEG")


BAD_FILES = {
    "empty": (b"", "empty"),
    "text": (b"hello, this is no picture\n" * 50, "not a picture"),
    "zeros": (b"\0" * 5000, "not a picture"),
    "svg": (b'<?xml version="1.0"?>\n<SVG xmlns="http://www.w3.org/2000/svg" width="9"/>', "SVG"),
    "pdf": (b"%PDF-1.7\n" + b"x" * 500, "not a picture"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "truncated jpeg": (jpeg()[:-400], "truncated"),
    "jpeg header only": (jpeg()[:100], "truncated"),
    "jpeg magic only": (jpeg()[:3], "truncated|not a picture"),
    "truncated png": (encode(Image.effect_noise((64, 48), 80), "PNG")[:-700], "truncated"),
    "truncated webp": (encode(Image.effect_noise((64, 48), 80).convert("RGB"), "WEBP")[:200], "truncated"),
    "truncated heic": (encode(Image.new("RGB", (64, 48)), "HEIF")[:-30], "truncated|not a picture"),
    "no pixels": (png(0, 5, 8, 2, zlib.compress(b"")), "no pixels|not a picture|damaged"),
}


@pytest.mark.parametrize(("data", "message"), BAD_FILES.values(), ids=BAD_FILES)
@pytest.mark.parametrize("as_file", [False, True])
def test_bad_files_are_refused_with_a_reason(data, message, as_file, tmp_path):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        load_image(path if as_file else data)
    assert str(tmp_path) not in str(error.value)
    assert not as_file or "holiday.jpg" in str(error.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "HEIF", "JPEG2000", "ICO"])
def test_damage_never_raises_anything_but_value_error(kind, make_picture):
    image = Image.fromarray(make_picture(20, 24))
    good = encode(image, kind, **({"exif": with_orientation(6)} if kind in ("JPEG", "PNG", "WEBP") else {}))
    random = np.random.default_rng(3)
    load_image(good)
    for i in range(60):
        bad = bytearray(good[: random.integers(1, len(good))] if i % 3 == 0 else good)
        for position in random.integers(0, len(bad), 5):
            bad[position] = random.integers(0, 256)
        try:
            assert load_image(bytes(bad)).shape[2] == 3
        except ValueError as error:
            assert "the picture" in str(error)  # our sentence, not Pillow's


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(20000, 20000), (13000, 12000)])
def test_decompression_bomb_is_refused_from_its_header(size, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    rows = b"\0" * (1 + size[0] // 8)
    packer = zlib.compressobj()
    body = b"".join(packer.compress(rows * 500) for _ in range(size[1] // 500)) + packer.flush()
    bomb = png(*size, 1, 0, body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="150 million pixels; scale it down"):
        load_image(bomb)
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert used < 20e6


@pytest.mark.parametrize("size", [(149_999_999, 1), (1, 149_999_999), (70_000, 2000)])
@pytest.mark.filterwarnings("ignore")
def test_a_header_that_promises_much_is_no_lack_of_memory(size):
    with pytest.raises(ValueError, match="truncated or damaged"):
        load_image(png(*size, 8, 2, b""))


def test_the_pixel_limit_is_inclusive_and_holds_for_every_source(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    assert load_image(encode(Image.new("RGB", (10, 10)), "PNG")).shape == (10, 10, 3)
    too_large = Image.new("RGB", (101, 1))
    for source in (too_large, encode(too_large, "PNG"), np.asarray(too_large)):
        with pytest.raises(ValueError, match=r"101 x 1\) has more than"):
            load_image(source)


def test_12000_pixels_a_side_are_within_the_limit():
    assert images.MAX_PIXELS >= 12000 * 12000
    assert Image.MAX_IMAGE_PIXELS == images.MAX_PIXELS


@pytest.mark.parametrize("name", ["missing.jpg", "folder"])
def test_unreadable_paths_are_named(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=f"{name}: cannot be read"):
        load_image(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8 array .* got float32"),
        (np.zeros((4, 4), bool), "got bool"),
        (np.zeros((4, 4, 3), np.int64), "got int64"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((3, 4, 4, 3), np.uint8), "expected an array of shape"),
        (np.zeros(5, np.uint8), "expected an array of shape"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 0), np.uint8), "no pixels"),
    ],
)
def test_bad_arrays_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, ["a.jpg"]])
def test_other_types_are_refused(source):
    with pytest.raises(ValueError, match="expected a path, bytes"):
        load_image(source)


def test_empty_pil_picture_is_refused():
    with pytest.raises(ValueError, match="no pixels"):
        load_image(Image.new("RGB", (0, 4)))
