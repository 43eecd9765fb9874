"""Time a frame of the lens in Chromium: 8 photos of 37 x 37 patches, 384 directions, every look at another patch.

    python benchmarks/lens.py

Prints wall time and the browser's own processor time a frame (what is left on a busy machine), and beside it NumPy's
float32 product of the same sizes in this process. 60 frames a second leave 16.7 ms.
"""

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from dinodemo.engine.features import Features
from dinodemo.io.images import Photo
from dinodemo.tasks.lens.packing import pack
from dinodemo.tasks.lens.standalone import page as lens_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PHOTOS, SIDE, WIDTH, LOOKS = 8, 37, 384, 100
LOOK = f"() => {{ for (let i = 0; i < {LOOKS}; i++) window.lens.look(i % {PHOTOS}, i % {SIDE}, (3 * i) % {SIDE}) }}"


def made_up() -> list[Features]:
    """Return features of random tokens; their values do not change the time."""
    rng, none = np.random.default_rng(0), np.zeros((0, WIDTH), np.float32)
    grids = (rng.normal(size=(SIDE, SIDE, WIDTH)).astype(np.float32) for _ in range(PHOTOS))
    return [Features(grid[0, 0], grid, none, (518, 518), (518, 518), "made-up") for grid in grids]


def processor_seconds(session) -> float:
    """Return the seconds that the page's thread has computed."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def measure(page: Page) -> tuple[np.ndarray, float]:
    """Return the wall time of each look and the processor time of one, in milliseconds."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.evaluate(LOOK)  # compiled by now
    before = processor_seconds(session)
    page.evaluate(LOOK)
    spent = 1000 * (processor_seconds(session) - before) / LOOKS
    return np.array(page.evaluate(f"() => window.lens.frames.slice(-{LOOKS})")), spent


def numpy_milliseconds(features: list[Features]) -> float:
    """Return the median time of the same product in NumPy."""
    tokens, times = np.concatenate([f.patches.reshape(-1, WIDTH) for f in features]), []
    for i in range(LOOKS):
        started = time.perf_counter()
        tokens @ tokens[i]
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


def main() -> None:
    """Measure and print."""
    features = made_up()
    packed = pack(features)
    photos = [Photo(np.zeros((518, 518, 3), np.uint8), f"{i}.jpg") for i in range(PHOTOS)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "lens.html"
        path.write_text(lens_page(photos, packed), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(path.as_uri())
        wall, spent = measure(page)
        browser.close()
    size = sum(tokens.nbytes for tokens in packed.tokens) / 1e6
    reference = numpy_milliseconds(features)
    print(f"{size:.1f} MB of tokens, cosines right to {packed.error:.4f}")
    print(f"wall time a frame: median {np.median(wall):.1f}, least {wall.min():.1f}, most {wall.max():.1f} ms")
    print(f"processor time a frame: {spent:.1f} ms; NumPy alone: {reference:.1f} ms ({spent / reference:.1f}x)")


if __name__ == "__main__":
    main()
