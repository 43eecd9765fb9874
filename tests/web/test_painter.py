"""What comes back from the painter is checked before it is believed."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import Photo
from dinodemo.web.painter import is_painted, outline_value, painter_value, read_drawing

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


def test_a_box_alone_is_enough_and_can_be_filled():
    drawing = read_drawing({"box": [0.25, 0.5, 0.75, 1.0]}, PHOTO)
    assert drawing.box == (100, 150, 300, 300) and not drawing.this.any()
    assert drawing.with_box().sum() == 200 * 150
    both = read_drawing(painted((0, 10, 0, 10), (200, 210, 150, 200)) | {"box": [0.25, 0.5, 0.75, 1.0]}, PHOTO)
    assert both.with_box().sum() == 200 * 150 + 100 - 10 * 50


@pytest.mark.parametrize(
    "box", [[0, 0, 2, 1], [0.5, 0.5, 0.5, 0.9], [0, 0, 1], "0011", [True, 0, 1, 1], [0, 0, None, 1]]
)
def test_a_box_that_is_none_is_not_believed(box):
    with pytest.raises(ValueError, match="nothing is painted"):
        read_drawing({"box": box}, PHOTO)


def test_only_what_a_person_drew_counts_as_painted():
    assert not is_painted(painter_value(PHOTO)) and not is_painted(None)
    assert is_painted({"painted": True})


def test_an_outline_is_drawn_at_the_painters_size():
    mask = np.zeros((3000, 4000), bool)
    mask[1000:2000, 1000:2000] = True
    image = Image.open(io.BytesIO(base64.b64decode(outline_value(mask)["outline"].split(",")[1])))
    alpha = np.asarray(image)[..., 3]
    assert image.size == (1024, 768) and alpha[384, 384] == 60 and (alpha == 255).any() and not alpha[:200].any()
    assert outline_value(None)["outline"] is None and outline_value(mask & False)["outline"] is None


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
