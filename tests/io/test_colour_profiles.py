"""Embedded profiles: the same colours come out as sRGB, whatever space the file keeps them in."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from dinodemo.io.images import load_image

D50 = (0.9642, 1.0, 0.8249)
PRIMARIES = {  # red, green, blue as XYZ, adapted to D50; the exponent of the tone curve
    "Display P3": (((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), 2.2),
    "Adobe RGB": (((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)), 2.2),
    "ProPhoto": (((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249)), 1.8),
}
SRGB = np.array([[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])  # to XYZ of D50


def profile(columns, exponent: float, space: bytes = b"RGB ") -> bytes:
    """Write an ICC profile of three primaries, or a grey one, and a tone curve (ICC.1:2001-04)."""
    fixed = struct.Struct(">i")

    def number(value: float) -> bytes:
        return fixed.pack(round(value * 65536))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256)) + bytes(2)
    tags = [(b"wtpt", b"XYZ " + bytes(4) + b"".join(map(number, D50)))]
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    else:
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True):
            tags.append((name, b"XYZ " + bytes(4) + b"".join(map(number, column))))
        tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags:
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s12s4s", size, bytes(4), 0x02400000, b"mntr", space, b"XYZ ", bytes(12), b"acsp")
    head += bytes(28) + b"".join(map(number, D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def stored_in(name: str, picture: np.ndarray) -> np.ndarray:
    """Write sRGB uint8 colours as another space keeps them, from the definitions."""
    columns, exponent = PRIMARIES[name]
    xyz = linear(picture / 255) @ SRGB.T
    values = np.clip(xyz @ np.linalg.inv(np.array(columns).T).T, 0, 1) ** (1 / exponent)
    return (values * 255).round().astype(np.uint8)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "HEIF"])
@pytest.mark.parametrize("name", PRIMARIES)
def test_other_spaces_become_srgb(name, kind, make_picture):
    picture = make_picture(80, 120)
    options = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "HEIF": {"quality": 100, "chroma": 444},
    }
    data = saved(
        Image.fromarray(stored_in(name, picture)), kind, icc_profile=profile(*PRIMARIES[name]), **options.get(kind, {})
    )
    ignored = np.abs(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) - picture).mean()
    error = np.abs(load_image(data).astype(int) - picture).mean()
    assert error < min(ignored / 3, 3.2)


def test_alpha_is_laid_over_white_after_the_colours_are_converted(make_picture):
    picture = make_picture(40, 60)
    rgba = np.dstack([stored_in("Adobe RGB", picture), np.full((40, 60), 128, np.uint8)])
    loaded = load_image(saved(Image.fromarray(rgba), "PNG", icc_profile=profile(*PRIMARIES["Adobe RGB"])))
    assert np.abs(loaded - (picture * (128 / 255) + 255 * (127 / 255))).mean() < 2


def test_palettes_have_profiles_too(make_picture):
    picture = Image.fromarray(make_picture(40, 60)).quantize(32).convert("RGB")
    stored = Image.fromarray(stored_in("ProPhoto", np.asarray(picture))).quantize(32)
    loaded = load_image(saved(stored, "PNG", icc_profile=profile(*PRIMARIES["ProPhoto"])))
    assert np.abs(loaded.astype(int) - np.asarray(picture)).mean() < 3


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_applied_to_grey(mode):
    levels = np.arange(256, dtype=np.uint8)[None]
    stored = (linear(levels / 255) ** (1 / 1.0) * 255).round().astype(np.uint8)  # kept without a tone curve
    loaded = load_image(saved(Image.fromarray(stored).convert(mode), "PNG", icc_profile=profile((), 1.0, b"GRAY")))
    assert np.abs(loaded[0, 64:, 0].astype(int) - levels[0, 64:]).max() <= 3
    assert (loaded == loaded[..., :1]).all()


@pytest.mark.parametrize("content", [b"", b"no profile", profile(*PRIMARIES["ProPhoto"])[:200], bytes(5000)])
def test_a_broken_profile_is_ignored(content, make_picture):
    picture = make_picture(20, 30)
    np.testing.assert_array_equal(load_image(saved(Image.fromarray(picture), "PNG", icc_profile=content)), picture)


def printed(inks: np.ndarray) -> np.ndarray:
    """Return the sRGB (..., 3), 0 to 1, of inks (..., 4) on paper that is a little yellow: pale, and of its own hue."""
    paper = np.array([0.97, 0.96, 0.88])
    strength = np.array([[0.75, 0.2, 0.05], [0.1, 0.8, 0.3], [0.05, 0.1, 0.85]])
    light = np.prod(1 - inks[..., :3, None] * strength, axis=-2)
    return paper * light * (1 - 0.9 * inks[..., 3:])


def ink_profile(grid: int = 9) -> bytes:
    """Write a CMYK profile, a table from inks to L*a*b* (ICC.1:2001-04, lut16Type)."""
    steps = np.linspace(0, 1, grid)
    inks = np.stack(np.meshgrid(*[steps] * 4, indexing="ij"), -1)
    share = linear(printed(inks)) @ SRGB.T / np.array(D50)
    root = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    lightness, a = 116 * root[..., 1] - 16, 500 * (root[..., 0] - root[..., 1])
    lab = np.stack([lightness * 652.8, (a + 128) * 256, (200 * (root[..., 1] - root[..., 2]) + 128) * 256], -1)
    matrix = struct.pack(">9i", *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    ends = struct.pack(">2H", 0, 65535)
    table = b"mft2" + bytes(4) + bytes([4, 3, grid, 0]) + matrix + struct.pack(">2H", 2, 2)
    table += 4 * ends + lab.round().clip(0, 65535).astype(">u2").tobytes() + 3 * ends
    head = struct.pack(
        ">I4sI4s4s4s12s4s", 144 + len(table), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp"
    )
    head = (head + bytes(28) + struct.pack(">3i", *(round(value * 65536) for value in D50))).ljust(128, b"\0")
    return head + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 98}), ("TIFF", {})])
def test_inks_become_what_their_profile_says_they_look_like(kind, options):
    y, x = np.mgrid[:60, :80] / 80
    inks = np.stack([x, y, 1 - x, 0.5 * (1 - y)], -1)
    image = Image.fromarray((inks * 255).round().astype(np.uint8), "CMYK")
    found = load_image(saved(image, kind, icc_profile=ink_profile(), **options)).astype(float)
    wanted = printed(inks) * 255
    without = load_image(saved(image, kind, **options)).astype(float)
    assert np.abs(found - wanted).mean() < 3 < 12 < np.abs(without - wanted).mean()


@pytest.mark.parametrize(("mode", "space"), [("L", "RGB"), ("RGB", "GRAY"), ("CMYK", "RGB")])
def test_a_profile_of_another_kind_of_picture_does_no_harm(mode, space, make_picture):
    content = profile((), 2.2, b"GRAY") if space == "GRAY" else ImageCms.ImageCmsProfile(
        ImageCms.createProfile("sRGB")
    ).tobytes()  # fmt: skip
    image = Image.fromarray(make_picture(20, 30)).convert(mode)
    image.info["icc_profile"] = content
    assert np.abs(load_image(image).astype(int) - np.asarray(image.convert("RGB"))).max() <= 2


def test_srgb_under_any_name_changes_nothing(make_picture):
    picture = make_picture(40, 60)
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(load_image(saved(Image.fromarray(picture), "PNG", icc_profile=content)), picture)


def test_a_16_bit_prophoto_file_is_converted(make_picture):
    import cv2

    picture = make_picture(40, 60)
    deep = stored_in("ProPhoto", picture).astype(np.uint16) * 257
    image = Image.open(io.BytesIO(cv2.imencode(".png", deep[..., ::-1])[1].tobytes()))
    image.info["icc_profile"] = profile(*PRIMARIES["ProPhoto"])
    assert np.abs(load_image(image).astype(int) - picture).mean() < 2


def test_lab_pictures_become_srgb(make_picture):
    picture = make_picture(40, 60)
    lab = ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(picture), ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    assert np.abs(load_image(saved(image, "TIFF")).astype(int) - picture).mean() < 4
