"""Train a head on a zip of pairs, label a photo, save and load it."""

import io
import zipfile

import numpy as np
from PIL import Image

from .helpers import ASSETS, download, wait_for_new

FOLDER = ASSETS / "segmentation"
PAIRS = {"stream": "cup_by_the_stream", "dandelions": "cup_and_dandelions"}


def write_zip(path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in PAIRS.items():
            archive.write(FOLDER / f"{source}.jpg", f"images/{name}.jpg")
            index = (np.asarray(Image.open(FOLDER / f"{source}_mask.png")) > 0).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(index).save(buffer, "PNG")
            archive.writestr(f"masks/{name}.png", buffer.getvalue())
        archive.writestr("images/alone.jpg", (ASSETS / "coffee_cup.jpg").read_bytes())


def test_train_label_save_and_load(page, tmp_path, screenshot):
    page.get_by_role("tab", name="Segmentation").click()
    page.get_by_role("tab", name="Train a head").click()
    write_zip(tmp_path / "pairs.zip")
    page.set_input_files("#head-pairs input[type=file]", str(tmp_path / "pairs.zip"))
    page.get_by_label("Names of the classes").fill("cup")
    page.get_by_role("radio", name="Linear: seconds").check()
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_selector("#head-status >> text=Head for")
    assert "alone.jpg" in page.inner_text("#head-report")
    page.set_input_files("#head-photo input[type=file]", str(ASSETS / "coffee_cup.jpg"))
    wait_for_new(page, "#head-picture", None)
    assert "cup" in page.inner_text("#head-legend")
    screenshot(page, "head")
    _, content = download(page, "#head-mask")
    found = np.asarray(Image.open(io.BytesIO(content))) > 0
    truth = np.asarray(Image.open(FOLDER / "cup_mask.png")) > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.6
    name, content = download(page, "#head-save")
    (tmp_path / name).write_bytes(content)
    page.reload()
    page.get_by_role("tab", name="Segmentation").click()
    page.get_by_role("tab", name="Train a head").click()
    page.get_by_text("Load a saved head").click()
    page.set_input_files("#head-load input[type=file]", str(tmp_path / name))
    page.wait_for_selector("#head-status >> text=Head for")
