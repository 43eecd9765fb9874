"""What a person finds who wants to call the app from a program."""

import re

NAMES = (
    "attention",
    "pca",
    "depth",
    "depth_space",
    "depth_pairs",
    "depth_train",
    "segment",
    "retrieve",
    "classify",
    "compare",
    "anomaly",
)


def test_the_api_page_lists_the_functions_and_no_others(browser, app_url):
    # a page of its own: the panel asks for doors that this app keeps shut, and the console tells of each refusal
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(app_url)
        page.get_by_role("button", name="Use via API").click()
        page.wait_for_selector(f"text={len(NAMES)} API endpoints")
        listed = re.findall(r"API name: /(\w+)", page.inner_text("body"))
        assert sorted(listed) == sorted(NAMES)
    finally:
        context.close()
