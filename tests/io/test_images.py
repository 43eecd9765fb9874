"""Pictures of every kind and source come in upright, as RGB uint8."""

import io
import struct
import zlib

import numpy as np
import pytest
from picture_samples import encode, png, upright, with_orientation
from PIL import Image

from dinodemo.io.images import load_image, load_photo

# what people drag in


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG2000"])
def test_lossless_formats_come_back_exactly(kind, make_picture):
    picture = make_picture(23, 31)
    image = Image.fromarray(picture)
    if kind == "GIF":
        image = image.quantize(32)
        picture = np.asarray(image.convert("RGB"))
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(load_image(encode(image, kind, **options)), picture)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "HEIF"])
def test_lossy_formats_come_back_closely(kind, make_picture):
    picture = make_picture(48, 64)
    loaded = load_image(encode(picture, kind, quality=95, **({"chroma": 444} if kind == "HEIF" else {})))
    assert loaded.shape == picture.shape
    assert np.abs(loaded.astype(int) - picture).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind, orientation, make_picture):
    data = encode(make_picture(13, 21), kind, exif=with_orientation(orientation))
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(load_image(data), upright(stored, orientation))


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_formats_with_a_rotation_of_their_own_are_turned_once(kind, orientation, make_picture):
    picture = make_picture(40, 64)
    loaded = load_image(encode(picture, kind, quality=95, exif=with_orientation(orientation).tobytes()))
    expected = upright(picture, orientation)
    assert loaded.shape == expected.shape
    assert np.abs(loaded.astype(int) - expected).mean() < 8  # colours at half the resolution; a wrong turn gives 60


@pytest.mark.parametrize("progressive", [False, True])
def test_progressive_jpeg(progressive, make_picture):
    picture = make_picture(48, 64)
    loaded = load_image(encode(picture, "JPEG", quality=95, progressive=progressive))
    assert np.abs(loaded.astype(int) - picture).mean() < 3


@pytest.mark.parametrize(
    ("cmyk", "rgb"),
    [((0, 0, 0, 0), (255, 255, 255)), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0))],
)
def test_cmyk_jpeg_is_not_inverted(cmyk, rgb):
    loaded = load_image(encode(Image.new("CMYK", (16, 16), cmyk), "JPEG", quality=95))
    assert loaded.shape == (16, 16, 3)
    assert np.abs(loaded.astype(int) - rgb).max() < 12


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 40), (128, 147)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode, alpha, expected):
    colour = (40, 40, 40, alpha) if mode == "RGBA" else (40, alpha)
    loaded = load_image(encode(Image.new(mode, (5, 4), colour), "PNG"))
    assert loaded.shape == (4, 5, 3)
    assert np.abs(loaded.astype(int) - expected).max() <= 1


def test_palette_transparency_is_laid_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putdata([0, 1])
    loaded = load_image(encode(image, "PNG", transparency=0))
    np.testing.assert_array_equal(loaded, [[[255, 255, 255], [200, 0, 0]]])


def test_palette_without_transparency_keeps_its_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putdata([0, 1])
    np.testing.assert_array_equal(load_image(encode(image, "PNG")), [[[10, 20, 30], [200, 0, 0]]])


def test_transparent_colour_key_is_laid_over_white():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    loaded = load_image(encode(image, "PNG", transparency=(1, 2, 3)))
    np.testing.assert_array_equal(loaded, [[[255, 255, 255], [9, 9, 9]]])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_range(kind):
    values = np.array([[0, 257, 32896], [30000, 65534, 65535]], dtype=np.uint16)
    loaded = load_image(encode(values, kind))
    assert loaded.shape == (2, 3, 3)
    assert np.abs(loaded[..., 0] - values / 257).max() <= 1
    assert (loaded == loaded[..., :1]).all()


