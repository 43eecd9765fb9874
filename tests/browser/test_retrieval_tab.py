"""Retrieval as a person does it: build an index from a folder, ask with a photo and a part of one, classify, map."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from .helpers import ASSETS, choose_tab, download, pixels, source, wait_for_new

PHOTOS = sorted(ASSETS.glob("*.jpg"))


def make_folder(folder, copies: int = 7):
    """Write a class folder for each shipped photo with crops of it (the first is the whole): 63 files, and no photo."""
    rng = np.random.default_rng(0)
    for path in PHOTOS:
        (folder / path.stem).mkdir(parents=True)
        with Image.open(path) as photo:
            photo.thumbnail((480, 480))
            photo.save(folder / path.stem / "0.jpg")
            for i in range(1, copies):
                share = rng.uniform(0.6, 0.9)
                x, y = (rng.uniform(0, 1 - share) * side for side in photo.size)
                box = (x, y, x + share * photo.width, y + share * photo.height)
                photo.crop(tuple(int(v) for v in box)).save(folder / path.stem / f"{i}.jpg")
    (folder / "notes.txt").write_text("no photo")
    (folder / "broken.jpg").write_bytes(b"no photo either")
    return folder


def open_tab(page):
    page.get_by_role("tab", name="Retrieval", exact=True).click()
    page.wait_for_selector("#index input")


def build(page, folder, name: str = "crops") -> None:
    page.get_by_role("tab", name="Build", exact=True).click()
    page.locator("#build-name textarea, #build-name input").first.fill(name)
    page.set_input_files("#build-picker input.folder", str(folder))
    page.wait_for_selector("#build-status >> text=files are here")
    page.click("#build-add")
    page.wait_for_selector("#build-status >> text=added")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photos") / "crops")


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photos") / "few", copies=2)


def ask(page, photo) -> str:
    page.get_by_role("tab", name="Search", exact=True).click()
    before = source(page, "#retrieval-hits")
    remove = page.locator("#retrieval-photo button[aria-label='Remove Image']")
    if remove.count():
        remove.first.click()
    page.set_input_files("#retrieval-photo input[type=file]", str(photo))
    wait_for_new(page, "#retrieval-hits", before)
    return page.inner_text("#retrieval-hits")


def draw_box(page, x0: float, y0: float, x1: float, y1: float) -> None:
    canvas = page.locator("#retrieval-painter canvas.mask")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + x0 * box["width"], box["y"] + y0 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + x1 * box["width"], box["y"] + y1 * box["height"], steps=6)
    page.mouse.up()


def test_an_index_of_a_folder_finds_explains_filters_and_is_there_after_a_reload(page, folder, screenshot):
    open_tab(page)
    build(page, folder)
    told = page.inner_text("#build-status")
    assert "63 added" in told and "broken.jpg" in told
    page.wait_for_selector("#index-about >> text=63 photos")
    assert "9 labels" in page.inner_text("#index-about")

    hits = ask(page, ASSETS / "coffee_cup.jpg")
    assert "coffee_cup/0.jpg" in hits
    rows = list(csv.DictReader(io.StringIO(download(page, "#retrieval-csv")[1].decode())))
    assert len(rows) == 12 and rows[0]["label"] == "coffee_cup" and float(rows[0]["score"]) > 0.9
    assert sum(row["label"] == "coffee_cup" for row in rows[:7]) >= 5
    screenshot(page, "retrieval")

    page.locator("#retrieval-hits button").first.click()
    page.wait_for_selector("#retrieval-why img")
    assert "mutual nearest" in page.inner_text("#retrieval-message")

    hits = page.locator("#retrieval-count input[type=number]")
    hits.fill("3")
    hits.press("Enter")
    page.wait_for_selector("#retrieval-status >> text=3 nearest")
    draw_box(page, 0.2, 0.1, 0.8, 0.6)
    page.wait_for_selector("#retrieval-status >> text=the boxed part")
    region = list(csv.DictReader(io.StringIO(download(page, "#retrieval-csv")[1].decode())))
    assert region[0]["label"] == "coffee_cup" and len(region[0]["region"].split()) == 4
    screenshot(page, "retrieval-region")

    page.reload()
    open_tab(page)
    page.wait_for_selector("#index-about >> text=63 photos")


def test_a_hit_is_used_in_other_tabs(page, small_folder):
    page.get_by_role("tab", name="Segmentation", exact=True).click()
    page.wait_for_selector("#seg-reference input[type=file]", state="attached")
    page.set_input_files("#seg-reference input[type=file]", str(ASSETS / "cat_chelsea.jpg"))
    given = wait_for_new(page, "#seg-reference", None)
    open_tab(page)
    build(page, small_folder, "used")
    ask(page, ASSETS / "coffee_cup.jpg")
    assert not page.locator("#hit-use").is_visible()
    page.locator("#retrieval-hits button").nth(1).click()
    page.wait_for_selector("#hit-use:visible")
    width, height = Image.open(small_folder / "coffee_cup" / "1.jpg").size
    choose_tab(page, "#hit-use", "Attention")
    shown = wait_for_new(page, "#attention-overlay", None)
    shape = pixels(page, shown).shape
    assert shape[1] / shape[0] == pytest.approx(width / height, abs=0.01)
    open_tab(page)
    choose_tab(page, "#hit-use", "Segmentation")
    wait_for_new(page, "#seg-reference", given)


def test_another_browser_does_not_see_it(page, open_page, small_folder):
    open_tab(page)
    build(page, small_folder, "secret")
    other = open_page()
    open_tab(other)
    other.locator("#index input").click()
    assert "secret" not in other.inner_text("body")
    assert "Choose an index" in other.inner_text("#index-about")


def test_classify_map_duplicates_and_delete(page, small_folder, screenshot):
    open_tab(page)
    build(page, small_folder)
    page.get_by_role("tab", name="Labels", exact=True).click()
    page.click("#labels-start")
    page.wait_for_selector("#labels-verdict >> text=right")
    assert float(page.inner_text("#labels-verdict").split("%")[0]) > 80
    assert download(page, "#labels-csv")[1].decode().startswith("truth")
    screenshot(page, "retrieval-labels")

    page.get_by_role("tab", name="Map and duplicates", exact=True).click()
    page.click("#map-start")
    page.wait_for_selector("#map-picture img")
    page.locator("#map-picture img").click(position={"x": 200, "y": 200})
    page.wait_for_selector("#map-photo img")
    assert ".jpg" in page.inner_text("#map-message")
    page.click("#map-cluster")
    page.wait_for_selector("#map-summary >> text=clusters")
    assert download(page, "#map-csv")[1].decode().count("\n") == 18
    screenshot(page, "retrieval-map")

    page.get_by_role("tab", name="Build", exact=True).click()
    page.click("#build-delete")
    page.get_by_text("Tick the box first").first.wait_for()
    page.get_by_label("Yes, delete it").check()
    page.click("#build-delete")
    page.wait_for_selector("#build-status >> text=Deleted")
    page.wait_for_selector("#index-about >> text=Choose an index")
