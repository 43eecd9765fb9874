"""The patch PCA tab, used as a person does."""

import io
import zipfile

import numpy as np
import pytest

from .helpers import ASSETS, boxes, download, pixels, source, wait_for_new

PAIR = [str(ASSETS / "cat_chelsea.jpg"), str(ASSETS / "two_dogs_balcony.jpg")]
PICTURES = "#pca-pictures"


@pytest.fixture
def pca_page(page):
    page.get_by_role("tab", name="Patch PCA").click()
    page.wait_for_selector("#pca-photos input[type=file]", state="attached")
    return page


def upload(page, paths):
    before = source(page, PICTURES)
    page.set_input_files("#pca-photos input[type=file]", paths)
    return wait_for_new(page, PICTURES, before)


def test_joint_pca_of_two_photos(pca_page, screenshot):
    upload(pca_page, PAIR)
    pca_page.wait_for_function("() => document.querySelectorAll('#pca-pictures img').length >= 2")
    text = pca_page.inner_text("#pca-explained")
    assert "fitted jointly on 2 photos" in text and "1:" in text
    screenshot(pca_page, "pca")
    name, content = download(pca_page, "#pca-png")
    assert zipfile.ZipFile(io.BytesIO(content)).namelist()[1].startswith("2-two_dogs") and name.endswith(".zip")
    _, content = download(pca_page, "#pca-npz")
    with np.load(io.BytesIO(content)) as raw:
        assert raw["patches_1"].shape == (45, 30, 384)


def test_basis_is_saved_loaded_and_applied(pca_page, tmp_path):
    fitted = upload(pca_page, PAIR[:1])
    colours = pixels(pca_page, fitted)
    name, content = download(pca_page, "#pca-save")
    (tmp_path / name).write_bytes(content)
    pca_page.get_by_text("Apply a saved basis").click()
    pca_page.set_input_files("#pca-load input[type=file]", str(tmp_path / name))
    pca_page.wait_for_selector("#pca-explained >> text=loaded from a file")
    assert np.array_equal(pixels(pca_page, source(pca_page, PICTURES)), colours)


def test_bad_basis_is_refused(pca_page, tmp_path):
    (tmp_path / "basis.npz").write_bytes(b"nonsense")
    pca_page.get_by_text("Apply a saved basis").click()
    pca_page.set_input_files("#pca-load input[type=file]", str(tmp_path / "basis.npz"))
    pca_page.wait_for_selector(".toast-body >> text=not a PCA basis")


def test_bad_photo_is_named_and_the_others_go_on(pca_page, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    upload(pca_page, [PAIR[0], str(tmp_path / "broken.jpg")])
    assert "broken.jpg" in pca_page.wait_for_selector(".toast-body").inner_text()
    assert "1 photo." in pca_page.inner_text("#pca-explained")


def test_example_sets_work(pca_page):
    sizes = [(box["width"], box["height"]) for box in boxes(pca_page, ".example-sets button")]
    assert len(sizes) == 4 and all(size == pytest.approx(sizes[0], abs=1) for size in sizes)
    pca_page.get_by_role("button", name="Cup").click()
    wait_for_new(pca_page, PICTURES, None)


@pytest.mark.parametrize("width", [1400, 390])
def test_pictures_have_their_own_shape_and_are_large(pca_page, screenshot, width):
    pca_page.set_viewport_size({"width": width, "height": 900})
    upload(pca_page, PAIR)
    pca_page.wait_for_function("() => document.querySelectorAll('#pca-pictures img').length >= 2")
    pca_page.wait_for_timeout(500)
    screenshot(pca_page, f"pca-{width}")
    for image in pca_page.locator("#pca-pictures img").all():
        box, (across, down) = image.bounding_box(), image.evaluate("i => [i.naturalWidth, i.naturalHeight]")
        assert box["width"] / box["height"] == pytest.approx(across / down, rel=0.03)
        assert max(box["width"], box["height"]) > 250 and box["width"] < width
