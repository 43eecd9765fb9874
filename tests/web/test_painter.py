"""What comes back from the painter is checked before it is believed."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import Photo
from dinodemo.web.painter import painter_value, read_drawing

PHOTO = Photo(np.zeros((300, 400, 3), np.uint8), "photo.jpg")


def painted(this=None, not_this=None, size=(400, 300)):
    rgba = np.zeros((size[1], size[0], 4), np.uint8)
    for box, colour in ((this, (255, 32, 32, 255)), (not_this, (32, 96, 255, 255))):
        if box:
            rgba[box[0] : box[1], box[2] : box[3]] = colour
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    return {"mask": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()}


def test_both_paints_come_back_at_the_photos_size():
    large = Photo(np.zeros((3000, 4000, 3), np.uint8))
    drawing = read_drawing(painted((10, 60, 20, 120), (200, 210, 0, 400)), large)
    assert drawing.this.shape == (3000, 4000)
    assert np.array_equal(np.argwhere(drawing.this).min(0), [100, 200]) and drawing.this.sum() == 500 * 1000
    assert drawing.not_this[2000:2100].all() and drawing.not_this.sum() == 100 * 4000


def test_a_mask_put_into_the_painter_comes_back():
    mask = np.zeros((300, 400), bool)
    mask[50:100, 60:160] = True
    assert np.array_equal(read_drawing(painter_value(PHOTO, mask), PHOTO).this, mask)


def test_every_value_is_a_new_version():
    assert painter_value(PHOTO)["version"] != painter_value(PHOTO)["version"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"mask": None},
        {"mask": 7},
        {"mask": "data:text/html;base64,AAAA"},
        painted(),
        {"mask": "data:image/png;base64,%%%"},
        {"mask": "data:image/png;base64,AAAA"},
        {"mask": "data:image/png;base64," + "A" * 9_000_000},
        painted((0, 9, 0, 9), size=(2000, 100)),
        painted(not_this=(0, 9, 0, 9)),
    ],
)
def test_anything_else_is_refused_with_a_sentence(value):
    with pytest.raises(ValueError, match=r"paint|mask"):
        read_drawing(value, PHOTO)
