"""Rendering: what people see is what the numbers say."""

import io

import numpy as np
import pytest
from PIL import Image

from dinodemo.io import render

PHOTO = np.full((40, 60, 3), 100, np.uint8)


def test_opacity_mixes_photo_and_map():
    values = np.linspace(0.1, 1, 24).reshape(4, 6)
    assert np.array_equal(render.overlay(PHOTO, values, opacity=0), PHOTO)
    full = render.overlay(PHOTO, values, opacity=1, smooth=False)
    half = render.overlay(PHOTO, values, opacity=0.5, smooth=False)
    assert np.abs(half.astype(float) - (PHOTO + full.astype(float)) / 2).max() <= 1
    assert np.array_equal(full[-1, -1], render.colourise(np.ones((1, 1)))[0, 0])


def test_patches_cut_by_mass_show_the_photo():
    values = np.zeros((4, 6))
    values[1, 2] = 1
    shown = render.overlay(PHOTO, values, opacity=1, smooth=False)
    assert np.array_equal(shown[0, 0], PHOTO[0, 0]) and not np.array_equal(shown[15, 25], PHOTO[15, 25])


def test_colour_maps_are_rgb_and_unknown_ones_are_refused():
    assert render.colourise(np.ones((1, 1)), "jet")[0, 0, 0] > 100 > render.colourise(np.ones((1, 1)), "jet")[0, 0, 2]
    assert np.array_equal(render.colourise(np.full((1, 1), 0.5), "grey")[0, 0], [128] * 3)
    with pytest.raises(ValueError, match="inferno"):
        render.colourise(np.ones((1, 1)), "rainbow")


def test_constant_maps_do_not_divide_by_zero():
    assert np.array_equal(render.normalise(np.full((3, 3), 7.0)), np.zeros((3, 3), np.float32))


def test_pca_picture_keeps_patches_sharp_and_shows_the_dimmed_photo_elsewhere():
    colours = np.full((4, 6, 3), np.nan, np.float32)
    colours[1:3, 2:4] = (1, 0, 0)
    picture = render.pca_picture(colours, (40, 60), smooth=False, background=PHOTO)
    assert np.array_equal(picture[15, 25], [255, 0, 0]) and np.array_equal(picture[10, 20], [255, 0, 0])
    assert np.array_equal(picture[9, 20], [25] * 3)
    smooth = render.pca_picture(colours, (40, 60), smooth=True)
    inside = smooth.any(axis=-1)
    assert (smooth[inside][:, 0] == 255).all()  # no black bleeds into the colour


def test_marking_a_patch_leaves_the_photo_alone():
    marked = render.mark_patch(PHOTO, (1, 2), (4, 6))
    assert (PHOTO == 100).all() and np.array_equal(marked[10, 25], [255] * 3)


def test_png_keeps_every_pixel():
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(render.png_bytes(picture)))), picture)
