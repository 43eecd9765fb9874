"""The row above the tabs: backbones that are not here, misspelt or damaged."""

from .helpers import ASSETS, upload_photo, wait_for_new


def choose(page, name: str) -> None:
    picker = page.get_by_role("combobox", name="Backbone")
    picker.fill(name)
    picker.press("Enter")


def test_the_offline_default_says_so(page):
    assert "Offline default" in page.inner_text("#notice") and "not it" in page.inner_text("#notice")
    assert "37 × 37 = 1369 patch tokens" in page.inner_text("#cost")


def test_a_backbone_out_of_reach_is_refused_and_not_replaced(page):
    upload_photo(page, ASSETS / "cat_chelsea.jpg")
    page.get_by_role("combobox", name="Backbone").click()
    page.get_by_role("option", name="dinov2-small · 88 MB to download").click()
    page.wait_for_selector(".toast-body >> text=cannot be reached for facebook/dinov2-small")
    page.wait_for_function("() => document.querySelector('#backbone input').value.includes('dinov2-small-offline')")


def test_what_is_gated_says_so_before_it_is_picked_and_stands_last(page):
    page.get_by_role("combobox", name="Backbone").click()
    labels = page.get_by_role("option").all_inner_texts()
    gated = [i for i, label in enumerate(labels) if "gated: needs an accepted licence and a token" in label]
    assert [label for label in labels if "dinov3" in label] == [labels[i] for i in gated]
    assert gated == list(range(len(labels) - len(gated), len(labels)))
    page.keyboard.press("Escape")


def test_an_unknown_backbone_is_refused_and_the_last_one_stays(page):
    choose(page, "no-such-backbone")
    page.wait_for_selector(".toast-body >> text=No backbone")
    page.wait_for_function("() => document.querySelector('#backbone input').value.includes('dinov2-small-offline')")
    upload_photo(page, ASSETS / "coffee_cup.jpg")


def test_a_model_folder_can_be_typed(page, tiny_folders):
    shown = upload_photo(page, ASSETS / "cat_chelsea.jpg")
    choose(page, str(tiny_folders["dinov3"]))
    wait_for_new(page, "#attention-overlay", shown)
    page.wait_for_selector("#attention-note >> text=on the 4 registers")
    assert page.get_by_role("radio", name="4", exact=True).count() == 1
    assert page.get_by_role("radio", name="5", exact=True).count() == 0
