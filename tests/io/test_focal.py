"""The focal length that a photo's file tells, for any size and orientation of the picture."""

import io
import math

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from dinodemo.io.images import load_photo, shrink

FOCAL, EQUIVALENT, ZOOM, WIDTH, HEIGHT, PLANE_X, PLANE_UNIT = 0x920A, 0xA405, 0xA404, 0xA002, 0xA003, 0xA20E, 0xA210
FULL = {WIDTH: 400, HEIGHT: 300}


def told(tags: dict, size=(400, 300), orientation: int = 1, kind: str = "JPEG", **options):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", orientation  # Pillow leaves out a block without such tags
    exif.get_ifd(0x8769).update(tags)
    if kind == "TIFF":  # whose writer takes the block for a tag
        exif[0x8769] = dict(exif.get_ifd(0x8769))
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 90, 90)).save(buffer, kind, exif=exif)
    return load_photo(buffer.getvalue(), **options).focal


def test_the_equivalent_focal_length_keeps_the_angle_of_the_diagonal():
    focal = told({EQUIVALENT: 26})
    assert focal.share == pytest.approx(26 / math.hypot(36, 24) * 500 / 400)
    assert focal.words == "focal length from the photo: 26 mm (35 mm equivalent)"
    diagonal = 2 * math.degrees(math.atan(math.hypot(36, 24) / 2 / 26))
    assert 2 * math.degrees(math.atan(500 / 400 / 2 / focal.share)) == pytest.approx(diagonal)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_it_is_read_from_every_kind_of_file(kind):
    assert told({EQUIVALENT: 50}, kind=kind).fov == pytest.approx(38.2, abs=0.1)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turning_and_resizing_change_nothing(orientation):
    plain = told({EQUIVALENT: 26, **FULL})
    for options in ({}, {"longest": 64}):
        assert told({EQUIVALENT: 26, **FULL}, orientation=orientation, **options) == plain
    assert told({EQUIVALENT: 26, WIDTH: 4000, HEIGHT: 3000}) == plain  # made smaller by somebody before
    assert told({EQUIVALENT: 26, WIDTH: 300, HEIGHT: 400}) == plain  # turned by somebody before


def test_a_smaller_copy_keeps_it():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[EQUIVALENT] = 26
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 2000)).save(buffer, "JPEG", exif=exif)
    photo = load_photo(buffer.getvalue())
    assert shrink(photo).size == (1365, 2048) and shrink(photo).focal == photo.focal


def test_a_cut_picture_is_counted_in_its_own_pixels_where_they_are_known():
    whole = told({EQUIVALENT: 26, **FULL})
    cut = told({EQUIVALENT: 26, **FULL}, size=(300, 300))
    assert cut.share * 300 == pytest.approx(whole.share * 400)
    assert cut.words.endswith("before it was cut from 400 × 300 pixels")
    unknown = told({EQUIVALENT: 26, **FULL}, size=(200, 200))
    assert unknown.share is None and unknown.fov is None and "not used" in unknown.words


@pytest.mark.parametrize(("unit", "resolution"), [(2, 400 / 5.6 * 25.4), (3, 400 / 0.56), (4, 400 / 5.6)])
def test_a_known_sensor_gives_it_too(unit, resolution):
    tags = {FOCAL: IFDRational(42, 10), PLANE_X: IFDRational(round(resolution * 1000), 1000), PLANE_UNIT: unit, **FULL}
    focal = told(tags)
    assert focal.share == pytest.approx(4.2 / 5.6, rel=1e-3)
    assert focal.words == "focal length from the photo: 4.2 mm on a sensor 5.6 mm wide"
    assert told({**tags, ZOOM: IFDRational(2, 1)}) is None
    assert told({tag: value for tag, value in tags.items() if tag not in FULL}) is None
    assert told({**tags, PLANE_UNIT: 1}) is None


def test_a_sensor_that_cannot_be_is_not_believed():
    focal = told({FOCAL: IFDRational(42, 10), PLANE_X: IFDRational(72, 1), PLANE_UNIT: 2, **FULL})
    assert focal.share is None and "cannot be" in focal.words


@pytest.mark.parametrize(
    "tags",
    [{}, {FOCAL: IFDRational(42, 10)}, {EQUIVALENT: 0}, {FOCAL: IFDRational(1, 0), PLANE_X: IFDRational(1, 0)}],
    ids=["nothing", "no sensor", "0 is not known", "over 0"],
)
def test_what_says_nothing_is_nothing(tags):
    assert told(tags) is None


def test_an_impossible_length_is_not_believed():
    assert told({EQUIVALENT: 60_000}).share is None and told({EQUIVALENT: 1}).share is None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_block_does_not_spoil_the_photo():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(
        buffer, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\xff\xff\xff\xf0"
    )
    photo = load_photo(buffer.getvalue())
    assert photo.size == (30, 40) and photo.focal is None
