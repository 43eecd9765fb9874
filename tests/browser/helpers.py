"""What the browser tests share: pixels of a shown picture, waiting until it changes, downloads."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

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
