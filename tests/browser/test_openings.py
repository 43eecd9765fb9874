"""Every tab opens with a result that says it is an example, on one screen; a person's own photo takes its place."""

import pytest

from .conftest import LEAVING, MILLISECONDS, start_app
from .helpers import ASSETS

RESULTS = {  # tab -> what shows that its example is there
    "attention": "#attention-overlay img",
    "lens": "#lens-view .lens-board[data-count='3']",
    "pca": "#pca-pictures .gallery-item:nth-child(3) img",
    "segmentation": "#seg-picture img",
    "retrieval": "#retrieval-hits img",
    "classify": "#classify-matrix img",
    "compare": "#compare-lines img",
    "anomaly": "#anomaly-picture img",
}
IN_SIGHT = {  # tab -> main picture, main controls, answer
    "attention": ["#attention-overlay", "#attention-photo", "#head", "#layer", "#mass"],
    "lens": ["#lens-view .lens-tools", "#lens-view .lens-readout", "#lens-placeless"],
    "pca": ["#pca-photos", "#pca-foreground", "#pca-threshold"],
    "segmentation": ["#seg-reference", "#seg-painter", "#seg-find", "#seg-picture", "#seg-threshold"],
    "depth": ["#depth-photo", "#depth-probe", "#depth-picture", "#depth-reading"],
    "retrieval": ["#index", "#retrieval-photo", "#retrieval-examples", "#retrieval-status"],
    "classify": ["#classify-picker", "#classify-fit"],
    "compare": ["#compare-first", "#compare-lens", "#compare-lines", "#compare-model"],
    "anomaly": ["#anomaly-good", "#anomaly-check", "#anomaly-line", "#anomaly-picture"],
    "finetune": ["#tune-picker", "#tune-start"],
}
SIZES = ((1440, 900), (1280, 720))


@pytest.fixture(scope="module")
def opening_url(tmp_path_factory, tiny_folder):
    """Serve the app with its examples, seen by a tiny network."""
    folder = tmp_path_factory.mktemp("openings")
    own = {"BACKBONE": str(tiny_folder), "DEVICE": "cpu", "XDG_CACHE_HOME": str(folder / "cache"), "EXAMPLES": "1"}
    with start_app(folder, **own) as url:
        yield url


@pytest.fixture
def opened(browser, opening_url):
    """Open a person's page once the examples are made."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(LEAVING)
    page = context.new_page()
    page.set_default_timeout(MILLISECONDS)
    page.goto(opening_url)
    page.wait_for_selector("#cost >> text=a picture here")
    yield page
    context.close()


def go_to(page, tab: str) -> None:
    page.evaluate("name => document.getElementById(`tab-${name}-button`).click()", tab)


def test_every_tab_opens_with_a_result_on_one_screen(opened, screenshot):
    outside = []
    for tab, seen in IN_SIGHT.items():
        go_to(opened, tab)
        if tab in RESULTS:
            wait_for_result(opened, tab)
            opened.wait_for_selector(".example-mark:visible")
        for width, height in SIZES:
            opened.set_viewport_size({"width": width, "height": height})
            for selector in seen:
                box = opened.locator(selector).first.bounding_box()
                right, bottom = round(box["x"] + box["width"]), round(box["y"] + box["height"])
                if right > width or bottom > height:
                    outside.append((tab, selector, f"ends at {right}, {bottom} of {width}, {height}"))
        screenshot(opened, f"opening-{tab}")
        opened.set_viewport_size({"width": SIZES[0][0], "height": SIZES[0][1]})
    assert outside == [], outside


def wait_for_result(page, tab: str) -> None:
    """Wait for a tab's example; the index of retrieval may be made only after the tab was opened."""
    if tab == "retrieval":
        while not page.locator("#index input").input_value():
            go_to(page, "lens")
            go_to(page, tab)
            page.wait_for_timeout(500)
    page.wait_for_selector(RESULTS[tab])


def test_an_own_photo_replaces_the_example_and_comes_along(opened):
    opened.wait_for_selector(RESULTS["attention"])
    opened.set_input_files("#attention-photo input[type=file]", str(ASSETS / "flower_dahlia.jpg"))
    opened.wait_for_selector("#attention-photo img")
    opened.wait_for_selector(".example-mark:visible", state="detached")
    go_to(opened, "pca")
    opened.wait_for_selector("#pca-pictures .caption-label >> text=flower_dahlia.jpg")
    go_to(opened, "compare")
    opened.wait_for_selector("#compare-first img")
    opened.wait_for_selector("#compare-status >> text=Now drop a second photo")
    opened.set_input_files("#compare-second input[type=file]", str(ASSETS / "coffee_cup.jpg"))
    opened.wait_for_selector("#compare-lens figcaption >> text=flower_dahlia.jpg")
    go_to(opened, "segmentation")
    opened.wait_for_selector("#seg-reference img")
    opened.wait_for_function("() => document.querySelector('#seg-painter canvas.photo').width > 300")
    assert not opened.locator(".example-mark:visible").count()
    opened.set_input_files("#seg-targets input[type=file]", str(ASSETS / "coffee_cup.jpg"))
    go_to(opened, "depth")
    opened.wait_for_selector("#depth-photo img")
    go_to(opened, "segmentation")  # what was given here stays
    opened.wait_for_selector("#seg-targets >> text=coffee_cup")


def test_help_opens_beside_the_tab_and_gives_the_focus_back(opened, screenshot):
    opened.get_by_role("button", name="Help for this tab").click()
    opened.wait_for_selector("#help-drawer h2 >> text=Attention")
    assert opened.locator("#help-drawer li").count() == 3
    screenshot(opened, "help")
    go_to(opened, "compare")
    opened.wait_for_selector("#help-drawer h2 >> text=Compare")
    opened.keyboard.press("Escape")
    opened.wait_for_selector("#help-drawer", state="hidden")
    assert opened.evaluate("document.activeElement.id") == "help"


def test_the_keyboard_goes_on_from_a_dropdown(opened):
    box = opened.get_by_role("combobox", name="Colour map").first
    box.focus()
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("Enter")
    opened.wait_for_function("() => document.activeElement.querySelector('[role=combobox][aria-label=\"Colour map\"]')")
    assert box.input_value() != "inferno"


def test_our_own_components_speak_korean(browser, opening_url, screenshot):
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="ko-KR")
    page = context.new_page()
    page.set_default_timeout(MILLISECONDS)
    page.goto(f"{opening_url}/#segmentation")
    page.wait_for_selector("#seg-painter button >> text=지우개")
    page.goto(f"{opening_url}/#lens")
    page.reload()
    page.wait_for_selector("#lens-view .lens-readout >> text=사진 위에서")
    assert page.locator("#lens-view .lens-clear").inner_text() == "핀 지우기"
    page.locator("#help").click()
    page.wait_for_selector("#help-drawer h3 >> text=수식")
    screenshot(page, "korean-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 391
    context.close()
