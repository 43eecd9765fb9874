"""The lens, used with pointer, keyboard and finger; its values are those of Python and nothing is asked meanwhile."""

import numpy as np
import pytest

from dinodemo import Engine
from dinodemo.tasks.tokens import flat_unit, positional_basis_of, without

from .helpers import ASSETS, download, requests_from_rest, upload_photo

CUPS = [ASSETS / "coffee_cup.jpg", ASSETS / "segmentation" / "cup_by_the_stream.jpg"]
LENS = "[...document.querySelectorAll('#lens-view, #lens-view *')].find((one) => one.lens).lens"
RESOLUTION = 224


@pytest.fixture
def lens_page(page):
    page.locator("#resolution input[type=range]").focus()
    page.keyboard.press("Home")
    page.wait_for_selector("#cost >> text=16 × 16")
    page.get_by_role("tab", name="Lens").click()
    page.wait_for_selector("#lens-photos input[type=file]", state="attached")
    page.set_input_files("#lens-photos input[type=file]", [str(path) for path in CUPS])
    page.wait_for_selector("#lens-view .lens-board[data-count='2']")
    return page


def stage(page, index: int):
    return page.locator("#lens-view .lens-stage").nth(index)


def hover(page, index: int, x: float, y: float) -> None:
    box = stage(page, index).bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.wait_for_selector("#lens-view .lens-here")


def test_values_are_pythons_and_hovering_asks_nobody(lens_page, screenshot):
    asked = requests_from_rest(lens_page)
    for x, y in ((0.2, 0.3), (0.5, 0.5), (0.8, 0.6)):
        hover(lens_page, 0, x, y)
    assert "Best match: cup_by_the_stream.jpg" in lens_page.inner_text("#lens-view .lens-readout")
    screenshot(lens_page, "lens")
    got = lens_page.evaluate(f"() => {LENS}.look(0, 7, 9)")
    assert not [url for url in asked if "queue" in url or "upload" in url]
    engine = Engine("dinov2-small-offline")
    basis = positional_basis_of(engine, RESOLUTION)
    fa, fb = (engine.features(path, RESOLUTION) for path in CUPS)
    query = flat_unit(without(fa.patches, basis))[7 * fa.grid[1] + 9]
    for values, f in zip(got, (fa, fb), strict=True):
        assert np.abs(np.array(values) - flat_unit(without(f.patches, basis)) @ query).max() < 0.02


def test_the_tab_opens_with_the_photo_of_another_tab(open_page):
    other = open_page()
    upload_photo(other, ASSETS / "cat_chelsea.jpg")
    other.get_by_role("tab", name="Lens").click()
    other.wait_for_selector("#lens-view .lens-board[data-count='1'] >> text=cat_chelsea")


def test_keyboard_moves_pins_and_clears(lens_page):
    stage(lens_page, 0).focus()
    lens_page.wait_for_selector("#lens-view .lens-here")
    before = lens_page.evaluate(f"() => {LENS}.state().pointer.patch")
    lens_page.keyboard.press("ArrowRight")
    lens_page.wait_for_function(f"before => {LENS}.state().pointer.patch === before + 1", arg=before)
    lens_page.keyboard.press("Enter")
    lens_page.wait_for_selector("#lens-view .lens-like")
    lens_page.keyboard.press("ArrowDown")
    lens_page.keyboard.press("-")
    lens_page.wait_for_selector("#lens-view .lens-unlike")
    lens_page.wait_for_function(f"() => {LENS}.state().pins.map((pin) => pin.sign).join() === '1,-1'")
    lens_page.wait_for_function(
        "() => /to the pins/.test(document.querySelector('#lens-view .lens-spoken').textContent)"
    )
    lens_page.keyboard.press("Escape")
    lens_page.wait_for_selector("#lens-view .lens-unlike", state="detached")


def test_a_mask_of_pins_becomes_paint_in_segmentation(lens_page, screenshot):
    lens_page.click("#lens-send")
    lens_page.wait_for_selector(".toast-body >> text=Nothing is pinned as alike")
    lens_page.locator(".toast-close").first.click()
    hover(lens_page, 0, 0.42, 0.55)
    lens_page.mouse.down()
    lens_page.mouse.up()
    lens_page.wait_for_selector("#lens-view .lens-like")
    lens_page.locator("#lens-view .lens-mask").check()
    screenshot(lens_page, "lens-mask")
    lens_page.click("#lens-send")
    lens_page.wait_for_selector("#seg-painter canvas.mask:visible")
    lens_page.wait_for_function(
        "() => { const c = document.querySelector('#seg-painter canvas.mask');"
        " return c.width > 300 && c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 200) }"
    )


def test_the_shared_page_works_without_a_server(lens_page, browser, tmp_path):
    name, content = download(lens_page, "#lens-page")
    assert name == "lens-coffee_cup.html"
    (tmp_path / name).write_bytes(content)
    alone = browser.new_page()
    asked, errors = [], []
    alone.on("request", lambda request: asked.append(request.url))
    alone.on("pageerror", lambda error: errors.append(str(error)))
    alone.goto((tmp_path / name).as_uri())
    values = alone.evaluate("() => window.lens.look(1, 2, 3)")
    assert max(values[1]) == pytest.approx(1, abs=0.01) and len(values) == 2 and errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    alone.close()


def test_eight_photos_fit_on_a_phone_and_are_touched(open_page, screenshot):
    page = open_page(has_touch=True)
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#resolution input[type=range]").focus()
    page.keyboard.press("Home")
    page.wait_for_selector("#cost >> text=16 × 16")
    page.get_by_role("tab", name="Lens").click()
    page.wait_for_selector("#lens-photos input[type=file]", state="attached")
    photos = [str(path) for path in sorted(ASSETS.glob("*.jpg"))[:8]]
    page.set_input_files("#lens-photos input[type=file]", photos)
    page.wait_for_selector("#lens-view .lens-board[data-count='8']")
    stage(page, 0).tap()
    page.wait_for_selector("#lens-view .lens-like")
    screenshot(page, "lens-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 391
