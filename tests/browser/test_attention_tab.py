"""The attention tab, used as a person does."""

import io

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from .helpers import ASSETS, download, pixels, source, upload_photo, wait_for_new

CAT = ASSETS / "cat_chelsea.jpg"
DOGS = ASSETS / "two_dogs_balcony.jpg"


def test_a_layer_is_drawn_without_the_network(page, screenshot):
    shown = upload_photo(page, CAT)
    screenshot(page, "attention")
    status = page.inner_text("#attention-status")
    assert "dinov2-small-offline" in status and ("ms" in status or "from the cache" in status)
    page.locator("#layer input[type=range]").focus()
    page.keyboard.press("Home")
    first = wait_for_new(page, "#attention-overlay", shown)
    assert not np.array_equal(pixels(page, shown), pixels(page, first))
    page.wait_for_selector("#attention-note >> text=In layer 1,")
    assert page.inner_text("#attention-status") == status  # the time of the one run: nothing ran since


def test_clicking_a_point_asks_that_patch(page, screenshot):
    upload_photo(page, DOGS)
    assert source(page, "#point-cosine") is None
    overlay = page.locator("#attention-overlay img")
    box = overlay.bounding_box()
    overlay.click(position={"x": box["width"] * 0.45, "y": box["height"] * 0.35})
    first = wait_for_new(page, "#point-cosine", None)
    assert source(page, "#point-attention")
    screenshot(page, "attention-point")
    page.get_by_text("Choose a patch by coordinates").click()
    assert abs(float(page.input_value("#point-x input[type=number]")) - 45) <= 2
    page.fill("#point-x input[type=number]", "90")
    page.keyboard.press("Tab")
    page.wait_for_function("() => document.querySelector('#point-x input[type=range]').value === '90'")
    page.click("#point-ask")
    second = wait_for_new(page, "#point-cosine", first)
    assert not np.array_equal(pixels(page, first), pixels(page, second))


def test_clicking_a_head_selects_it(page):
    upload_photo(page, CAT)
    page.locator("#attention-heads button").nth(4).click()
    page.wait_for_function("() => document.querySelector('#head label:nth-of-type(7) input').checked")
    assert page.get_by_role("radio", name="5", exact=True).is_checked()


def test_downloads_are_what_is_shown(page):
    upload_photo(page, CAT)
    name, content = download(page, "#attention-png")
    assert name.endswith(".png") and "dinov2-small-offline" in name
    picture = Image.open(io.BytesIO(content))
    assert picture.size == Image.open(CAT).size
    assert "Offline default" in picture.info["Comment"]
    name, content = download(page, "#attention-npz")
    with np.load(io.BytesIO(content)) as raw:
        assert raw["attention"].shape[:2] == (12, 6)
        assert str(raw["backbone"]) == "dinov2-small-offline"


def test_resolution_runs_the_network_again_also_by_keyboard(page):
    shown = upload_photo(page, CAT)
    assert "45 × 30 patches" in page.inner_text("#attention-status")
    page.locator("#resolution input[type=range]").focus()
    page.keyboard.press("Home")
    wait_for_new(page, "#attention-overlay", shown)
    page.wait_for_selector("#attention-status >> text=20 × 13 patches")
    assert "16 × 16 = 256 patch tokens" in page.inner_text("#cost")


@pytest.mark.parametrize("bad", ["truncated.jpg", "text.jpg", "empty.png", "drawing.svg"])
def test_bad_file_is_refused_with_a_sentence_and_the_app_goes_on(page, tmp_path, screenshot, bad):
    content = {
        "truncated.jpg": CAT.read_bytes()[:9000],
        "text.jpg": b"no picture at all",
        "empty.png": b"",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'></svg>",
    }[bad]
    (tmp_path / bad).write_bytes(content)
    page.set_input_files("#attention-photo input[type=file]", str(tmp_path / bad))
    message = page.wait_for_selector(".toast-body")
    assert bad in message.inner_text()
    screenshot(page, f"bad-{bad}")
    page.locator(".toast-close").first.click()
    page.locator("#attention-examples button").first.click()
    wait_for_new(page, "#attention-overlay", None)


def test_phone_photos_are_upright(page, tmp_path):
    portrait = Image.open(DOGS)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: to be turned by 90 degrees
    turned = portrait.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "phone.jpg", exif=exif, quality=92)
    width, height = pixels(page, upload_photo(page, tmp_path / "phone.jpg")).shape[1::-1]
    assert height > width
    assert "30 × 45 patches" in page.inner_text("#attention-status")


def test_heic_is_accepted_and_shown(page, tmp_path):
    pillow_heif.from_pillow(Image.open(CAT)).save(tmp_path / "iphone.heic")
    upload_photo(page, tmp_path / "iphone.heic")
    assert page.wait_for_function(
        "() => { const i = document.querySelector('#attention-photo img'); return i && i.naturalWidth > 0 }"
    )


def test_two_people_do_not_see_each_others_pictures(open_page):
    anna, ben = open_page(), open_page()
    cat = upload_photo(anna, CAT)
    dogs = upload_photo(ben, DOGS)
    assert pixels(anna, cat).shape[0] < pixels(anna, cat).shape[1]
    assert pixels(ben, dogs).shape[0] > pixels(ben, dogs).shape[1]
    anna.locator("#layer input[type=range]").focus()
    anna.keyboard.press("Home")
    again = wait_for_new(anna, "#attention-overlay", cat)
    assert pixels(anna, again).shape == pixels(anna, cat).shape
    assert source(ben, "#attention-overlay") == dogs


def test_settings_are_remembered(open_page):
    page = open_page()
    page.locator("#opacity input[type=range]").focus()
    page.keyboard.press("Home")
    page.wait_for_timeout(1500)
    page.reload()
    page.wait_for_selector("#cost >> text=a picture here")
    page.wait_for_function("() => document.querySelector('#opacity input[type=number]').value === '0'")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_screens_in_light_dark_and_phone_width(open_page, screenshot, scheme):
    page = open_page(color_scheme=scheme)
    upload_photo(page, CAT)
    screenshot(page, f"attention-{scheme}")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    screenshot(page, f"attention-phone-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 391


def test_a_second_photo_replaces_the_first(page):
    for photo, name in ((CAT, "cat"), (DOGS, "dogs"), (CAT, "cat")):
        shown = upload_photo(page, photo)
        height, width = np.asarray(Image.open(photo)).shape[:2]
        overlay = pixels(page, shown)
        assert overlay.shape[1] / overlay.shape[0] == pytest.approx(width / height, abs=0.02), name
