"""What holds for the look of every tab: texts are read against their ground, and a link opens its tab."""

import importlib.util
from pathlib import Path

import pytest

from dinodemo.tasks import TASKS

from .helpers import ASSETS, requests_from_rest, upload_photo

CHECKED = {"exclude": [['[data-testid="status-tracker"]']]}  # Gradio's progress texts fade in and out
TITLES = [task.title for task in TASKS if "tab" in task.rooms]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(open_page, scheme):
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None:
        pytest.skip("axe-playwright-python is in requirements-dev.txt")
    rules = (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    page = open_page(color_scheme=scheme)
    upload_photo(page, ASSETS / "cat_chelsea.jpg")
    page.evaluate(rules)
    for title in TITLES:
        page.get_by_role("tab", name=title, exact=True).first.click()
        requests_from_rest(page)  # a tab that draws the photo of another one is pale meanwhile
        page.wait_for_function("() => !document.querySelector('.pending')")
        page.wait_for_timeout(500)  # colours fade in
        result = page.evaluate("where => axe.run(where, {runOnly: ['color-contrast']})", CHECKED)
        low = [(node["target"], node["any"][0]["data"]) for rule in result["violations"] for node in rule["nodes"]]
        assert low == [], title


def test_a_link_opens_its_tab_and_the_address_follows(browser, app_url):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{app_url}/#depth")
    page.wait_for_selector("#depth-photo input[type=file]", state="attached")
    page.wait_for_selector("#depth-photo:visible")
    page.get_by_role("tab", name="Patch PCA", exact=True).click()
    page.wait_for_function("() => location.hash === '#pca'")
    page.goto(f"{app_url}/#no-such-tab")
    page.reload()
    page.wait_for_selector("#attention-photo:visible")
    context.close()
