"""Depth: read a value under a click, turn the point cloud, compare, many photos, train a probe and use it."""

import io
import json
import re
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import load_image

from .helpers import ASSETS, download, source, upload_photo, wait_for_new

PHOTO = ASSETS / "room_wine.jpg"
DRAWN = "() => { const c = document.querySelector('#depth-model canvas'); return c?.width > 100 && c.height > 100 }"


@pytest.fixture
def depth_page(page):
    page.get_by_role("tab", name="Depth", exact=True).first.click()
    page.wait_for_selector("#depth-photo input[type=file]", state="attached")
    page.locator("#depth-metres input").check()
    return page


def estimate(page, path=PHOTO) -> str:
    return upload_photo(page, path, "#depth-photo", "#depth-picture")


def click_share(page, selector: str, x: float, y: float) -> None:
    box = page.locator(f"{selector} img").first.bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_the_value_under_a_click_is_the_one_that_is_downloaded(depth_page, screenshot):
    estimate(depth_page)
    assert "metres" in depth_page.inner_text("#depth-bar")
    assert "office" in depth_page.inner_text("#depth-card")
    picture = depth_page.locator("#depth-picture img").first
    picture.scroll_into_view_if_needed()
    click_share(depth_page, "#depth-picture", 0.5, 0.7)
    depth_page.wait_for_selector("#depth-reading >> text=from the top left")
    screenshot(depth_page, "depth")
    value, x, y = re.search(r"([\d.]+) m at \((\d+), (\d+)\)", depth_page.inner_text("#depth-reading")).groups()
    name, content = download(depth_page, "#depth-npy")
    depth = np.load(io.BytesIO(content))
    assert name == "room_wine-depth.npy" and depth.shape == load_image(PHOTO).shape[:2]
    assert abs(depth[int(y), int(x)] - float(value)) < 0.006
    assert abs(int(x) / depth.shape[1] - 0.5) < 0.02 and abs(int(y) / depth.shape[0] - 0.7) < 0.02
    _, content = download(depth_page, "#depth-mm")
    millimetres = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_allclose(millimetres, depth * 1000, atol=0.51)


def test_the_colours_follow_the_controls_and_the_point_stays(depth_page):
    before = estimate(depth_page)
    click_share(depth_page, "#depth-picture", 0.3, 0.3)
    depth_page.wait_for_selector("#depth-reading >> text=from the top left")
    before = wait_for_new(depth_page, "#depth-picture", before)
    told = depth_page.inner_text("#depth-reading")
    depth_page.get_by_label("Inverse depth").check()
    before = wait_for_new(depth_page, "#depth-picture", before)
    far = depth_page.locator("#depth-far input[type=number]")
    far.fill("3")
    far.press("Enter")
    wait_for_new(depth_page, "#depth-picture", before)
    depth_page.wait_for_selector("#depth-bar >> text=3.00")
    assert depth_page.inner_text("#depth-reading") == told


def test_a_close_up_has_no_metres_until_they_are_asked_for(depth_page, screenshot):
    depth_page.locator("#depth-metres input").uncheck()
    before = estimate(depth_page, ASSETS / "coffee_cup.jpg")
    depth_page.wait_for_selector("#depth-message >> text=no metres")
    assert "without a unit" in depth_page.inner_text("#depth-bar")
    screenshot(depth_page, "depth-outside")
    depth_page.click("#depth-mm")
    depth_page.wait_for_selector("text=ask for metres although unsure")
    _, content = download(depth_page, "#depth-json")
    assert json.loads(content)["inside"] is False
    depth_page.locator("#depth-metres input").check()
    wait_for_new(depth_page, "#depth-picture", before)
    depth_page.wait_for_selector("#depth-bar >> text=metres")


