"""The real app, served by a process of its own, and Debian's Chromium to use it as a person does."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from patience import MILLISECONDS, SECONDS

from dinodemo.backbones import OFFLINE_DEFAULT, find_local

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = Path(__file__).parent / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LEAVING = "addEventListener('beforeunload', () => { console.error = () => {} })"  # answers cut off by it are no errors
HARMLESS = re.compile("Method not implemented|AbortError|Failed to load resource: .*manifest|BJS - .*WebGPU")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)
            # a lost click or answer on a busy machine; a wrong result is an AssertionError and fails at once
            item.add_marker(pytest.mark.flaky(reruns=2, only_rerun=["TimeoutError"]))
            half = 1 if Path(item.fspath).name < "test_h" else 2  # each with an app and a Chromium of its own
            item.add_marker(pytest.mark.xdist_group(f"browser-{half}"))


@pytest.fixture(scope="session")
def app_url(tmp_path_factory):
    """Start `python app.py` on a free port; gives its address once it answers."""
    if find_local(OFFLINE_DEFAULT) is None:
        pytest.skip(f"{OFFLINE_DEFAULT} is not in weights/; run `dinodemo weights fetch`")
    # tabs open empty, so that a test sees only what it asked for; test_openings.py sees the examples
    with start_app(tmp_path_factory.mktemp("app"), BACKBONE=OFFLINE_DEFAULT, EXAMPLES="0") as url:
        yield url


@contextmanager
def start_app(folder: Path, **environment: str):
    """Run `python app.py` on a free port with a folder for what it writes; gives its address once it answers."""
    log = folder / "log.txt"
    environment = {
        **os.environ,
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "PYTHONUNBUFFERED": "1",
        "RUNS": str(folder / "runs"),
        **environment,
    }
    environment.pop("PORT", None)
    with log.open("w") as stream:
        server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=stream, stderr=stream)
    try:
        yield _wait_for_address(server, log)
    finally:
        server.terminate()
        server.wait(SECONDS)


def _wait_for_address(server: subprocess.Popen, log: Path) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if found:
            urllib.request.urlopen(found[0], timeout=SECONDS).close()
            return found[0]
        time.sleep(0.2)
    raise RuntimeError(f"the app did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def browser():
    """Start Chromium once."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; `make test` installs it where it may")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is in requirements-dev.txt")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, app_url):
    """Open pages of separate people; at the end checks that none logged errors or asked another host."""
    contexts, errors, hosts = [], [], set()

    def open_one(**options):
        context = browser.new_context(viewport={"width": 1400, "height": 1000}, **options)
        contexts.append(context)
        context.add_init_script(LEAVING)
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("request", lambda r: hosts.add(r.url.split("/")[2]) if r.url.startswith("http") else None)
        page.goto(app_url)
        page.wait_for_selector("#attention-photo input[type=file]", state="attached")
        page.wait_for_selector("#cost >> text=/a picture here|여기서 사진/")  # the backbone is loaded
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert [e for e in errors if not HARMLESS.search(e)] == []
    assert hosts == {app_url.split("/")[2]}


@pytest.fixture
def page(open_page):
    """Open one person's page."""
    return open_page()


@pytest.fixture
def screenshot(request):
    """Write screenshots to a folder that git ignores, to be looked at."""
    SCREENSHOTS.mkdir(exist_ok=True)

    def shoot(page, name: str):
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    return shoot
