"""The Classify tab in a browser: the example, classes of one's own, answers, and a classifier that is kept."""

import csv
import io

from .helpers import ASSETS, download


def open_tab(page) -> None:
    page.get_by_role("tab", name="Classify", exact=True).click()
    page.wait_for_selector("#classify-fit")


def test_the_example_makes_a_classifier_that_answers_and_is_kept(page, screenshot, tmp_path):
    open_tab(page)
    page.click("#classify-example")
    page.wait_for_selector("#classify-status >> text=4 classes, 32 photos")
    assert "95 % interval" in page.inner_text("#classify-status")
    page.wait_for_selector("#classify-matrix img")
    screenshot(page, "classify")
    assert download(page, "#classify-csv")[1].decode().startswith("truth")
    name, content = download(page, "#classify-save")
    assert name == "classifier.safetensors"
    (tmp_path / name).write_bytes(content)

    page.get_by_role("tab", name="Use it", exact=True).click()
    page.set_input_files("#classify-photo input[type=file]", str(ASSETS / "dandelions.jpg"))
    page.wait_for_selector("#classify-answer >> text=flower")
    screenshot(page, "classify-answer")

    page.reload()
    open_tab(page)
    page.get_by_role("tab", name="Use it", exact=True).click()
    page.set_input_files("#classify-load input[type=file]", str(tmp_path / name))
    page.wait_for_selector("#classify-about >> text=4 classes")
    page.locator("#classify-photos input.files").set_input_files(
        [str(ASSETS / "cat_chelsea.jpg"), str(ASSETS / "mountain_path.jpg")]
    )
    page.wait_for_selector("#classify-found >> text=2 photos classified")
    rows = list(csv.DictReader(io.StringIO(download(page, "#classify-answers")[1].decode())))
    assert [row["label"] for row in rows] == ["animal", "landscape"]


def test_classes_are_made_one_by_one(page):
    open_tab(page)
    for label, photo in (("cup", "coffee_cup.jpg"), ("cat", "cat_chelsea.jpg")):
        page.locator("#classify-picker input.files").set_input_files([str(ASSETS / photo)])
        page.wait_for_selector("#classify-status >> text=files are here")
        page.fill("#classify-name input, #classify-name textarea", label)
        page.click("#classify-fit")
        page.wait_for_selector(f"#classify-status >> text={label} 1")
    assert "2 classes, 2 photos" in page.inner_text("#classify-status")
