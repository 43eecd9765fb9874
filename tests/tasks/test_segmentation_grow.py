"""From paint to the object: scribbles, clicks, boxes and exclusions on pictures with known objects."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import load_photo
from dinodemo.tasks.segmentation import ReferenceSegmenter
from dinodemo.tasks.segmentation.draw import Reference
from dinodemo.tasks.segmentation.grow import Paint, grow
from dinodemo.tasks.segmentation.references import from_box, from_points, grown

ASSETS = Path(__file__).parents[2] / "assets"
SIZE, GRID = (160, 240), (16, 24)
RNG = np.random.default_rng(0)


def scene(*boxes):
    """Make a picture of squares on a ground, tokens to match, and the squares' masks: two kinds in turn."""
    rgb = np.full((*SIZE, 3), (40, 90, 50), np.uint8)
    kinds = np.zeros(GRID, int)
    masks = []
    for i, (top, left, bottom, right) in enumerate(boxes):
        kinds[top:bottom, left:right] = 1 + i % 2
        mask = np.zeros(SIZE, bool)
        mask[10 * top : 10 * bottom, 10 * left : 10 * right] = True
        rgb[mask] = (200, 60, 40) if i % 2 == 0 else (60, 60, 200)
        masks.append(mask)
    directions = RNG.normal(size=(3, 64))
    tokens = directions[kinds] + 0.35 * RNG.normal(size=(*GRID, 64))
    return rgb, tokens.astype(np.float32), masks


def iou(a, b) -> float:
    return (a & b).sum() / (a | b).sum()


def paint(**given) -> Paint:
    nothing = np.zeros(SIZE, bool)
    return Paint(**{"include": nothing, "exclude": nothing} | given)


def stroke(top, left, bottom, right) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture(scope="module")
def two():
    return scene((3, 4, 11, 11), (3, 15, 11, 22))


@pytest.mark.parametrize(
    "given",
    [
        {"include": stroke(60, 60, 66, 95)},
        {"include": stroke(70, 75, 75, 80)},
        {"box": (32.0, 24.0, 118.0, 117.0)},
        {"include": stroke(60, 60, 66, 95), "exclude": stroke(130, 20, 140, 200)},
    ],
    ids=["scribble", "click", "box", "with exclusion"],
)
def test_little_paint_means_the_whole_object_and_no_other(given, two):
    rgb, tokens, (first, _) = two
    found = grow(rgb, tokens, paint(**given))
    assert iou(found.mask, first) > 0.95
    assert (
        found.score.shape == GRID
        and found.score.dtype == np.float32
        and 0 <= found.score.min() <= found.score.max() <= 1
    )


def test_another_of_the_same_kind_is_left_alone():
    rgb, tokens, (first, _, third) = scene((3, 2, 11, 8), (12, 10, 15, 14), (3, 16, 11, 22))
    found = grow(rgb, tokens, paint(include=stroke(60, 40, 66, 70)))
    assert iou(found.mask, first) > 0.95 and not (found.mask & third).any()


def test_paint_stays_and_exclusion_goes(two):
    rgb, tokens, _ = two
    outside, inside = stroke(20, 20, 24, 30), stroke(40, 50, 60, 60)
    found = grow(rgb, tokens, paint(include=stroke(60, 60, 66, 95) | outside, exclude=inside))
    assert found.mask[outside].all() and not found.mask[inside].any()


def test_the_painted_share_is_said(two):
    rgb, tokens, (first, _) = two
    assert grow(rgb, tokens, paint(include=stroke(60, 60, 66, 95))).share < 0.1
    assert grow(rgb, tokens, paint(include=first)).share > 0.9


def test_nothing_painted_is_refused(two):
    with pytest.raises(ValueError, match="scribble on the object, click it or draw a box"):
        grow(two[0], two[1], paint())


def test_the_same_paint_gives_the_same_object(two):
    rgb, tokens, _ = two
    given = paint(include=stroke(60, 60, 66, 95))
    assert np.array_equal(grow(rgb, tokens, given).mask, grow(rgb, tokens, given).mask)


def test_a_scribble_on_the_real_cup_is_the_cup(offline_engine):
    photo = load_photo(ASSETS / "coffee_cup.jpg")
    truth = np.asarray(Image.open(ASSETS / "segmentation" / "cup_mask.png").convert("L")) > 0
    height, width = photo.size
    scribble = np.zeros(photo.size, bool)
    scribble[int(0.55 * height) : int(0.58 * height), int(0.3 * width) : int(0.6 * width)] = True
    segmenter = ReferenceSegmenter(offline_engine, resolution=308)
    found = grown(segmenter, Reference(photo, scribble, scribble & False, exact=False))
    assert found.exact and iou(found.this, truth) > 0.8
    clicked = grown(segmenter, from_points(photo, [(0.45 * width, 0.55 * height)]))
    assert iou(clicked.this, truth) > 0.55


PHOTO = load_photo(np.zeros((40, 60, 3), np.uint8))


@pytest.mark.parametrize(
    "box", [[1, 2, 3], [30, 2, 10, 20], [70, 0, 90, 10], [0, 0, "a", 4], [0, 0, float("nan"), 4], 7]
)
def test_boxes_that_make_no_sense_are_refused(box):
    with pytest.raises(ValueError, match="box"):
        from_box(PHOTO, box)


@pytest.mark.parametrize("points", [[], [[1]], [[70, 1]], [[1, -1]], [["a", 1]]])
def test_points_that_make_no_sense_are_refused(points):
    with pytest.raises(ValueError, match="point"):
        from_points(PHOTO, points)
