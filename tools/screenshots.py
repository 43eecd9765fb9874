"""Make the pictures of the documentation: start the real app, use it in Chromium, write docs/images/*.png.

    python -m tools.screenshots [NAME ...]

Look at each picture before it is committed: a spinner, an error or an empty panel is a defect. To add one, write a
function that brings the page to what shall be seen and returns the lowest component of the picture, and name it in
SHOTS. Pictures begin at the row of tabs, those of WITH_HEADER at the top. The hands are those of the browser tests.
"""

import argparse
import contextlib
import io
import itertools
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))  # what the browser tests import by its name
from dinodemo.backbones import OFFLINE_DEFAULT, find_local
from tests.browser import test_compare_tab, test_depth_tab, test_retrieval_tab, test_segmentation_tab, test_tune_tab
from tests.browser.conftest import CHROMIUM, CHROMIUM_ARGUMENTS
from tests.browser.helpers import ASSETS, source, upload_photo, wait_for_new

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1280, 1000  # pixels of the window
MOST_BYTES = 150_000  # of a picture
# tried until a picture is small enough: colours, and pixels of width (a page of documentation is about 830 wide)
COLOURS, WIDTHS = (256, 128, 64), (WIDTH, 1040, 900, 800)
MARGIN = 24  # pixels below the lowest component
START_SECONDS, SHOT_MILLISECONDS = 90, 60_000


def attention(page: Page) -> str:
    """Show a cat with the mean over heads, a patch on its face asked."""
    page.wait_for_selector("#attention-examples img")
    upload_photo(page, ASSETS / "cat_chelsea.jpg")
    click_inside(page, "#attention-overlay", 0.42, 0.42)
    wait_for_new(page, "#point-cosine", None)
    return "#attention-heads"


def lens(page: Page) -> str:
    """Show the rim of a cup under the pointer, found on two other photos."""
    page.get_by_role("tab", name="Lens").click()
    page.get_by_role("button", name="One cup, three places").click()
    page.wait_for_selector("#lens-view .lens-board[data-count='3']")
    _look(page, 0.5, 0.12)
    return "#lens-view"


def pca(page: Page) -> str:
    """Show a cat and two dogs in one basis."""
    page.get_by_role("tab", name="Patch PCA").click()
    page.get_by_role("button", name="Cat and dogs").click()
    wait_for_new(page, "#pca-pictures", None)
    page.wait_for_function("() => document.querySelectorAll('#pca-pictures img').length >= 2")
    return "#pca-save"


def segmentation(page: Page) -> str:
    """Show the scribbled cup and where it was found."""
    page.get_by_role("tab", name="Segmentation").click()
    box = test_segmentation_tab.drop_reference(page)
    page.locator("#seg-painter input.size").fill("24")
    test_segmentation_tab.stroke(page, box, (0.40, 0.14), (0.36, 0.36), (0.58, 0.40), (0.62, 0.20))
    test_segmentation_tab.stroke(page, box, (0.22, 0.46), (0.28, 0.70), (0.46, 0.84), (0.66, 0.70), (0.74, 0.52))
    names = ("segmentation/cup_and_dandelions.jpg", "segmentation/cup_by_the_stream.jpg", "mountain_path.jpg")
    test_segmentation_tab.find(page, [ASSETS / name for name in names])
    wait_for_new(page, "#seg-picture", None)
    wait_for_new(page, "#seg-gallery", None)
    return "#seg-zip"


def depth(page: Page) -> str:
    """Show a room, its depth, a point that is read and the probe's card."""
    _estimate_room(page)
    click_inside(page, "#depth-picture", 0.5, 0.7)
    page.wait_for_selector("#depth-reading >> text=from the top left")
    return "#depth-npy"


def depth_space(page: Page) -> str:
    """Show the room as points."""
    _estimate_room(page)
    page.get_by_role("tab", name="3D").click()
    page.wait_for_selector("#depth-model canvas")
    page.wait_for_timeout(8000)  # the canvas says nothing of when it has drawn
    return "#depth-ply"


