"""Reference-mask segmentation, used as a person does: real strokes, real targets."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from .helpers import ASSETS, choose_tab, download, pixels, wait_for_new

FOLDER = ASSETS / "segmentation"
TARGETS = ["cup_by_the_stream", "cup_and_dandelions"]


@pytest.fixture
def seg_page(page):
    page.get_by_role("tab", name="Segmentation").click()
    page.wait_for_selector("#seg-reference input[type=file]", state="attached")
    return page


def drop_reference(page, path=ASSETS / "coffee_cup.jpg") -> dict:
    """Upload a reference photo; returns the painter's box on the page."""
    page.set_input_files("#seg-reference input[type=file]", str(path))
    canvas = page.locator("#seg-painter canvas.mask")
    page.wait_for_function(
        "() => { const c = document.querySelector('#seg-painter canvas.mask');"
        " return c.offsetParent && c.width > 300 && c.getBoundingClientRect().height > 50 }"
    )
    canvas.scroll_into_view_if_needed()
    return canvas.bounding_box()


def stroke(page, box: dict, *points: tuple[float, float]) -> None:
    """Draw with the mouse through points given in shares of the photo."""
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


def paint_the_cup(page, box: dict) -> None:
    page.locator("#seg-painter input.size").fill("90")
    rows = [(0.45, 0.20, 0.60), (0.58, 0.22, 0.72), (0.70, 0.25, 0.70), (0.82, 0.33, 0.62)]
    for y, left, right in rows:
        stroke(page, box, (left, y), (right, y))
    stroke(page, box, (0.38, 0.18), (0.58, 0.18), (0.60, 0.33), (0.36, 0.33))
    stroke(page, box, (0.20, 0.38), (0.21, 0.60))
    stroke(page, box, (0.70, 0.42), (0.74, 0.56), (0.68, 0.74), (0.60, 0.84))


def find(page, targets) -> None:
    page.set_input_files("#seg-targets input[type=file]", [str(t) for t in targets])
    page.click("#seg-find")
    page.wait_for_selector("#seg-status >> text=Found on")


def iou(a, b) -> float:
    return (a & b).sum() / (a | b).sum()


def masks_of(content: bytes) -> dict[str, np.ndarray]:
    """Return {photo: mask} of a downloaded zip in its order, the best match first."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    return {
        name[len("00-") : -len("-mask.png")]: np.asarray(Image.open(archive.open(name))) > 127
        for name in archive.namelist()
        if name.endswith("-mask.png")
    }


def test_strokes_on_a_reference_find_the_cup_in_two_targets(seg_page, screenshot):
    paint_the_cup(seg_page, drop_reference(seg_page))
    find(seg_page, [*(FOLDER / f"{name}.jpg" for name in TARGETS), ASSETS / "mountain_path.jpg"])
    wait_for_new(seg_page, "#seg-picture", None)
    screenshot(seg_page, "segmentation")
    assert "Found on 2 of 3" in seg_page.inner_text("#seg-status")
    _, content = download(seg_page, "#seg-zip")
    masks = masks_of(content)
    for name in TARGETS:
        truth = np.asarray(Image.open(FOLDER / f"{name}_mask.png")) > 127
        assert iou(masks[name], truth) > 0.8, name
    assert not masks["mountain_path"].any()  # not here
    coco = json.loads(zipfile.ZipFile(io.BytesIO(content)).read("annotations.json"))
    assert len(coco["images"]) == 3 and {a["image_id"] for a in coco["annotations"]} == {1, 2}
    assert "weights sha256" in coco["info"]["description"]


def outline_share(page) -> float:
    """Return the share of the painter's photo inside the outline that the server sent."""
    return page.evaluate(
        "() => { const c = document.querySelector('#seg-painter canvas.outline');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;"
        " for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / (c.width * c.height) }"
    )


def wait_for_outline(page, before: float) -> float:
    page.wait_for_function(
        "b => { const c = document.querySelector('#seg-painter canvas.outline');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;"
        " for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return Math.abs(n / (c.width * c.height) - b) > 0.002 }",
        arg=before,
    )
    return outline_share(page)


