"""Anomalies as a person finds them: the example, the line, a clicked spot, one more good photo, a saved set."""

import csv
import io
import zipfile

import pytest

from .helpers import ASSETS, boxes, cut_captions, download, source, wait_for_new

EXAMPLE = ASSETS / "anomaly"


@pytest.fixture
def anomaly_page(page):
    page.locator("#resolution input[type=number]").fill("252")
    page.locator("#resolution input[type=number]").press("Enter")
    page.get_by_role("tab", name="Anomalies").click()
    page.wait_for_selector("#anomaly-good input[type=file]", state="attached")
    return page


def take_example(page) -> None:
    page.click("#anomaly-example")
    page.wait_for_selector("#anomaly-status >> text=3 anomalies, 2 good, of 5 photos")
    wait_for_new(page, "#anomaly-picture", None)


def set_line(page, value: float) -> None:
    page.locator("#anomaly-line input[type=number]").fill(str(value))
    page.locator("#anomaly-line input[type=number]").press("Enter")


def test_the_example_is_checked_and_the_line_moves_the_counts(anomaly_page, screenshot):
    page = anomaly_page
    take_example(page)
    assert "6 good photos" in page.inner_text("#anomaly-learned")
    captions = page.locator("#anomaly-gallery .caption-label").all_inner_texts()
    assert [text.split(" · ")[0] for text in captions] == ["anomaly"] * 3 + ["good"] * 2
    assert cut_captions(page, "#anomaly-gallery") == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert cut_captions(page, "#anomaly-gallery") == []
    assert max(box["x"] + box["width"] for box in boxes(page, "#anomaly-gallery img")) <= 390
    page.set_viewport_size({"width": 1400, "height": 1000})
    set_line(page, 3)
    page.wait_for_selector("#anomaly-status >> text=0 anomalies, 5 good")
    set_line(page, 1)
    page.wait_for_selector("#anomaly-status >> text=3 anomalies, 2 good")
    rows = list(csv.DictReader(io.StringIO(download(page, "#anomaly-csv")[1].decode())))
    assert [row["verdict"] for row in rows].count("anomaly") == 3
    with zipfile.ZipFile(io.BytesIO(download(page, "#anomaly-zip")[1])) as archive:
        assert len([name for name in archive.namelist() if name.startswith("masks/")]) == 5
    screenshot(page, "anomaly")


def test_a_clicked_spot_shows_the_nearest_good_patch_and_a_photo_can_be_accepted(anomaly_page):
    page = anomaly_page
    take_example(page)
    page.locator("#anomaly-picture img").click()
    wait_for_new(page, "#anomaly-nearest", None)
    assert "× the line" in page.inner_text("#anomaly-why") and "good_" in page.inner_text("#anomaly-why")
    page.click("#anomaly-fine")
    page.wait_for_selector("#anomaly-learned >> text=7 good photos")
    page.wait_for_selector("#anomaly-status >> text=2 anomalies, 3 good")


def test_a_saved_set_takes_the_place_of_the_good_photos(anomaly_page, tmp_path):
    page = anomaly_page
    take_example(page)
    (tmp_path / "cups.safetensors").write_bytes(download(page, "#anomaly-save")[1])
    before = source(page, "#anomaly-picture")
    page.reload()
    page.get_by_role("tab", name="Anomalies").click()
    page.get_by_role("button", name="Settings, and saved sets").click()
    page.set_input_files("#anomaly-load input[type=file]", str(tmp_path / "cups.safetensors"))
    page.wait_for_selector("#anomaly-learned >> text=6 good photos")
    page.set_input_files("#anomaly-check input[type=file]", str(EXAMPLE / "check_4.jpg"))
    page.wait_for_selector("#anomaly-status >> text=1 anomaly, 0 good, of 1 photo")
    wait_for_new(page, "#anomaly-picture", before)
