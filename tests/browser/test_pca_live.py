"""The PCA tab's controls redraw in the browser: Python's pictures and texts, without a question to the server."""

import io
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dinodemo import Engine
from dinodemo.io.images import load_photo
from dinodemo.tasks.pca import draw
from dinodemo.web.i18n import translate

from .helpers import (
    assert_drawn,
    download,
    drawn,
    pixels,
    requests_from_rest,
    scaled_photo,
    set_slider,
    source,
    wait_for_new,
)
from .test_pca_tab import PAIR, PICTURES, pca_page, upload  # noqa: F401 (a fixture)
from .test_second_backbone import choose_second

LOOK = draw.Look("auto", 0.5, 1, 2, 3, False, True, True)  # as the tab begins
BACKBONE = "dinov2-small-offline"


@pytest.fixture(scope="module")
def view():
    photos = tuple(load_photo(path) for path in PAIR)
    engine = Engine(BACKBONE)
    return draw.View(photos, tuple(engine.features(photo) for photo in photos), (BACKBONE, 518), "")


def only(view, index: int):
    return replace(view, photos=view.photos[index : index + 1], features=view.features[index : index + 1])


def assert_told(page, text: str) -> None:
    """Wait until the text is Python's; shares of the variance may differ in their last digit."""
    share = re.compile(r"[\d.]+%")
    page.wait_for_function(
        r"([words]) => document.querySelector('#pca-explained').innerText.replace(/[\d.]+%/g, '').replace(/\s+/g, ' ')"
        r".trim() === words",
        arg=[" ".join(share.sub("", text).split())],
    )
    told, expected = (share.findall(one) for one in (page.inner_text("#pca-explained"), text))
    for a, b in zip(told, expected, strict=True):
        digit = 0.1 if "." in b else 1
        assert float(a[:-1]) == pytest.approx(float(b[:-1]), abs=1.01 * digit)