def test_a_scribble_means_the_cup_and_finds_it(seg_page, screenshot):
    box = drop_reference(seg_page)
    stroke(seg_page, box, (0.30, 0.55), (0.62, 0.58))
    grown = wait_for_outline(seg_page, 0.0)
    truth = (np.asarray(Image.open(FOLDER / "cup_mask.png").convert("L")) > 0).mean()
    assert 0.7 * truth < grown < 1.3 * truth
    screenshot(seg_page, "segmentation-scribble")
    find(seg_page, [FOLDER / "cup_and_dandelions.jpg"])
    _, content = download(seg_page, "#seg-zip")
    wanted = np.asarray(Image.open(FOLDER / "cup_and_dandelions_mask.png")) > 127
    assert iou(masks_of(content)["cup_and_dandelions"], wanted) > 0.8
    seg_page.get_by_label("Use exactly what I painted").check()
    seg_page.wait_for_selector("#seg-paint-status >> text=covers only")


def test_keys_tools_and_answers(seg_page):
    box = drop_reference(seg_page)
    seg_page.keyboard.press("c")
    pressed = "() => document.querySelector('#seg-painter [aria-pressed=true]').dataset.tool"
    seg_page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + 0.55 * box["height"])
    for key, tool in (("x", "negative"), ("e", "eraser"), ("r", "box"), ("c", "point")):
        seg_page.keyboard.press(key)
        assert seg_page.evaluate(pressed) == tool
    size = seg_page.locator("#seg-painter input.size").input_value()
    seg_page.keyboard.press("]")
    assert int(seg_page.locator("#seg-painter input.size").input_value()) > int(size)
    seg_page.mouse.down()
    seg_page.mouse.up()
    wait_for_outline(seg_page, 0.0)
    seg_page.keyboard.press("z")
    seg_page.wait_for_function("() => !document.querySelector('#seg-paint-status')?.innerText.includes('outline')")
    seg_page.click("#seg-example")
    seg_page.wait_for_selector("#seg-status >> text=Found on 2 of 3")
    seg_page.locator("#seg-no").click()
    seg_page.wait_for_selector("#seg-status >> text=Found on 0 of 3")  # the other photo shows the same cup


def test_labels_of_a_mask_are_chips(seg_page, tmp_path):
    labels = np.zeros((400, 600), np.uint8)
    labels[100:300, 100:400], labels[320:, 420:] = 7, 140
    Image.fromarray(labels).save(tmp_path / "labels.png")
    drop_reference(seg_page)
    seg_page.get_by_text("Or upload a mask").click()
    seg_page.set_input_files("#seg-mask-file input[type=file]", str(tmp_path / "labels.png"))
    seg_page.wait_for_selector("#seg-labels >> text=7 · 25.0%")
    painted = "() => document.querySelector('#seg-painter canvas.mask').toDataURL()"
    before = seg_page.evaluate(painted)
    seg_page.locator("#seg-labels input[type=checkbox]").nth(1).check()
    seg_page.wait_for_function(f"b => ({painted})() !== b", arg=before)
    before = seg_page.evaluate(painted)
    seg_page.click("#seg-invert")
    seg_page.wait_for_function(f"b => ({painted})() !== b", arg=before)


def test_threshold_instances_and_views_redraw(seg_page, screenshot):
    seg_page.click("#seg-example")  # runs at once
    seg_page.wait_for_selector("#seg-status >> text=Found on 2 of 3")
    shown = wait_for_new(seg_page, "#seg-picture", None)
    seg_page.get_by_role("radio", name="Cut-out").check()
    shown = wait_for_new(seg_page, "#seg-picture", shown)
    seg_page.get_by_role("radio", name="Heat map").check()
    shown = wait_for_new(seg_page, "#seg-picture", shown)
    seg_page.get_by_role("radio", name="Overlay").check()
    shown = wait_for_new(seg_page, "#seg-picture", shown)
    seg_page.locator("#seg-instances input[type=checkbox]").first.uncheck()
    shown = wait_for_new(seg_page, "#seg-picture", shown)
    _, content = download(seg_page, "#seg-zip")
    assert not next(iter(masks_of(content).values())).any()
    seg_page.locator("#seg-gallery button").nth(1).click()
    wait_for_new(seg_page, "#seg-picture", shown)
    screenshot(seg_page, "segmentation-example")


