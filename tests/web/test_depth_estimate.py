"""What a new photo, another probe and a click change on the first page of the depth tab."""

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from dinodemo.io.focal import Focal
from dinodemo.io.images import Photo
from dinodemo.tasks.depth import estimate_tab
from dinodemo.tasks.depth.probe_store import Estimate

SETTINGS = ("", (), "a backbone", 518, False, True, False)  # no second probe


@pytest.fixture
def store():
    depth = np.linspace(1, 5, 60, dtype=np.float32)[:, None] + np.zeros((60, 80), np.float32)
    return SimpleNamespace(estimate=lambda key, *_: Estimate(depth, "metres", key, "note", None))


def photo(shade: int = 90, focal: Focal | None = None) -> Photo:
    return Photo(np.full((60, 80, 3), shade, np.uint8), "a.jpg", (), focal)


def estimated(store, given, view=None, key="one"):
    *_, fov = found = estimate_tab.estimate(store, given, view, None, key, *SETTINGS)
    return found[0], fov


def test_the_field_of_view_follows_the_photo_and_stays_with_another_probe(store):
    told = photo(focal=Focal(0.751, "focal length from the photo: 26 mm (35 mm equivalent)"))
    view, fov = estimated(store, told)
    assert fov == 67.3
    assert estimated(store, told, view, "two")[1] == gr.skip()  # so that one set by hand stays
    assert estimated(store, photo(), view)[1] == 65  # the same pixels of a file that tells nothing
    assert estimated(store, photo(50, Focal(None, "cut")), view)[1] == 65


def test_points_stay_with_another_probe_and_go_with_the_photo(store):
    view = replace(estimated(store, photo())[0], point=(3, 4), former=(5, 6))
    other = estimated(store, photo(), view, "two")[0]
    assert other.probe == "two" and (other.point, other.former) == ((3, 4), (5, 6))
    new = estimated(store, photo(50), view)[0]
    assert (new.point, new.former) == (None, None)


def test_what_is_turned_in_space_is_made_when_it_is_looked_at(store):
    view, fov = estimated(store, photo())
    shown = estimate_tab.build_space(view, fov)
    assert shown.endswith(".ply")
    assert estimate_tab.renew_space(None, view, fov) == gr.skip()
    assert estimate_tab.renew_space(shown, view, fov).endswith(".ply")
    assert estimate_tab.renew_space(shown, None, fov) is None
