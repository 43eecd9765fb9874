"""A list of named settings on the page, each with a field and its help; what a person has typed stays theirs.

Gradio's Dataframe is a spreadsheet: it scrolls away under a double click, and loses what is typed while it is filled.
"""

from collections.abc import Mapping
from pathlib import Path

import gradio as gr

MAX_EDITS, MAX_TEXT = 200, 200
_FOLDER = Path(__file__).parent / "settings_list"


def settings_list(elem_id: str) -> gr.HTML:
    """Return an empty list. Set its value with `settings_value`, read it with `read_edits`; `input` is its event."""
    return gr.HTML(
        value=settings_value({}, {}, {}),
        elem_id=elem_id,
        html_template=_read("html"),
        css_template=_read("css"),
        js_on_load=_read("js"),
        label="All settings",
    )


def settings_value(chosen: Mapping[str, str], helps: Mapping[str, str], edits: Mapping[str, str]) -> dict:
    """Return the value that shows the chosen settings, what each means, and what a person has set instead.

    Args:
        chosen: Values by name.
        helps: Help texts by name.
        edits: Values that the person has set, by name.
    """
    return {"fields": [[name, chosen[name], helps[name]] for name in chosen], "edits": dict(edits)}


def read_edits(value: dict | None) -> dict[str, str]:
    """Return what a person has typed, by the setting's name; raises ValueError for what the list cannot have sent."""
    edits = value.get("edits") or {} if isinstance(value, dict) else {}
    if not isinstance(edits, dict) or len(edits) > MAX_EDITS:
        raise ValueError(f"settings by name were expected, at most {MAX_EDITS}; reload the page")
    for name, text in edits.items():
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise ValueError(f"{name[:50]} has to be a text of at most {MAX_TEXT} characters; type it again")
    return edits


def _read(suffix: str) -> str:
    return (_FOLDER / f"list.{suffix}").read_text(encoding="utf-8")
