"""Before and after: a second backbone's result stands beside the first one's in every tab."""

import numpy as np

from .helpers import ASSETS, pixels, source, upload_photo
from .test_retrieval_tab import ask, build, make_folder, open_tab


def choose_second(page, name: str) -> None:
    box = page.locator("#second-backbone input")
    box.fill(name)
    box.press("Enter")


def test_a_second_backbone_draws_its_own_result_and_leaves_when_it_is_switched_off(page, tiny_folder, screenshot):
    choose_second(page, str(tiny_folder))
    upload_photo(page, ASSETS / "coffee_cup.jpg")
    page.wait_for_selector("#attention-second img")
    first, second = (pixels(page, source(page, s)) for s in ("#attention-overlay", "#attention-second"))
    assert first.shape == second.shape and np.abs(first.astype(int) - second).mean() > 1
    screenshot(page, "second-attention")

    page.get_by_role("tab", name="Patch PCA", exact=True).click()
    page.get_by_role("button", name="Cup", exact=True).click()
    page.wait_for_selector("#pca-second img")

    page.get_by_role("tab", name="Segmentation", exact=True).click()
    page.click("#seg-example")
    page.wait_for_selector("#seg-targets >> text=cup_by_the_stream")
    page.click("#seg-find")
    page.wait_for_selector("#seg-second img")

    page.get_by_role("tab", name="Attention", exact=True).click()
    choose_second(page, "None")
    page.wait_for_selector("#attention-second", state="hidden")


def test_retrieval_asks_the_same_photos_with_the_second_backbone(page, tiny_folder, tmp_path, screenshot):
    choose_second(page, str(tiny_folder))
    open_tab(page)
    build(page, make_folder(tmp_path / "few", copies=2), "beside")
    hits = ask(page, ASSETS / "coffee_cup.jpg")
    page.wait_for_selector("#retrieval-second img")
    assert "coffee_cup" in hits and "coffee_cup" in page.inner_text("#retrieval-second")
    assert hits != page.inner_text("#retrieval-second")
    screenshot(page, "second-retrieval")
    choose_second(page, "None")
    page.wait_for_selector("#retrieval-second", state="hidden")