def test_16_bit_colour_png():
    rows = b"\x00" + struct.pack(">6H", 65535, 0, 32896, 257 * 10, 257 * 20, 257 * 30)
    loaded = load_image(png(2, 1, 16, 2, zlib.compress(rows)))
    np.testing.assert_array_equal(loaded, [[[255, 0, 128], [10, 20, 30]]])


@pytest.mark.parametrize("values", [np.linspace(0, 1, 6), np.linspace(-300, 900, 6)])
def test_float_tiff_is_stretched(values):
    loaded = load_image(encode(Image.fromarray(values.reshape(2, 3).astype(np.float32)), "TIFF"))
    assert np.abs(loaded[..., 0].ravel().astype(int) - [0, 51, 102, 153, 204, 255]).max() <= 1


def test_32_bit_integers_with_16_bit_content_keep_its_range():
    values = np.array([[0, 257, 51400]], dtype=np.int32)
    np.testing.assert_array_equal(load_image(encode(values, "TIFF"))[..., 0], [[0, 1, 200]])


def test_not_a_number_does_not_reach_the_picture():
    values = np.array([[0, 1], [np.nan, np.inf]], dtype=np.float32)
    np.testing.assert_array_equal(load_image(Image.fromarray(values))[..., 0], [[0, 255], [0, 255]])


def test_greyscale_gets_three_equal_channels(make_picture):
    grey = make_picture(9, 11)[..., 0]
    np.testing.assert_array_equal(load_image(encode(grey, "PNG")), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit_is_black_and_white(kind):
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(load_image(encode(image, kind)), [[[0] * 3, [255] * 3]])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    loaded = load_image(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    np.testing.assert_array_equal(loaded, np.full((6, 8, 3), (255, 0, 0)))


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (12000, 1)])
def test_extreme_sizes_load(size):
    assert load_image(encode(Image.new("RGB", size[::-1], "red"), "PNG")).shape == (*size, 3)


SOURCES = {"string": str, "path": lambda p: p, "bytes": lambda p: p.read_bytes(), "image": Image.open}


@pytest.mark.parametrize("as_source", SOURCES.values(), ids=SOURCES)
def test_every_kind_of_source_gives_the_same(as_source, tmp_path, make_picture):
    picture = make_picture(9, 11)
    path = tmp_path / "Ein Bild ü.png"
    path.write_bytes(encode(picture, "PNG"))
    np.testing.assert_array_equal(load_image(as_source(path)), picture)


def test_the_extension_does_not_matter(tmp_path, make_picture):
    path = tmp_path / "really.jpg"
    path.write_bytes(encode(make_picture(9, 11), "PNG"))
    np.testing.assert_array_equal(load_image(path), make_picture(9, 11))


@pytest.mark.parametrize("channels", [None, 3, 4])
def test_arrays_are_taken(channels, make_picture):
    picture = make_picture(9, 11)
    array = {None: picture[..., 0], 3: picture, 4: np.dstack([picture, np.full((9, 11), 255, np.uint8)])}[channels]
    expected = np.repeat(picture[..., :1], 3, axis=2) if channels is None else picture
    np.testing.assert_array_equal(load_image(array), expected)


def test_the_callers_array_is_neither_kept_nor_frozen(make_picture):
    picture = make_picture().copy()
    photo = load_photo(picture)
    picture[:] = 0
    assert photo.rgb.any()
    assert not photo.rgb.flags.writeable


def test_photo_knows_its_name_and_size(tmp_path, make_picture):
    path = tmp_path / "cat.png"
    path.write_bytes(encode(make_picture(9, 11), "PNG"))
    assert (load_photo(path).name, load_photo(path).size) == ("cat.png", (9, 11))
    assert load_photo(path, "other").name == "other"


def test_digest_is_that_of_content_and_shape(make_picture):
    picture = make_picture(8, 12)
    digest = load_photo(picture).digest
    assert digest == load_photo(encode(picture, "PNG")).digest
    assert digest != load_photo(picture.reshape(12, 8, 3)).digest
    assert digest != load_photo(picture ^ 1).digest