def retrieval(page: Page) -> str:
    """Show the hits of a photo and why one was found."""
    _build_index(page)
    test_retrieval_tab.ask(page, ASSETS / "flower_dahlia.jpg")
    page.locator("#retrieval-hits button").nth(2).click()
    wait_for_new(page, "#retrieval-why", None)
    return "#retrieval-why"


def retrieval_map(page: Page) -> str:
    """Show an index on a plane."""
    _build_index(page)
    page.get_by_role("tab", name="Map and duplicates").click()
    page.click("#map-start")
    wait_for_new(page, "#map-picture", None)
    click_inside(page, "#map-picture", 0.5, 0.5)
    wait_for_new(page, "#map-photo", None)
    return "#map-picture"


def compare(page: Page) -> str:
    """Show the same cup on two photos, with a point that was clicked."""
    page.get_by_role("tab", name="Compare").click()
    test_compare_tab.drop_both(page, ASSETS / "coffee_cup.jpg", ASSETS / "segmentation" / "cup_and_dandelions.jpg")
    before = source(page, "#compare-side-second")
    click_inside(page, "#compare-side-first", 0.62, 0.75)
    wait_for_new(page, "#compare-side-second", before)
    return "#compare-lines"


def fine_tuning(page: Page) -> str:
    """Show a run to its end: curves, film strip, verdict."""
    test_tune_tab.open_tab(page)
    with tempfile.TemporaryDirectory() as folder:
        page.set_input_files("#tune-picker input.folder", str(test_tune_tab.make_folder(Path(folder) / "photos")))
        page.wait_for_selector("#tune-about >> text=40 photos")
    page.get_by_role("radio", name="5 minutes").click()
    page.click("#tune-start")
    test_tune_tab.wait_for_state(page, "is finished", seconds=600)
    page.wait_for_function("() => document.querySelectorAll('#run-film img').length >= 12")
    return "#run-use"


SHOTS = {
    "attention": attention,
    "lens": lens,
    "pca": pca,
    "segmentation": segmentation,
    "depth": depth,
    "depth-space": depth_space,
    "retrieval": retrieval,
    "retrieval-map": retrieval_map,
    "compare": compare,
    "fine-tuning": fine_tuning,
}
WITH_HEADER = {"pca"}
FRAMES, FILM_WIDTH = 20, 720  # of lens.webp


def _look(page: Page, x: float, y: float) -> None:
    """Put the lens at shares x, y of its first photo, by keyboard focus, so that it stays when the mouse leaves."""
    stage = page.locator("#lens-view .lens-stage").first
    stage.focus()
    box = stage.bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.wait_for_timeout(60)


