"""What the depth tab draws, tells and exports."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import Photo
from dinodemo.tasks.depth import draw as view
from dinodemo.tasks.depth.draw import Look, View


def make(depth: np.ndarray, unit: str = "metres", point=None) -> View:
    photo = Photo(np.full((*depth.shape, 3), 90, np.uint8), "a room.jpg")
    return View(photo, depth.astype(np.float32), unit, "probe", "note", "made", (), point)


SLOPE = np.linspace(1, 5, 60)[:, None] + np.zeros((60, 80))


def test_near_and_far_leave_a_hundredth_out_on_either_side():
    depth = SLOPE.copy()
    depth[0, :8], depth[-1, :8] = 0.01, 90  # a tenth of a row: outliers
    near, far = view.natural_range(depth)
    assert 0.99 < near < 1.2 and 4.8 < far < 5.01


def test_a_constant_depth_still_has_a_range():
    near, far = view.natural_range(np.full((5, 6), 2.0))
    assert near < far


@pytest.mark.parametrize("inverse", [False, True])
def test_shades_run_from_near_to_far_and_inverse_ones_back(inverse):
    look = Look(1, 5, "inferno", inverse)
    shades = view.shade(np.array([[0.5, 1, 2.5, 5, 9]]), look)[0]
    expected = [1, 1, (1 / 2.5 - 1 / 5) / (1 - 1 / 5), 0, 0] if inverse else [0, 0, 1.5 / 4, 1, 1]
    np.testing.assert_allclose(shades, expected, atol=1e-6)


def test_the_bar_says_metres_only_where_the_depth_has_them():
    look = Look(1, 5, "viridis", False)
    assert ">metres<" in view.colour_bar(look, "metres") and ">3.00<" in view.colour_bar(look, "metres")
    assert "without a unit" in view.colour_bar(look, "relative")


def test_a_reading_is_the_depth_at_the_point():
    assert "**5.00 m** at (7, 59)" in view.reading(make(SLOPE, point=(7, 59)))
    assert "no unit" in view.reading(make(SLOPE, "relative", (7, 59)))
    assert "Click" in view.reading(make(SLOPE))


def test_two_points_are_measured_in_space():
    """A wall at 2 m, seen with 90 degrees: its width in the picture is 4 m."""
    flat = make(np.full((60, 80), 2.0), point=(70, 30))
    assert view.distance(flat, 90) is None and "from the point before" not in view.reading(flat, 90)
    both = replace(flat, former=(10, 30))
    assert view.distance(both, 90) == pytest.approx(4 * 60 / 80)
    assert "**3.00 m** from the point before" in view.reading(both, 90)
    deep = np.full((60, 80), 2.0)
    deep[30, 40] = 5.0
    assert view.distance(replace(make(deep, point=(40, 30)), former=(40, 30)), 60) == 0
    upright = replace(make(np.full((80, 60), 2.0), point=(30, 70)), former=(30, 10))
    assert view.distance(upright, 90) == pytest.approx(3)  # the angle is that of the longer side


def test_a_corner_of_the_room_is_measured_as_by_hand():
    """From (0, 0, 3) to (1, 1, 2), both of them seen by a camera of focal length 40 pixels."""
    depth = np.full((80, 80), 9.0)
    depth[39, 39], depth[19, 59] = 3, 2
    corner = replace(make(depth, point=(39, 39)), former=(59, 19))
    a, b = np.array([-0.5 * 3 / 40, 0.5 * 3 / 40, 3]), np.array([19.5 * 2 / 40, 20.5 * 2 / 40, 2])
    assert view.distance(corner, 90) == pytest.approx(float(np.linalg.norm(a - b)), rel=1e-5)


def test_relative_depth_has_no_distance_and_says_so():
    both = replace(make(np.full((60, 80), 2.0), "relative", (70, 30)), former=(10, 30))
    assert view.distance(both, 90) is None
    told = view.reading(both, 90)
    assert "no distance" in told and "relative, without a unit" in told and " m" not in told.replace(" point", "")


def test_the_line_between_two_points_is_drawn():
    look = Look(1, 5, "grey", False)
    one = make(SLOPE, point=(70, 50))
    drawn = view.draw_depth(one, look), view.draw_depth(replace(one, former=(10, 10)), look)
    rows, columns = np.nonzero((drawn[0] != drawn[1]).any(axis=-1))
    assert columns.min() < 12 and rows.min() < 12 and (drawn[0] != drawn[1]).any(axis=-1)[28:33, 38:43].any()


@pytest.mark.parametrize(("form", "ending"), [("points", "ply"), ("mesh", "glb")])
def test_the_picture_in_space_is_a_file_of_its_form(form, ending):
    name, content = view.space_file(make(SLOPE), 65, form)
    assert name == f"a_room.{ending}" and content[:3] in (b"ply", b"glT")


def test_the_camera_is_told_and_relative_depth_is_warned_of():
    assert "no focal length; 65° along the longer side are assumed" in view.space_text(make(SLOPE), 65)
    assert "no unit" not in view.space_text(make(SLOPE), 65) and "no unit" in view.space_text(
        make(SLOPE, "relative"), 65
    )


def test_millimetres_are_16_bit_and_refused_without_a_unit():
    name, content = view.millimetre_file(make(SLOPE))
    array = np.asarray(Image.open(io.BytesIO(content)))
    assert name == "a_room-depth-mm.png" and array.dtype == np.uint16
    np.testing.assert_allclose(array, SLOPE * 1000, atol=0.51)
    with pytest.raises(ValueError, match="no unit"):
        view.millimetre_file(make(SLOPE, "relative"))


def test_depth_beyond_65_metres_does_not_wrap_around():
    array = np.asarray(Image.open(io.BytesIO(view.millimetre_file(make(SLOPE + 80))[1])))
    assert (array == 65535).all()


def test_the_cross_is_drawn_at_the_point():
    look = Look(1, 5, "grey", False)
    plain, marked = view.draw_depth(make(SLOPE), look), view.draw_depth(make(SLOPE, point=(40, 30)), look)
    rows, columns = np.nonzero((plain != marked).any(axis=-1))
    assert abs(rows.mean() - 30) < 3 and abs(columns.mean() - 40) < 3


def test_two_probes_are_compared_in_metres_or_by_order():
    assert "differ by 0.50 m" in view.difference(make(SLOPE), make(SLOPE + 0.5))
    assert "agree by 1.00" in view.difference(make(SLOPE), make(SLOPE**2, "relative"))


def test_a_card_tells_what_the_probe_was_trained_on():
    card = {
        "backbone": "b",
        "kind": "lin4",
        "bins": 256,
        "range": [0.1, 8.0],
        "relative": False,
        "data": "an office",
        "source": "",
        "licence": "MIT",
        "metrics": {"rmse": 0.5},
    }
    text = view.card_text(card, "A note.")
    assert text.startswith("A note.") and "an office · MIT" in text and "rmse 0.500" in text and "0.1 to 8 m" in text
    assert "Near and far" not in text
    near = view.card_text(card | {"nearness": {"layer": 11, "ridge": 2.0, "window": 0.2, "share": 0.5}}, "A note.")
    assert "Near and far: layer 12, 50% of the metres' shape" in near
    assert view.card_text(None, "Only this.") == "Only this."
