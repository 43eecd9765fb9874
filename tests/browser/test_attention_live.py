"""The attention tab's controls redraw in the browser: Python's pictures, without a question to the server."""

from dataclasses import replace

import numpy as np
import pytest

from dinodemo import Engine
from dinodemo.io.images import load_photo
from dinodemo.io.render import mark_patch, overlay
from dinodemo.io.resizing import resize
from dinodemo.tasks.attention import draw
from dinodemo.tasks.attention.maps import cosine_to_patch
from dinodemo.tasks.tokens import patch_at

from .helpers import (
    ASSETS,
    assert_drawn,
    boxes,
    drawn,
    requests_from_rest,
    scaled_photo,
    set_slider,
    source,
    upload_photo,
    wait_for_new,
)
from .test_second_backbone import choose_second

CAT = ASSETS / "cat_chelsea.jpg"


def overlay_of(page, view, look):
    """Return Python's overlay as a function of what the browser drew: over the same photo, at the same size."""
    return lambda got: draw.draw_overlay(
        replace(view, photo=scaled_photo(page, "attention-live", 0, got.shape[:2])), look, max(got.shape)
    )


def point_of(page, view, values, look):
    """Return Python's picture of a clicked patch as a function of what the browser drew."""

    def make(got):
        rgb = scaled_photo(page, "attention-live", 0, got.shape[:2]).rgb
        picture = overlay(rgb, values, look.opacity, look.colour_map, look.smooth)
        return mark_patch(picture, view.patch, view.features.grid)

    return make


@pytest.fixture(scope="module")
def python_view():
    photo = load_photo(CAT)
    engine = Engine("dinov2-small-offline")
    return draw.View(photo, engine.features(photo, attention=True), ("dinov2-small-offline", 518), "")


def test_controls_redraw_pythons_picture_and_ask_nobody(page, python_view, screenshot):
    shown = upload_photo(page, CAT)
    look = draw.Look(12, "mean", 100, 0.6, "inferno", True)
    assert_drawn(page, "#attention-overlay", overlay_of(page, python_view, look))
    asked = requests_from_rest(page)
    page.get_by_role("radio", name="3", exact=True).check()
    look = replace(look, head="3")
    assert_drawn(page, "#attention-overlay", overlay_of(page, python_view, look))
    page.wait_for_function(
        "() => document.querySelectorAll('#attention-heads button.thumbnail-item')[2].classList.contains('selected')"
    )
    set_slider(page, "#mass", 60)
    set_slider(page, "#opacity", 0.9)
    look = replace(look, mass=60, opacity=0.9)
    assert_drawn(page, "#attention-overlay", overlay_of(page, python_view, look))
    page.get_by_role("radio", name="Max", exact=True).check()
    page.get_by_label("Smooth").first.uncheck()
    page.get_by_label("Colour map").first.click()
    page.get_by_role("option", name="viridis").click()
    look = replace(look, head="max", colour_map="viridis", smooth=False)
    assert_drawn(page, "#attention-overlay", overlay_of(page, python_view, look))
    assert_drawn(page, "#attention-heads", overlay_of(page, python_view, replace(look, head="1", mass=100)))
    screenshot(page, "attention-live")
    assert asked == [] and source(page, "#attention-overlay") == shown


def test_what_a_clicked_patch_shows_follows_the_controls(page, python_view, screenshot):
    upload_photo(page, CAT)
    page.get_by_text("Choose a patch by coordinates").click()
    page.click("#point-ask")
    wait_for_new(page, "#point-cosine", None)
    asked = requests_from_rest(page)
    page.get_by_role("radio", name="2", exact=True).check()
    set_slider(page, "#mass", 80)
    look = draw.Look(12, "2", 80, 0.6, "inferno", True)
    engine, patch = Engine("dinov2-small-offline"), patch_at(python_view.features, 0.5, 0.5)
    view = replace(python_view, patch=patch, patch_rows=engine.attention_rows(python_view.photo, patch, 518)[0])
    attention, cosine = look.combine(view.patch_rows, view.features), cosine_to_patch(view.features, patch)
    assert_drawn(page, "#attention-overlay", overlay_of(page, view, look))
    assert_drawn(page, "#point-attention", point_of(page, view, attention, look), share=0.99)
    assert_drawn(page, "#point-cosine", point_of(page, view, cosine, look), share=0.99)
    screenshot(page, "attention-live-point")
    assert asked == []


def test_a_new_layer_keeps_the_look_and_a_removed_photo_leaves_nothing(page, python_view):
    shown = upload_photo(page, CAT)
    page.get_by_role("radio", name="3", exact=True).check()
    page.locator("#layer input[type=range]").focus()
    page.keyboard.press("Home")
    wait_for_new(page, "#attention-overlay", shown)
    first = draw.Look(1, "3", 100, 0.6, "inferno", True)
    assert_drawn(page, "#attention-overlay", overlay_of(page, python_view, first))
    page.locator("#attention-photo button[aria-label='Remove Image']").first.click()
    page.wait_for_function("() => !document.querySelector('canvas.live-picture')")


def test_the_map_lies_on_its_picture_in_any_window(page):
    upload_photo(page, CAT)
    drawn(page, "#attention-overlay")
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        picture, canvas = (boxes(page, f"#attention-overlay {kind}")[0] for kind in ("img", "canvas.live-picture"))
        assert picture == pytest.approx(canvas, abs=1), width


def test_it_is_drawn_as_large_as_it_is_shown_and_of_the_photo(page, python_view):
    upload_photo(page, CAT)
    box, got = boxes(page, "#attention-overlay img")[0], drawn(page, "#attention-overlay")
    height, width = got.shape[:2]
    assert min(box["width"] / width, box["height"] / height) == pytest.approx(1, abs=0.01)
    photo, expected = (
        scaled_photo(page, "attention-live", 0, (height, width)),
        resize(python_view.photo.rgb, (height, width)),
    )
    assert np.abs(photo.rgb.astype(int) - expected).mean() < 0.01 * 255
    page.locator("#attention-overlay button[aria-label='Fullscreen']").click()
    page.wait_for_function(f"() => document.querySelector('#attention-overlay canvas').width > {width}")
    assert_drawn(
        page, "#attention-overlay", overlay_of(page, python_view, draw.Look(12, "mean", 100, 0.6, "inferno", True))
    )


def test_beside_a_second_backbone_the_server_draws_only_the_second(page, python_view, tiny_folder):
    choose_second(page, str(tiny_folder))
    shown = upload_photo(page, CAT)
    page.wait_for_selector("#attention-second img")
    requests_from_rest(page)
    second = source(page, "#attention-second")
    page.get_by_role("radio", name="1", exact=True).check()
    wait_for_new(page, "#attention-second", second)
    assert_drawn(
        page, "#attention-overlay", overlay_of(page, python_view, draw.Look(12, "1", 100, 0.6, "inferno", True))
    )
    assert source(page, "#attention-overlay") == shown