def film(browser, address: str) -> bytes:
    """Move the lens around a cup and onto its spoon; returns an animated WebP of all three photos."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    page.set_default_timeout(SHOT_MILLISECONDS)
    page.goto(address)
    page.wait_for_selector("#cost >> text=a picture here")
    lens(page)
    frames = []
    for i in range(FRAMES):
        turn = 2 * math.pi * i / FRAMES
        _look(page, 0.44 + 0.27 * math.cos(turn), 0.5 + 0.36 * math.sin(turn))
        shot = Image.open(io.BytesIO(page.locator("#lens-view .lens-board").screenshot())).convert("RGB")
        frames.append(shot.resize((FILM_WIDTH, round(shot.height * FILM_WIDTH / shot.width)), Image.Resampling.LANCZOS))
    page.close()
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=110, loop=0, quality=55, method=6)
    if buffer.tell() > 1_000_000:
        raise RuntimeError(f"the film has {buffer.tell()} bytes; take fewer frames")
    return buffer.getvalue()


def click_inside(page: Page, selector: str, x: float, y: float) -> None:
    """Click a picture that is centred in its box at shares x, y of it."""
    image = page.locator(f"{selector} img").first
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    width, height = image.evaluate("i => [i.naturalWidth, i.naturalHeight]")
    scale = min(box["width"] / width, box["height"] / height)
    image.click(
        position={
            "x": box["width"] / 2 + (x - 0.5) * width * scale,
            "y": box["height"] / 2 + (y - 0.5) * height * scale,
        }
    )


def _estimate_room(page: Page) -> None:
    page.get_by_role("tab", name="Depth", exact=True).first.click()
    page.wait_for_selector("#depth-photo input[type=file]", state="attached")
    test_depth_tab.estimate(page)


def _build_index(page: Page) -> None:
    test_retrieval_tab.open_tab(page)
    with tempfile.TemporaryDirectory() as folder:
        test_retrieval_tab.build(page, test_retrieval_tab.make_folder(Path(folder) / "crops", copies=5))


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Serve the app from a process whose files all lie in a temporary folder; yields its address."""
    if find_local(OFFLINE_DEFAULT) is None:
        sys.exit(f"{OFFLINE_DEFAULT} is not in weights/; run `dinodemo weights fetch {OFFLINE_DEFAULT}`")
    with tempfile.TemporaryDirectory() as folder:
        own = {"TMPDIR": folder, "GRADIO_TEMP_DIR": folder, "XDG_CACHE_HOME": folder, "PYTHONUNBUFFERED": "1"}
        environment = {**os.environ, **own, "BACKBONE": OFFLINE_DEFAULT, "EXAMPLES": "0", "HF_HUB_OFFLINE": "1"}
        environment.pop("PORT", None)
        log = Path(folder) / "log.txt"
        with log.open("w") as stream:
            server = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=stream, stderr=stream
            )
        try:
            yield _address(server, log)
        finally:
            server.terminate()
            server.wait(20)


def _address(server: subprocess.Popen, log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if found:
            return found[0]
        time.sleep(0.2)
    raise RuntimeError(f"the app did not start:\n{log.read_text()}")


def shoot(browser, address: str, name: str) -> bytes:
    """Bring a fresh person's page to a picture; returns it as PNG, from the top to its lowest component."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(SHOT_MILLISECONDS)
    page.goto(address)
    page.wait_for_selector("#attention-photo input[type=file]", state="attached")
    page.wait_for_selector("#cost >> text=a picture here")  # the backbone is loaded
    lowest = SHOTS[name](page)
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(1500)  # pictures fade in
    if page.locator(".toast-body").count():
        raise RuntimeError(f"{name}: the page says {page.inner_text('.toast-body')!r}")
    box = page.locator(lowest).bounding_box()
    bottom = round(box["y"] + box["height"]) + MARGIN
    top = 0 if name in WITH_HEADER else round(page.get_by_role("tablist").first.bounding_box()["y"])
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    context.close()
    return reduced(picture.crop((0, top, WIDTH, min(picture.height, bottom))), name)


def reduced(picture: Image.Image, name: str) -> bytes:
    """Encode a picture with as many colours, then as wide, as `MOST_BYTES` allows; raises RuntimeError if none fits."""
    for colours, width in itertools.product(COLOURS, WIDTHS):
        small = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        # this method keeps rare colours: buttons, lines, colour maps
        few = small.quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
        few.save(buffer, "PNG", optimize=True)
        if buffer.tell() < MOST_BYTES:
            return buffer.getvalue()
    raise RuntimeError(f"{name} does not fit into {MOST_BYTES} bytes; show less of the page")


def main() -> None:
    """Make all pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(SHOTS)} (default: all)")
    names = parser.parse_args().name or list(SHOTS)
    unknown = set(names) - set(SHOTS)
    if unknown:
        parser.error(f"no picture is called {', '.join(sorted(unknown))}; there are {', '.join(SHOTS)}")
    if CHROMIUM is None:
        sys.exit("Chromium is not installed; install your system's package 'chromium' and try again")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=CHROMIUM_ARGUMENTS)
        if "lens" in names:
            content = film(browser, address)
            (IMAGES / "lens.webp").write_bytes(content)
            print(f"docs/images/lens.webp: {len(content) / 1000:.0f} kB", flush=True)
        for name in names:
            content = shoot(browser, address, name)
            (IMAGES / f"{name}.png").write_bytes(content)
            print(f"docs/images/{name}.png: {len(content) / 1000:.0f} kB", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
