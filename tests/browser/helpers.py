"""What the browser tests share: pixels of a shown picture, waiting until it changes, downloads."""

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from patience import SECONDS
from PIL import Image

from dinodemo.io.images import Photo

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def source(page, selector: str) -> str | None:
    """Return the address of the picture shown in a component, None if there is none."""
    image = page.locator(f"{selector} img")
    return image.first.get_attribute("src") if image.count() else None


def wait_for_new(page, selector: str, before: str | None) -> str:
    """Wait until a component shows another picture than `before`; returns its address."""
    page.wait_for_function(
        "([s, b]) => { const i = document.querySelector(s + ' img');"
        " return i && i.complete && i.naturalWidth && i.getAttribute('src') !== b }",
        arg=[selector, before],
    )
    return source(page, selector)


def pixels(page, address: str) -> np.ndarray:
    """Fetch a shown picture as (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(page.request.get(address).body())).convert("RGB"))


def upload_photo(page, path, selector: str = "#attention-photo", result: str = "#attention-overlay") -> str:
    """Upload a photo to the attention tab and wait for its overlay; returns the overlay's address."""
    before = source(page, result)
    remove = page.locator(f"{selector} button[aria-label='Remove Image']")
    if remove.count():
        remove.first.click()
        before = None
        page.wait_for_function("s => !document.querySelector(s + ' img')", arg=result)
    page.set_input_files(f"{selector} input[type=file]", str(path))
    return wait_for_new(page, result, before)


def requests_from_rest(page) -> list[str]:
    """Wait until the page asks for nothing more; returns a list that grows by the address of each later request.

    Whether the server still lives, a page asks now and then by itself: that does not count.
    """
    asked: list[str] = []
    page.on("request", lambda request: None if request.url.endswith("/healthz") else asked.append(request.url))
    before = -1
    while len(asked) != before:  # what came before may still draw, or open its stream of answers again
        before = len(asked)
        page.wait_for_timeout(2000)
    asked.clear()
    return asked


def download(page, selector: str) -> tuple[str, bytes]:
    """Click a download button; returns the offered file name and the content."""
    with page.expect_download() as caught:
        page.click(selector)
    return caught.value.suggested_filename, Path(caught.value.path()).read_bytes()


def cut_captions(page, gallery: str) -> list[str]:
    """Return the captions of a gallery that are wider than their box, so that a person cannot read them whole."""
    script = "(labels) => labels.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)"
    return page.locator(f"{gallery} .caption-label").evaluate_all(script)


def boxes(page, selector: str) -> list[dict[str, float]]:
    """Return where elements lie on the page: x, y, width, height in pixels."""
    return [one.bounding_box() for one in page.locator(selector).all()]


def choose_tab(page, menu: str, title: str) -> None:
    """Open another tab by a menu "Use this photo in"."""
    page.locator(f"{menu} input").click()
    page.get_by_role("option", name=title, exact=True).click()


# what a person sees of pictures that the browser draws
CANVAS = """([target, index]) => {
  const canvas = document.querySelectorAll(`${target} canvas.live-picture`)[index];
  return canvas && canvas.width ? canvas.toDataURL('image/png') : '';
}"""
SCALED = """([view, index, height, width]) => {
  const live = [...document.querySelectorAll(`#${view}, #${view} *`)].find((one) => one.live).live;
  const canvas = document.createElement('canvas');
  Object.assign(canvas, {width, height});
  canvas.getContext('2d').drawImage(live.photoAt(index, height, width), 0, 0);
  return canvas.toDataURL('image/png');
}"""


def drawn(page, target: str, index: int = 0) -> np.ndarray:
    """Read what the browser drew over a picture, (H, W, 3) uint8, at the size at which the picture is shown."""
    return _decoded(page.wait_for_function(CANVAS, arg=[target, index]).json_value())


def scaled_photo(page, view: str, index: int, size: tuple[int, int]) -> Photo:
    """Return a photo as the browser scales it to (H, W): its own way, which Python's drawing is not compared with."""
    return Photo(_decoded(page.evaluate(SCALED, [view, index, *size])))


def assert_drawn(page, target: str, wanted: Callable[[np.ndarray], np.ndarray], index: int = 0, share=0.999) -> None:
    """Wait until a share of the pixels that the browser drew is Python's, to 0.02 of the range.

    Args:
        page: Of the browser.
        target: Selector of the component.
        wanted: Python's drawing, of the shape of what is given.
        index: Of the picture in the component.
        share: The others lie at edges, or are the photo's JPEG.
    """
    ends = time.monotonic() + SECONDS
    while True:
        got = drawn(page, target, index)
        expected = wanted(got)
        assert got.shape == expected.shape
        found = float(np.quantile(np.abs(got.astype(int) - expected).max(axis=-1), share)) / 255
        if found <= 0.02:
            return
        assert time.monotonic() < ends, f"{target} is {found:.3f} of the range away from Python's picture"
        page.wait_for_timeout(200)


def set_slider(page, selector: str, value: int | float) -> None:
    """Type a slider's value."""
    page.fill(f"{selector} input[type=number]", str(value))
    page.keyboard.press("Tab")


def _decoded(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB"))
