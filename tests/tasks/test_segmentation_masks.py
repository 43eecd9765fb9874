"""Masks from files: what counts as the thing, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import Photo
from dinodemo.tasks.segmentation.masks import read_mask_file

PHOTO = Photo(np.zeros((300, 400, 3), np.uint8), "photo.jpg")


def save(path, array):
    Image.fromarray(array).save(path)
    return path


def test_masks_may_be_white_opaque_or_indexed(tmp_path):
    inside = np.zeros((300, 400), np.uint8)
    inside[10:20, 30:50] = 1
    white = save(tmp_path / "white.png", inside * 255)
    ones = save(tmp_path / "ones.png", inside)
    cutout = save(tmp_path / "cutout.png", np.dstack([np.full((300, 400, 3), 9, np.uint8), inside * 255]))
    indexed = Image.fromarray(inside).convert("P")
    indexed.save(tmp_path / "indexed.png")
    for path in (white, ones, cutout, tmp_path / "indexed.png"):
        assert np.array_equal(read_mask_file(path, PHOTO), inside > 0), path


def test_a_mask_of_another_shape_says_both_sizes(tmp_path):
    with pytest.raises(ValueError, match="mask is 300x400 but the photo is 400x300"):
        read_mask_file(save(tmp_path / "m.png", np.full((400, 300), 255, np.uint8)), PHOTO)


def test_a_smaller_mask_of_the_same_shape_is_scaled(tmp_path):
    half = np.zeros((150, 200), np.uint8)
    half[:75] = 255
    mask = read_mask_file(save(tmp_path / "m.png", half), PHOTO)
    assert mask[:150].all() and not mask[150:].any()


def test_an_empty_mask_is_refused(tmp_path):
    with pytest.raises(ValueError, match="marks nothing"):
        read_mask_file(save(tmp_path / "m.png", np.zeros((300, 400), np.uint8)), PHOTO)
