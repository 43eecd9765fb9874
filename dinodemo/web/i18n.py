"""Korean beside English: one catalogue, whose keys are the English texts, for labels and for sentences.

Labels are translated in the browser (`gr.I18n`), by its language or by the switch in the header. Sentences that the
server makes (errors, status lines) are translated here, by what the request says of its language. A text that the
catalogue lacks stays English.
"""

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.i18n import I18nData

LANGUAGES = {"en": "English", "ko": "한국어"}
COOKIE = "dinodemo_language"
_FOLDER = Path(__file__).parent / "locales"
_GAP = "((?:(?!\\n\\n).)+?)"  # what is filled in ends with its paragraph
_TEXTS = ("label", "info", "placeholder", "value")  # attributes of a component that a person reads
_WITH_FIXED_VALUE = ("button", "downloadbutton", "uploadbutton", "markdown")  # whose value is a text of the page

# Gradio follows the browser's language; a language chosen with the switch is set once its own code is loaded
HEAD = f"""<script>(async () => {{
  const chosen = localStorage.getItem('{COOKIE}');
  if (!chosen || document.documentElement.lang === chosen) return;
  const core = performance.getEntriesByType('resource').find((e) => /\\/assets\\/core-[^/]*\\.js$/.test(e.name));
  if (core) (await import(core.name)).changeLocale(chosen);
}})()</script>"""
SWITCH = f"""() => {{
  const other = document.documentElement.lang.startsWith('ko') ? 'en' : 'ko';
  localStorage.setItem('{COOKIE}', other);
  document.cookie = '{COOKIE}=' + other + ';path=/;max-age=31536000;samesite=lax';
  location.reload();
}}"""


@functools.cache
def catalogue(language: str = "ko") -> Mapping[str, str]:
    """Load a language's catalogue.

    Returns:
        {English text: translation}; `{}` in both stands for what is filled in (numbers, names).
    """
    if language == "en":
        return {}
    return json.loads((_FOLDER / f"{language}.json").read_text(encoding="utf-8"))


@functools.cache
def translations() -> gr.I18n:
    """Return what the browser needs: the texts without gaps."""
    return gr.I18n(**{name: {k: v for k, v in catalogue(name).items() if "{}" not in k} for name in LANGUAGES})


@functools.cache
def component_texts() -> Mapping[str, str]:
    """Return {English: Korean} of the texts that stand in the components' own files, for `texts.js`."""
    files = [path for suffix in ("html", "js", "py") for path in sorted(_FOLDER.parent.rglob(f"*.{suffix}"))]
    own = [path for path in files if path.parent != _FOLDER.parent or path.name == "painter.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in own)
    return {
        key: korean for key, korean in catalogue().items() if re.search(rf"[\"'>]\s*{re.escape(key)}\s*[\"'<]", text)
    }


def translate_page(page: gr.Blocks) -> None:
    """Mark every fixed text of a finished page that the catalogue knows for translation in the browser."""
    for block in page.blocks.values():
        for name in _TEXTS:
            text = getattr(block, name, None)
            if isinstance(text, str) and (name != "value" or block.get_block_name() in _WITH_FIXED_VALUE):
                setattr(block, name, _marked(text))
        if choices := getattr(block, "choices", None):
            component: Any = block
            component.choices = [(_marked(shown), value) for shown, value in choices]


def page_texts(page: gr.Blocks) -> set[str]:
    """List the fixed texts of a page, translated or not: labels, help, buttons, choices, headings.

    Args:
        page: the page as built.

    Returns:
        English texts with at least one word.
    """
    found = set()
    for block in page.blocks.values():
        names = [n for n in _TEXTS if n != "value" or block.get_block_name() in _WITH_FIXED_VALUE]
        found |= {_plain(getattr(block, name, None)) for name in names}
        found |= {_plain(shown) for shown, _ in getattr(block, "choices", None) or []}
    return {text for text in found if re.search(r"[A-Za-z]{2}", text)}


def say(text: str) -> str:
    """Translate a sentence of the server into the language of the request that is being answered."""
    return translate(text, request_language())


def translate(text: str, language: str) -> str:
    """Translate a text, whole or line by line; what the catalogue lacks stays as it is.

    Args:
        text: English.
        language: a key of LANGUAGES.

    Returns:
        The translation, with the numbers and names of the text filled in.
    """
    if language == "en" or not text:
        return text
    if (whole := _sentence(text, language)) is not None:
        return whole
    if "\n" not in text:
        return text
    return "\n".join(translate(line, language) for line in text.split("\n"))


def localized(result: Any) -> Any:
    """Translate the texts in what an event handler returns: strings, updates of components, and lists of them."""
    language = request_language()
    return result if language == "en" else _localized(result, language)


def request_language() -> str:
    """Return the language of the request that is being answered: the switch's, else the browser's, else English."""
    request = LocalContext.request.get(None)
    headers = getattr(request, "headers", None)
    if headers is None:
        return "en"
    chosen = re.search(rf"{COOKIE}=(\w+)", headers.get("cookie", "") or "")
    if chosen and chosen[1] in LANGUAGES:
        return chosen[1]
    first = (headers.get("accept-language", "") or "").split(",")[0].strip().lower()[:2]
    return first if first in LANGUAGES else "en"


def _localized(result: Any, language: str) -> Any:
    if isinstance(result, str):
        return translate(result, language)
    if isinstance(result, tuple):
        return tuple(_localized(part, language) for part in result)
    if isinstance(result, list):
        return [_localized(part, language) for part in result]
    if isinstance(result, dict) and result.get("__type__") == "update":
        return {k: _localized(v, language) if k in (*_TEXTS, "choices") else v for k, v in result.items()}
    return result


def _marked(text: Any) -> Any:
    known = isinstance(text, str) and text in catalogue() and "}" not in text
    return I18nData(text) if known else text


def _plain(text: Any) -> str:
    return text.key if isinstance(text, I18nData) else text if isinstance(text, str) else ""


def _sentence(text: str, language: str) -> str | None:
    known = catalogue(language)
    if text in known:
        return known[text]
    for start, pattern, filled in _patterns(language):
        if text.startswith(start) and (found := pattern.fullmatch(text)):
            pieces = filled.split("{}")
            parts = [translate(part, language) for part in found.groups()]
            return pieces[0] + "".join(part + piece for part, piece in zip(parts, pieces[1:], strict=True))
    return None


@functools.cache
def _patterns(language: str) -> list[tuple[str, re.Pattern, str]]:
    """Compile the texts with gaps, the longest first, so that the most particular one is taken."""
    gapped = sorted((k for k in catalogue(language) if "{}" in k), key=lambda k: -len(k.replace("{}", "")))
    return [
        (
            k.partition("{}")[0],
            re.compile(_GAP.join(map(re.escape, k.split("{}"))), re.DOTALL),
            catalogue(language)[k],
        )
        for k in gapped
    ]