def test_the_drawing_survives_tabs_and_mistakes(seg_page):
    box = drop_reference(seg_page)
    seg_page.click("#seg-find")
    seg_page.wait_for_selector(".toast-body >> text=scribble on the object")
    seg_page.locator(".toast-close").first.click()
    stroke(seg_page, box, (0.4, 0.5), (0.6, 0.5))
    painted = "() => document.querySelector('#seg-painter canvas.mask').toDataURL()"
    before = seg_page.evaluate(painted)
    seg_page.click("#seg-find")
    seg_page.wait_for_selector(".toast-body >> text=no photos to search")
    seg_page.get_by_role("tab", name="Patch PCA").click()
    seg_page.get_by_role("tab", name="Segmentation").click()
    assert seg_page.evaluate(painted) == before
    seg_page.get_by_role("button", name="Undo").click()
    assert seg_page.evaluate(painted) != before


def test_a_large_turned_phone_photo_stays_aligned(seg_page, tmp_path):
    reference = Image.open(ASSETS / "coffee_cup.jpg").resize((4032, 2688))
    exif = Image.Exif()
    exif[0x0112] = 6
    reference.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.jpg", exif=exif, quality=90)
    paint_the_cup(seg_page, drop_reference(seg_page, tmp_path / "phone.jpg"))
    find(seg_page, [FOLDER / "cup_and_dandelions.jpg"])
    _, content = download(seg_page, "#seg-zip")
    truth = np.asarray(Image.open(FOLDER / "cup_and_dandelions_mask.png")) > 127
    assert iou(masks_of(content)["cup_and_dandelions"], truth) > 0.8


def test_bad_targets_and_masks_are_named(seg_page, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    Image.new("L", (10, 90), 255).save(tmp_path / "mask.png")
    paint_the_cup(seg_page, drop_reference(seg_page))
    seg_page.get_by_text("Or upload a mask").click()
    seg_page.set_input_files("#seg-mask-file input[type=file]", str(tmp_path / "mask.png"))
    seg_page.wait_for_selector(".toast-body >> text=mask is 10x90 but the photo is 600x400")
    find(seg_page, [tmp_path / "broken.jpg", FOLDER / "cup_and_dandelions.jpg"])
    seg_page.wait_for_selector(".toast-body >> text=broken.jpg")
    assert "Found on 1 of 1" in seg_page.inner_text("#seg-status")


def test_the_steps_come_in_their_order_on_a_phone(seg_page, screenshot):
    seg_page.set_viewport_size({"width": 390, "height": 844})
    seg_page.wait_for_timeout(300)
    steps = ["#seg-reference", "#seg-painter", "#seg-targets", "#seg-find", "#seg-picture"]
    tops = [seg_page.locator(step).bounding_box()["y"] for step in steps]
    assert tops == sorted(tops)
    screenshot(seg_page, "segmentation-phone")


def test_a_searched_photo_is_used_in_another_tab(seg_page):
    paint_the_cup(seg_page, drop_reference(seg_page))
    find(seg_page, [FOLDER / "cup_and_dandelions.jpg"])  # of several, a better one takes the first place late
    shape = pixels(seg_page, wait_for_new(seg_page, "#seg-picture", None)).shape
    choose_tab(seg_page, "#seg-use", "Attention")
    shown = pixels(seg_page, wait_for_new(seg_page, "#attention-overlay", None)).shape
    assert shown[1] / shown[0] == pytest.approx(shape[1] / shape[0], abs=0.01)