def test_the_point_cloud_is_shown_and_the_surface_downloads(depth_page, screenshot):
    estimate(depth_page)
    depth_page.get_by_role("tab", name="3D").click()
    depth_page.wait_for_selector("#depth-model canvas")
    depth_page.wait_for_function(DRAWN)
    colours = 0
    for _ in range(20):  # the canvas says nothing of when it has drawn
        picture = load_image(depth_page.locator("#depth-model canvas").screenshot())
        colours = len(np.unique(picture[60:].reshape(-1, 3) // 16, axis=0))
        if colours > 30:
            break
        depth_page.wait_for_timeout(1000)
    screenshot(depth_page, "depth-space")
    assert colours > 30  # not an empty canvas
    name, content = download(depth_page, "#depth-glb")
    magic, version, length = struct.unpack("<III", content[:12])
    assert name == "room_wine.glb" and (magic, version, length) == (0x46546C67, 2, len(content))
    _, content = download(depth_page, "#depth-ply")
    assert content.startswith(b"ply\nformat binary_little_endian")
    assert "no focal length; 65° along the longer side" in depth_page.inner_text("#depth-camera")
    depth_page.get_by_role("tab", name="Photo and depth").click()
    depth_page.wait_for_selector("#depth-slider img")
    screenshot(depth_page, "depth-slider")


def test_the_focal_length_comes_from_the_photo_and_two_clicks_measure(depth_page, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26
    Image.open(PHOTO).save(tmp_path / "taken.jpg", exif=exif)
    before = estimate(depth_page, tmp_path / "taken.jpg")
    depth_page.get_by_role("tab", name="3D").click()
    depth_page.wait_for_selector("#depth-camera >> text=Focal length from the photo: 26 mm (35 mm equivalent)")
    told = float(depth_page.input_value("#depth-fov input[type=number]"))
    assert f"{told:.1f}° along" in depth_page.inner_text("#depth-camera") and 66 < told < 73
    depth_page.get_by_role("tab", name="Depth", exact=True).last.click()
    for x, y in ((0.3, 0.8), (0.7, 0.8)):
        click_share(depth_page, "#depth-picture", x, y)
        before = wait_for_new(depth_page, "#depth-picture", before)
    depth_page.wait_for_selector(f"#depth-reading >> text=/from the point before, with a field of view of {told:.1f}/")
    depth_page.locator("#depth-metres input").uncheck()
    if depth_page.locator("#depth-bar >> text=relative").count():
        depth_page.wait_for_selector("#depth-reading >> text=no distance to the point before")


def test_without_a_fitting_probe_the_page_says_what_to_do(depth_page):
    depth_page.locator("#backbone input").fill("dinov2-small-saliency")
    depth_page.locator("#backbone input").press("Enter")
    depth_page.wait_for_timeout(500)
    if depth_page.get_by_text("dinov2-small-saliency is not").count():
        pytest.skip("dinov2-small-saliency is not in weights/")
    depth_page.wait_for_function("() => !document.querySelector('#depth-probe input').value.startsWith('Built-in')")
    depth_page.set_input_files("#depth-photo input[type=file]", str(PHOTO))
    depth_page.wait_for_selector("#depth-status >> text=No probe fits this backbone")


def test_many_photos_come_as_one_zip(depth_page, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    depth_page.get_by_role("tab", name="Many photos").click()
    files = [PHOTO, tmp_path / "broken.jpg", ASSETS / "coffee_cup.jpg"]
    depth_page.set_input_files("#depth-files input[type=file]", [str(f) for f in files])
    depth_page.click("#depth-all")
    depth_page.wait_for_selector("#depth-all-status >> text=2 of 3 photos done")
    _, content = download(depth_page, "#depth-zip")
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert {n for n in names if n.endswith("-mm.png")} == {"01-room_wine-depth-mm.png", "03-coffee_cup-depth-mm.png"}


def write_pairs(path) -> None:
    """Write six photos whose depth is a slope, and two files that cannot be used."""
    with zipfile.ZipFile(path, "w") as archive:
        for i, photo in enumerate(sorted(ASSETS.glob("*.jpg"))[:6]):
            height, width = load_image(photo).shape[:2]
            slope = np.linspace(4000, 1000, height)[:, None] + np.zeros(width)
            buffer = io.BytesIO()
            Image.fromarray(slope.astype(np.uint16)).save(buffer, "PNG")
            archive.writestr(f"rgb/{i}.jpg", photo.read_bytes())
            archive.writestr(f"depth/{i}.png", buffer.getvalue())
        archive.writestr("rgb/alone.jpg", PHOTO.read_bytes())


def test_the_sample_is_trained_on_with_one_click_more(depth_page, screenshot):
    depth_page.get_by_role("tab", name="Train a probe").click()
    assert "CC0" in depth_page.inner_text("#depth-about-sample")
    depth_page.locator("#resolution input[type=number]").fill("224")
    depth_page.locator("#resolution input[type=number]").press("Enter")
    depth_page.click("#depth-sample")
    depth_page.wait_for_selector("#depth-found >> text=12 pairs")
    assert "1000 units in a metre" in depth_page.inner_text("#depth-found")
    epochs = depth_page.locator("#depth-epochs input[type=number]")
    epochs.fill("2")
    epochs.press("Enter")
    depth_page.click("#depth-train")
    depth_page.wait_for_selector("#depth-train-status >> text=Trained my probe")
    screenshot(depth_page, "depth-sample")
    assert depth_page.locator("#depth-held-out img").count() >= 4


def test_train_a_probe_see_it_and_use_it(depth_page, tmp_path, screenshot):
    write_pairs(tmp_path / "pairs.zip")
    depth_page.get_by_role("tab", name="Train a probe").click()
    depth_page.set_input_files("#depth-pairs input.files", str(tmp_path / "pairs.zip"))
    depth_page.wait_for_selector("#depth-found >> text=6 pairs")
    assert "millimetres" in depth_page.inner_text("#depth-found") and "same name" in depth_page.inner_text(
        "#depth-found"
    )
    depth_page.wait_for_selector("#depth-histogram canvas, #depth-histogram svg")
    depth_page.locator("#depth-unit input").fill("2000")
    depth_page.locator("#depth-unit input").press("Enter")
    depth_page.wait_for_selector("#depth-found >> text=2000 units in a metre")
    screenshot(depth_page, "depth-found")
    depth_page.get_by_label("Name of the probe").fill("slope")
    epochs = depth_page.locator("#depth-epochs input[type=number]")
    epochs.fill("3")
    epochs.press("Enter")
    depth_page.click("#depth-train")
    depth_page.wait_for_selector("#depth-train-status >> text=Trained slope")
    assert "alone.jpg" in depth_page.inner_text("#depth-problems")
    screenshot(depth_page, "depth-train")
    name, content = download(depth_page, "#depth-save")
    (tmp_path / name).write_bytes(content)
    depth_page.get_by_role("tab", name="Estimate").click()
    depth_page.wait_for_function("() => document.querySelector('#depth-probe input').value == 'Mine: slope'")
    estimate(depth_page)
    assert "pairs.zip" in depth_page.inner_text("#depth-card")
    depth_page.reload()
    depth_page.get_by_role("tab", name="Depth", exact=True).first.click()
    depth_page.get_by_text("Load a probe of your own").click()
    depth_page.set_input_files("#depth-load input[type=file]", str(tmp_path / name))
    depth_page.wait_for_function(
        "() => document.querySelector('#depth-probe input').value.startsWith('Mine: depth-slope')"
    )
    depth_page.get_by_role("button", name="More settings").locator("visible=true").click()
    depth_page.locator("#depth-other input").click()
    depth_page.get_by_role("option", name="Built-in: rooms (metres)").click()
    estimate(depth_page)
    wait_for_new(depth_page, "#depth-compared", None)
    assert "They differ by" in depth_page.inner_text("#depth-differ")
    screenshot(depth_page, "depth-compare")
    assert source(depth_page, "#depth-picture")
