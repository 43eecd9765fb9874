"""Before and after: a second backbone's result stands beside the first one's in every tab."""

import numpy as np
import pytest

from dinodemo.backbones import find_local

from .helpers import ASSETS, pixels, source, upload_photo

SECOND = "dinov2-small-saliency"


def choose_second(page, name: str) -> None:
    box = page.locator("#second-backbone input")
    box.fill(name)
    box.press("Enter")


@pytest.mark.skipif(find_local(SECOND) is None, reason=f"{SECOND} is not in weights/")
def test_a_second_backbone_draws_its_own_result_and_leaves_when_it_is_switched_off(page, screenshot):
    choose_second(page, SECOND)
    upload_photo(page, ASSETS / "coffee_cup.jpg")
    page.wait_for_selector("#attention-second img", timeout=60_000)
    first, second = (pixels(page, source(page, s)) for s in ("#attention-overlay", "#attention-second"))
    assert first.shape == second.shape and np.abs(first.astype(int) - second).mean() > 1
    screenshot(page, "second-attention")

    page.get_by_role("tab", name="Patch PCA", exact=True).click()
    page.get_by_role("button", name="Cup", exact=True).click()
    page.wait_for_selector("#pca-second img", timeout=60_000)

    page.get_by_role("tab", name="Segmentation", exact=True).click()
    page.click("#seg-example")
    page.wait_for_selector("#seg-targets >> text=cup_by_the_stream", timeout=30_000)
    page.click("#seg-find")
    page.wait_for_selector("#seg-second img", timeout=90_000)

    page.get_by_role("tab", name="Attention", exact=True).click()
    choose_second(page, "Nothing")
    page.wait_for_selector("#attention-second", state="hidden")
