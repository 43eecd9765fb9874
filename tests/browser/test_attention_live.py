"""The attention tab's controls redraw in the browser: Python's pictures, without a question to the server."""

import base64
import io
import time
from dataclasses import replace

import numpy as np
import pytest
from patience import SECONDS
from PIL import Image

from dinodemo import Engine
from dinodemo.io.images import load_photo
from dinodemo.tasks.attention import draw
from dinodemo.tasks.tokens import patch_at

from .helpers import ASSETS, boxes, requests_from_rest, source, upload_photo, wait_for_new
from .test_second_backbone import choose_second

CAT = ASSETS / "cat_chelsea.jpg"
CANVAS = "document.querySelector('%s canvas.heat-map')"


def drawn(page, target: str) -> np.ndarray:
    """Read what the browser drew over a picture, (H, W, 3) uint8."""
    page.wait_for_selector(f"{target} canvas.heat-map", state="attached")
    text = page.evaluate(f"() => {CANVAS % target}.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text.split(",")[1]))).convert("RGB"))


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    """Return how far a picture is from Python's, in shares of the range, but for a few pixels of the photo's JPEG."""
    if got.shape != wanted.shape:
        return 1.0
    return float(np.quantile(np.abs(got.astype(int) - wanted).max(axis=-1), 0.999)) / 255


def assert_drawn(page, target: str, wanted: np.ndarray) -> None:
    """Wait until the browser has drawn Python's picture, to 0.02 of the range."""
    ends = time.monotonic() + SECONDS
    while (found := difference(drawn(page, target), wanted)) > 0.02:
        assert time.monotonic() < ends, f"{target} is {found:.3f} of the range away from Python's picture"
        page.wait_for_timeout(200)


@pytest.fixture(scope="module")
def python_view():
    photo = load_photo(CAT)
    engine = Engine("dinov2-small-offline")
    return draw.View(photo, engine.features(photo, attention=True), ("dinov2-small-offline", 518), "")


def set_slider(page, selector: str, value: int | float) -> None:
    page.fill(f"{selector} input[type=number]", str(value))
    page.keyboard.press("Tab")


def test_controls_redraw_pythons_picture_and_ask_nobody(page, python_view, screenshot):
    shown = upload_photo(page, CAT)
    look = draw.Look(12, "mean", 100, 0.6, "inferno", True)
    assert_drawn(page, "#attention-overlay", draw.draw_overlay(python_view, look))
    asked = requests_from_rest(page)
    page.get_by_role("radio", name="3", exact=True).check()
    look = replace(look, head="3")
    assert_drawn(page, "#attention-overlay", draw.draw_overlay(python_view, look))
    page.wait_for_function(
        "() => document.querySelectorAll('#attention-heads button.thumbnail-item')[2].classList.contains('selected')"
    )
    set_slider(page, "#mass", 60)
    set_slider(page, "#opacity", 0.9)
    look = replace(look, mass=60, opacity=0.9)
    assert_drawn(page, "#attention-overlay", draw.draw_overlay(python_view, look))
    page.get_by_role("radio", name="Max", exact=True).check()
    page.get_by_label("Smooth").first.uncheck()
    page.get_by_label("Colour map").first.click()
    page.get_by_role("option", name="viridis").click()
    look = replace(look, head="max", colour_map="viridis", smooth=False)
    assert_drawn(page, "#attention-overlay", draw.draw_overlay(python_view, look))
    assert_drawn(page, "#attention-heads", draw.draw_heads(python_view, look)[0][0])
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
    attention, cosine = draw.draw_point(view, look)
    assert_drawn(page, "#attention-overlay", draw.draw_overlay(view, look))
    assert_drawn(page, "#point-attention", attention)
    assert_drawn(page, "#point-cosine", cosine)
    screenshot(page, "attention-live-point")
    assert asked == []


def test_a_new_layer_keeps_the_look_and_a_removed_photo_leaves_nothing(page, python_view):
    shown = upload_photo(page, CAT)
    page.get_by_role("radio", name="3", exact=True).check()
    page.locator("#layer input[type=range]").focus()
    page.keyboard.press("Home")
    wait_for_new(page, "#attention-overlay", shown)
    first = draw.Look(1, "3", 100, 0.6, "inferno", True)
    assert_drawn(page, "#attention-overlay", draw.draw_overlay(python_view, first))
    page.locator("#attention-photo button[aria-label='Remove Image']").first.click()
    page.wait_for_function("() => !document.querySelector('canvas.heat-map')")


def test_the_map_lies_on_its_picture_in_any_window(page):
    upload_photo(page, CAT)
    drawn(page, "#attention-overlay")
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        picture, canvas = (boxes(page, f"#attention-overlay {kind}")[0] for kind in ("img", "canvas.heat-map"))
        assert picture == pytest.approx(canvas, abs=1), width


def test_beside_a_second_backbone_both_pictures_follow(page, tiny_folder):
    choose_second(page, str(tiny_folder))
    shown = upload_photo(page, CAT)
    page.wait_for_selector("#attention-second img")
    second = source(page, "#attention-second")
    page.get_by_role("radio", name="1", exact=True).check()
    wait_for_new(page, "#attention-overlay", shown)
    wait_for_new(page, "#attention-second", second)
