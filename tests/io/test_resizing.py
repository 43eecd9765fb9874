"""Sizes and resampling: whole patches, the published crop, bicubic weights, large pictures in parts."""

import numpy as np
import pytest
from PIL import Image

from dinodemo.io import resizing
from dinodemo.io.images import center_crop, fit_within, grid_size, network_input, resize

# to the patch grid


@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("resolution", [224, 518, 1022])
@pytest.mark.parametrize("size", [(480, 640), (3024, 4032), (37, 53), (1, 1), (500, 1500), (1000, 90)])
def test_grid_keeps_aspect_and_area(size, resolution, patch):
    h, w = grid_size(size, resolution, patch)
    side = resolution / patch
    assert abs(h - side * (size[0] / size[1]) ** 0.5) <= 0.5 + 1e-9
    assert abs(w - side * (size[1] / size[0]) ** 0.5) <= 0.5 + 1e-9
    assert h * w * patch**2 == pytest.approx(resolution**2, rel=0.15)


@pytest.mark.parametrize(("size", "expected"), [((1, 2000), (1, 256)), ((12000, 1), (256, 1)), ((1, 100), (2, 160))])
def test_very_long_pictures_get_no_more_patches_than_a_square(size, expected):
    assert grid_size(size, 224, 14) == expected


@pytest.mark.parametrize("resolution", [0, 13, -224, 16385, 224.0, "224", None, True])
def test_bad_resolutions_are_refused(resolution):
    with pytest.raises(ValueError, match="resolution must be a whole number from 14"):
        grid_size((10, 10), resolution, 14)


@pytest.mark.parametrize("size", [(37, 53), (1, 2000), (12000, 1), (1, 1), (200, 300)])
def test_network_input_has_whole_patches_and_shows_everything(size, make_picture):
    picture = np.zeros((*size, 3), np.uint8)
    picture[: (size[0] + 1) // 2] += 100
    picture[:, : (size[1] + 1) // 2] += 100
    seen = network_input(picture, 224, 14)
    h, w = grid_size(size, 224, 14)
    assert (seen.shape, seen.dtype) == ((h * 14, w * 14, 3), np.uint8)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        np.testing.assert_allclose(seen[corner].astype(int), picture[corner], atol=2)


def bicubic_weights(old: int, new: int) -> np.ndarray:
    """Compute the antialiased bicubic kernel (a = -0.5) as a (new, old) matrix: slow and plain."""
    scale = max(old / new, 1.0)
    rows = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new
        x = np.abs((np.arange(old) + 0.5 - centre) / scale)
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        rows[i] = np.where(x < 1, near, np.where(x < 2, far, 0))
    return rows / rows.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("old", "new"), [((60, 90), (28, 42)), ((20, 30), (56, 84)), ((300, 200), (28, 14))])
def test_resize_is_antialiased_bicubic(old, new, make_picture):
    picture = make_picture(*old)
    down, across = bicubic_weights(old[0], new[0]), bicubic_weights(old[1], new[1])
    expected = np.einsum("ih,hwc,jw->ijc", down, picture.astype(float), across)
    assert np.abs(resize(picture, new) - expected.clip(0, 255)).max() <= 2


@pytest.mark.parametrize("size", [(30, 40), (55, 90), (100, 150), (7, 300)])
def test_large_pictures_are_resampled_in_parts_with_the_same_result(size, make_picture, monkeypatch):
    picture = make_picture(121, 187)
    whole = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=3.0)
    monkeypatch.setattr(resizing, "LARGE", 2000)
    monkeypatch.setattr(resizing, "STRIP_PIXELS", 700)
    assert np.abs(resize(picture, size).astype(int) - np.asarray(whole)).max() <= 1


def test_shrinking_averages_instead_of_picking_pixels():
    checkers = np.indices((448, 448)).sum(axis=0) % 2 * 255
    small = resize(np.repeat(checkers[..., None], 3, axis=2).astype(np.uint8), (28, 28))
    assert np.abs(small.astype(int) - 127).max() <= 2


@pytest.mark.parametrize(("size", "expected"), [((400, 200), (100, 50)), ((80, 90), (80, 90)), ((5000, 1), (100, 1))])
def test_fit_within_shrinks_only(size, expected):
    assert fit_within(np.zeros((*size, 3), np.uint8), 100).shape[:2] == expected


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (256, 256), (100, 130)])
def test_center_crop_is_the_classification_protocol(size, make_picture):
    picture = make_picture(*size)
    height, width = (round(side * 256 / min(size)) for side in size)
    whole = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - 224) // 2, (width - 224) // 2
    cropped = center_crop(picture, 224)
    assert cropped.shape == (224, 224, 3)
    assert np.abs(cropped.astype(int) - whole[top : top + 224, left : left + 224]).max() <= 2


@pytest.mark.parametrize("size", [(1, 12000), (12000, 1), (2, 2000)])
def test_center_crop_of_a_strip_never_enlarges_all_of_it(size, monkeypatch):
    largest = []
    real = resizing.resize
    monkeypatch.setattr(resizing, "resize", lambda rgb, to: largest.append(to) or real(rgb, to))
    picture = np.zeros((*size, 3), np.uint8)
    middle = tuple(slice(s // 2 - min(s // 2, 3), s // 2 + 3) for s in size)
    picture[middle] = 200
    assert (center_crop(picture, 224) == 200).all()
    assert max(h * w for h, w in largest) < 1e6


def test_center_crop_is_rounded_to_whole_patches(make_picture):
    assert network_input(make_picture(300, 200), 230, 14, crop="center").shape == (224, 224, 3)


def test_unknown_crop_is_refused(make_picture):
    with pytest.raises(ValueError, match="crop must be None or"):
        network_input(make_picture(), 224, 14, crop="middle")
