"""The catalogue of Korean texts: whole, well formed, and used where a request asks for it."""

import json
import re
from pathlib import Path

import gradio as gr
import pytest
from gradio.context import LocalContext

from dinodemo.backbones import BACKBONES
from dinodemo.engine.pool import EnginePool
from dinodemo.io.render import COLOUR_MAPS
from dinodemo.tasks import TASKS
from dinodemo.web import i18n
from dinodemo.web.app import build_app
from dinodemo.web.errors import friendly
from dinodemo.web.services import Services
from dinodemo.web.settings import parse

NAMES = {*COLOUR_MAPS, "me/my-backbone"}  # the same in every language


class Request:
    def __init__(self, **headers: str):
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def korean():
    token = LocalContext.request.set(Request(accept_language="ko-KR,ko;q=0.9"))
    yield
    LocalContext.request.reset(token)


@pytest.fixture
def entries(monkeypatch):
    """A small catalogue, so that these tests do not depend on the wording of the real one."""
    known = {"{} of {} photos": "사진 {} / {}", "Layer": "층", "{}: no such file": "{}: 파일이 없습니다", "done": "끝"}
    monkeypatch.setattr(i18n, "catalogue", lambda language="ko": {} if language == "en" else known)
    i18n._patterns.cache_clear()
    yield known
    i18n._patterns.cache_clear()


def test_every_fixed_text_of_the_page_has_a_translation():
    page = build_app(Services(parse([]), EnginePool("cpu")))
    known = i18n.catalogue("ko")
    texts = {text for text in i18n.page_texts(page) if text.split(" · ")[0] not in BACKBONES} - NAMES
    missing = {text for text in texts if text not in known and i18n.translate(text, "ko") == text}
    assert not missing, f"add to dinodemo/web/locales/ko.json: {sorted(missing)}"


@pytest.mark.parametrize(
    "text",
    [
        "**tiny** · CPU, 1 thread · float32 · 630 × 420 px seen as 45 × 30 patches · from the cache",
        "In layer 12, 7% of the attention stays on CLS itself and 2% on the 4 registers; the rest is shown.",
        "Basis fitted jointly on 3 photos. Foreground: first component above 0.54.",
        "Basis loaded from a file. Foreground: off.\n\nExplained variance, by component: 1: 9.7%; together 66%.",
        "Found on 2 of 3 photos, with **tiny**.",
        "not here · match 0.00 · path.jpg",
        "tiny · ready",
        "tiny · gated: needs an accepted licence and a token, 86 MB to download",
        "**3 classes, 40 photos** · made with tiny\n\nLogistic regression on the class token and patch mean was "
        "chosen by cross-validation (nearest class mean 81.0%, nearest neighbours 85.5%, logistic regression 90.0%): "
        "90.0% of 40 photos are right when left out of the fit (95 % interval 76.9% to 96.0%). On scenes of which no "
        "photo was seen: 70.0%.\n100 more photos would bring about 1.5 points.\n\nClasses: 가 20, 나 20.",
        "Nearest neighbours on the class token was chosen by cross-validation (nearest neighbours 85.5%): 85.5% of 40 "
        "photos are right when left out of the fit (95 % interval 71.5% to 93.3%).",
        "12 nearest of 13 photos to the boxed part of **cup.jpg**, with tiny · 20 ms",
        "**13 photos** (2 MB), no labels · made with **tiny** at 224 px, descriptor cls · search: exact",
        "**Cosine of the CLS tokens 0.58** · 9 of 1350 patches are mutual nearest · 5 pass the filters, drawn: 5",
    ],
)
def test_lines_under_results_are_translated_whole(text):
    left = re.findall("[A-Za-z]{3,}", i18n.translate(text, "ko"))
    assert not {word for word in left if word not in ("tiny", "CPU", "float", "CLS", "cup", "jpg", "path", "cls")}


def test_translations_keep_the_gaps_and_are_not_empty():
    for english, translated in i18n.catalogue("ko").items():
        assert english.count("{}") == translated.count("{}"), english
        assert translated.strip(), english


def test_labels_are_marked_for_the_browser_and_values_stay():
    with gr.Blocks() as page:
        choice = gr.Radio([("Mean", "mean"), ("my own", "x")], label="Layer", value="mean")
        text = gr.Textbox(value="Layer")
    i18n.translate_page(page)
    assert str(choice.label).startswith("__i18n__") and choice.value == "mean"
    assert choice.choices[1] == ("my own", "x") and text.value == "Layer"


def test_sentences_follow_the_request(entries, korean):
    assert i18n.say("Layer") == "층"
    assert i18n.say("3 of 50 photos") == "사진 3 / 50"
    assert i18n.say("a.jpg: no such file") == "a.jpg: 파일이 없습니다"
    assert i18n.say("Layer\nunknown") == "층\nunknown"
    assert i18n.say("nobody wrote this") == "nobody wrote this"


@pytest.mark.parametrize(
    ("headers", "language"),
    [
        ({}, "en"),
        ({"accept_language": "de,ko;q=0.5"}, "en"),
        ({"accept_language": "ko"}, "ko"),
        ({"accept_language": "ko", "cookie": "a=b; dinodemo_language=en"}, "en"),
        ({"accept_language": "en", "cookie": "dinodemo_language=ko"}, "ko"),
        ({"accept_language": "en", "cookie": "dinodemo_language=../../x"}, "en"),
    ],
)
def test_the_language_of_a_request(headers, language):
    token = LocalContext.request.set(Request(**headers))
    try:
        assert i18n.request_language() == language
    finally:
        LocalContext.request.reset(token)


def test_handlers_answer_in_the_language_of_the_request(entries, korean):
    @friendly
    def works():
        return "done", gr.update(label="Layer", value="done"), ["2 of 3 photos"], 5

    @friendly
    def steps():
        yield "1 of 2 photos"

    @friendly
    def fails():
        raise ValueError("b.png: no such file")

    assert works() == ("끝", gr.update(label="층", value="끝"), ["사진 2 / 3"], 5)
    assert list(steps()) == ["사진 1 / 2"]
    with pytest.raises(gr.Error) as caught:
        fails()
    assert caught.value.message == "b.png: 파일이 없습니다."


def test_every_tab_has_help_in_both_languages():
    texts = json.loads((Path(i18n.__file__).parent / "help.json").read_text(encoding="utf-8"))
    tabs = {task.name for task in TASKS if "tab" in task.rooms}
    for language in i18n.LANGUAGES:
        assert set(texts[language]) == {"words", *tabs}
        for name in tabs:
            told = texts[language][name]
            assert all(told[part].strip() for part in ("seen", "formula", "more")) and len(told["try"]) == 3
            assert f"docs/{name}.md" in told["more"]


def test_texts_of_our_own_components_have_translations():
    known = i18n.component_texts()
    folder = Path(i18n.__file__).parent
    shown = re.findall(r">([^<>{}]*[A-Za-z]{2}[^<>{}]*)<", (folder / "painter" / "painter.html").read_text("utf-8"))
    shown += re.findall(r">([^<>{}]*[A-Za-z]{2}[^<>{}]*)<", (folder / "lens" / "lens.html").read_text("utf-8"))
    shown += re.findall(r"told\('([^']+)'", (folder / "lens" / "core.js").read_text("utf-8"))
    texts = {text.strip() if "{}" not in text else text for text in shown} - {"?"}
    assert len(texts) > 20 and sorted(text for text in texts if text not in known) == []