def assert_shown(page, view, look, basis=None, language="en") -> None:
    """Wait until every picture, every caption and the text are Python's: 99 of 100 pixels to 0.02 of the range."""
    pca = draw.fit(view, look, basis)
    for index, photo in enumerate(view.photos):
        tall = photo.size[0] >= photo.size[1]

        def wanted(got, index=index, tall=tall):
            height, width = got.shape[:2]
            size = (
                (height if tall else height // 2, width // 2 if tall else width) if look.side_by_side else got.shape[:2]
            )
            one = replace(only(view, index), photos=(scaled_photo(page, "pca-live", index, size),))
            return draw.draw(one, look, pca, max(size))[0][0]

        assert_drawn(page, f"{PICTURES} .gallery-item:nth-child({index + 1})", wanted, share=0.99)
    assert_told(page, translate(draw.explain(view, look, pca, basis is not None), language))
    captions = page.locator(f"{PICTURES} .caption-label").all_inner_texts()
    assert captions == [translate(caption, language) for _, caption in draw.draw(view, look, pca)]


def choose(page, name: str, value: int) -> None:
    page.click(f"#pca-{name} input")
    page.locator(f"#pca-{name}").get_by_role("option", name=str(value), exact=True).click()


def test_controls_redraw_pythons_pictures_and_texts_and_ask_nobody(pca_page, view, screenshot):  # noqa: F811
    page = pca_page
    shown = upload(page, PAIR)
    assert_shown(page, view, LOOK)
    asked = requests_from_rest(page)
    page.locator("#pca-smooth input").check()
    assert_shown(page, view, look := replace(LOOK, smooth=True))
    set_slider(page, "#pca-threshold", 0.72)
    assert_shown(page, view, look := replace(look, foreground="manual", threshold=0.72))
    assert page.get_by_role("radio", name="Threshold").is_checked()
    screenshot(page, "pca-live")
    page.get_by_text("Colours", exact=True).click()
    for name, value in (("red", 5), ("green", 4), ("blue", 5)):
        choose(page, name, value)
    assert_shown(page, view, look := replace(look, red=5, green=4, blue=5))
    page.get_by_role("radio", name="Off", exact=True).check()
    assert_shown(page, view, look := replace(look, foreground="off"))
    page.locator("#pca-smooth input").uncheck()
    page.get_by_role("radio", name="Automatic").check()
    assert_shown(page, view, look := replace(look, foreground="auto", smooth=False))
    automatic = draw.fit(view, look).threshold_
    assert float(page.input_value("#pca-threshold input[type=number]")) == round(automatic, 2)
    page.get_by_label("Show dimmed photo").uncheck()
    assert_shown(page, view, look := replace(look, backdrop=False))
    page.locator("#pca-beside input").uncheck()
    assert_shown(page, view, look := replace(look, side_by_side=False))
    page.locator("#pca-beside input").check()
    assert_shown(page, view, replace(look, side_by_side=True))
    assert asked == [] and shown


def test_downloads_are_what_the_browser_shows(pca_page, view):  # noqa: F811
    upload(pca_page, PAIR)
    pca_page.locator("#pca-beside input").uncheck()
    set_slider(pca_page, "#pca-threshold", 0.4)
    look = replace(LOOK, foreground="manual", threshold=0.4, side_by_side=False)
    assert_shown(pca_page, view, look)
    _, content = download(pca_page, "#pca-png")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        got = [np.asarray(Image.open(archive.open(name))) for name in archive.namelist()]
    expected = draw.draw(view, look, draw.fit(view, look), max(max(photo.size) for photo in view.photos))
    assert all(np.array_equal(a, b) for a, (b, _) in zip(got, expected, strict=True))


def test_an_opened_picture_is_redrawn_too(pca_page, view):  # noqa: F811
    upload(pca_page, PAIR)
    pca_page.locator("#pca-beside input").uncheck()
    look = replace(LOOK, side_by_side=False)
    assert_shown(pca_page, view, look)
    pca_page.locator(f"{PICTURES} .gallery-item button").nth(1).click()
    pca = draw.fit(view, look)

    def wanted(got):
        one = replace(only(view, 1), photos=(scaled_photo(pca_page, "pca-live", 1, got.shape[:2]),))
        return draw.draw(one, look, pca, max(got.shape))[0][0]

    assert_drawn(pca_page, f"{PICTURES} .media-button", wanted, share=0.99)
    caption = draw.draw(view, look, pca)[1][1]
    pca_page.wait_for_function(
        f"(text) => document.querySelector('{PICTURES} .caption').innerText === text", arg=caption
    )


def test_a_loaded_basis_stays_whatever_the_foreground(pca_page, view, tmp_path):  # noqa: F811
    upload(pca_page, PAIR[:1])
    name, content = download(pca_page, "#pca-save")
    (tmp_path / name).write_bytes(content)
    pca_page.get_by_text("Apply a saved basis").click()
    pca_page.set_input_files("#pca-load input[type=file]", str(tmp_path / name))
    pca_page.wait_for_selector("#pca-explained >> text=loaded from a file")
    basis = draw.PatchPCA.load(tmp_path / name)
    pca_page.get_by_role("radio", name="Off", exact=True).check()
    pca_page.locator("#pca-smooth input").check()
    assert_shown(pca_page, only(view, 0), replace(LOOK, foreground="off", smooth=True), basis)


def test_controls_that_were_moved_before_a_photo_and_a_broken_one_beside_it(pca_page, view, tmp_path):  # noqa: F811
    page = pca_page
    page.locator("#pca-smooth input").check()
    page.locator("#pca-beside input").uncheck()
    set_slider(page, "#pca-threshold", 0.6)
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    upload(page, [PAIR[0], str(tmp_path / "broken.jpg")])
    look = replace(LOOK, foreground="manual", threshold=0.6, smooth=True, side_by_side=False)
    assert_shown(page, only(view, 0), look)
    set_slider(page, "#pca-threshold", 0.3)
    assert_shown(page, only(view, 0), replace(look, threshold=0.3))
    page.set_input_files("#pca-photos input[type=file]", [])
    page.locator("#pca-photos button[aria-label='Clear']").first.click()
    page.wait_for_function("() => !document.querySelector('canvas.live-picture')")


def test_too_few_patches_are_told_by_the_server_and_other_photos_leave_nothing_behind(pca_page, view):  # noqa: F811
    page = pca_page
    set_slider(page, "#resolution", 224)
    upload(page, PAIR[:1])
    page.wait_for_selector("#pca-status >> text=20 × 13 patches")
    drawn(page, PICTURES)
    set_slider(page, "#pca-threshold", 1)
    page.wait_for_selector(".toast-body >> text=foreground patches are left")
    page.wait_for_selector("#pca-explained >> text=fitted jointly")
    page.set_input_files("#pca-photos input[type=file]", PAIR[1:])
    page.wait_for_function(f"() => !document.querySelector('{PICTURES} img')")
    page.get_by_role("radio", name="Off", exact=True).check()
    wait_for_new(page, PICTURES, None)
    page.wait_for_selector(f"{PICTURES} .caption-label >> text=two_dogs_balcony.jpg · 100% foreground")


def test_beside_a_second_backbone_the_server_draws_only_the_second(pca_page, view, tiny_folder):  # noqa: F811
    page = pca_page
    choose_second(page, str(tiny_folder))
    shown = upload(page, PAIR[:1])
    page.wait_for_selector("#pca-second img")
    requests_from_rest(page)
    second = source(page, "#pca-second")
    page.locator("#pca-smooth input").check()
    after = wait_for_new(page, "#pca-second", second)
    assert not np.array_equal(pixels(page, second), pixels(page, after))
    assert_shown(page, only(view, 0), replace(LOOK, smooth=True))
    assert source(page, PICTURES) == shown


def test_a_korean_page_keeps_its_language(open_page, view):
    page = open_page(locale="ko-KR")
    page.get_by_role("tab", name=translate("Patch PCA", "ko")).click()
    page.wait_for_selector("#pca-photos input[type=file]", state="attached")
    upload(page, PAIR)
    page.get_by_role("radio", name=translate("Off", "ko"), exact=True).check()
    assert_shown(page, view, replace(LOOK, foreground="off"), language="ko")
    set_slider(page, "#pca-threshold", 0.5)
    assert_shown(page, view, replace(LOOK, foreground="manual"), language="ko")
