"""Compare two photos as a person does: drop both, read what agrees, click a point, filter, download."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from .helpers import ASSETS, download, pixels, requests_from_rest, source, wait_for_new


@pytest.fixture
def compare_page(page):
    page.get_by_role("tab", name="Compare").click()
    page.locator("#resolution input[type=number]").fill("322")
    page.locator("#resolution input[type=number]").press("Enter")
    page.wait_for_selector("#compare-first input[type=file]", state="attached")
    return page


def drop_both(page, first, second) -> None:
    page.set_input_files("#compare-first input[type=file]", str(first))
    page.wait_for_selector("#compare-first img")
    before = source(page, "#compare-lines")
    page.set_input_files("#compare-second input[type=file]", str(second))
    wait_for_new(page, "#compare-lines", before)


def test_a_clicked_point_is_found_on_the_other_photo(compare_page, tmp_path, screenshot):
    photo = Image.open(ASSETS / "coffee_cup.jpg").convert("RGB")
    photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    drop_both(compare_page, ASSETS / "coffee_cup.jpg", tmp_path / "mirrored.png")
    side = compare_page.locator("#compare-side-first img")
    box, before = side.bounding_box(), source(compare_page, "#compare-side-second")
    shown = min(box["width"] / photo.width, box["height"] / photo.height)  # the photo is centred in its box
    x = box["width"] / 2 + (0.62 - 0.5) * photo.width * shown  # the spoon in the saucer
    y = box["height"] / 2 + (0.75 - 0.5) * photo.height * shown
    side.click(position={"x": x, "y": y})
    heat = pixels(compare_page, wait_for_new(compare_page, "#compare-side-second", before)).astype(int)
    white = (heat.min(axis=2) > 240) & (np.abs(heat - heat.mean(axis=2, keepdims=True)).max(axis=2) < 12)
    rows, columns = np.nonzero(white)
    near = (np.abs(columns / white.shape[1] - 0.38) < 0.08) & (np.abs(rows / white.shape[0] - 0.75) < 0.08)
    assert near.sum() > 20, "the cross lies where the mirrored spoon is"
    assert "cosine" in compare_page.locator("#compare-point").inner_text()
    screenshot(compare_page, "compare")


def test_filters_and_downloads_tell_the_same(compare_page):
    compare_page.click("#compare-example")
    compare_page.wait_for_selector("#compare-status >> text=mutual nearest")
    rows = list(csv.DictReader(io.StringIO(download(compare_page, "#compare-csv")[1].decode())))
    status = compare_page.locator("#compare-status").inner_text()
    assert f"{len(rows)} pass the filters" in status
    assert all(float(row["cosine"]) >= 0.4 for row in rows)
    compare_page.get_by_label("Off", exact=True).check()  # the check is on at first
    compare_page.wait_for_function(
        "old => document.querySelector('#compare-status').innerText.trim() !== old.trim()", arg=status
    )
    every = json.loads(download(compare_page, "#compare-json")[1])
    assert 4 <= len(rows) < len(every["pairs"]) and 0 < every["cls_cosine"] < 1
    drawing = Image.open(io.BytesIO(download(compare_page, "#compare-png")[1]))
    assert drawing.width > 1.5 * drawing.height


def test_the_best_match_follows_the_pointer_and_a_click_on_the_drawing_asks_there(compare_page, screenshot):
    compare_page.click("#compare-example")
    compare_page.wait_for_selector("#compare-lens .lens-board[data-count='2']")
    compare_page.wait_for_selector("#compare-lines img")
    asked = requests_from_rest(compare_page)
    compare_page.locator("#compare-lens .lens-stage").first.hover()
    compare_page.wait_for_selector("#compare-lens .lens-best")
    assert "cup_by_the_stream" in compare_page.inner_text("#compare-lens .lens-readout")
    assert not [url for url in asked if "/queue/" in url]
    screenshot(compare_page, "compare-lens")
    before = source(compare_page, "#compare-side-second")
    compare_page.locator("#compare-lines img").click(position={"x": 100, "y": 120})
    wait_for_new(compare_page, "#compare-side-second", before)
