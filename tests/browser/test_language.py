"""The page in Korean: by the browser's language, and by the switch."""

from .helpers import ASSETS, upload_photo


def test_a_korean_browser_gets_a_korean_page(open_page, screenshot, tmp_path):
    page = open_page(locale="ko-KR")
    assert page.get_by_role("tab", name="어텐션").is_visible()
    upload_photo(page, ASSETS / "cat_chelsea.jpg")
    screenshot(page, "korean")
    for picker in ("#backbone", "#second-backbone"):
        page.click(f"{picker} input")
        page.locator(picker).get_by_role("option", name="dinov2-small-offline · 준비됨").wait_for()
        page.keyboard.press("Escape")
    page.click("#language")  # reloads in the other language
    page.get_by_role("tab", name="Attention", exact=True).wait_for()
    page.reload()
    page.get_by_role("tab", name="Attention", exact=True).wait_for()


def test_an_english_browser_can_switch_to_korean(open_page):
    page = open_page(locale="en-US")
    page.get_by_role("tab", name="Attention", exact=True).wait_for()
    page.click("#language")
    page.get_by_role("tab", name="어텐션").wait_for()
    page.wait_for_selector("#cost >> text=패치 토큰")
