"""Pictures that the browser redraws where they stand; `web/live/` holds its browser side."""

import base64
import json
from pathlib import Path

import gradio as gr

from ..io.render import COLOUR_MAPS, colour_table

EMPTY: dict = {"version": 0, "maps": []}
SKIP = "{__type__: 'update'}"
MOVE = """(...values) => {
  const live = [...document.querySelectorAll('#%s, #%s *')].find((one) => one.live)?.live;
  return live?.move(...values) ?? Array(%d).fill(%s);
}"""


def live_view(elem_id: str, *scripts: str) -> gr.HTML:
    """Return the invisible component that redraws pictures of the page.

    Its value comes from a task's `live.live_value`. Its submit event asks the server to draw instead; its input event
    says that only the picture of the backbone that is compared with has to be drawn.

    Args:
        elem_id: Of the component.
        *scripts: Names in `web/live/`, of what draws; pictures.js is joined to them.
    """
    tables = {name: base64.b64encode(colour_table(name).tobytes()).decode() for name in COLOUR_MAPS}
    folder = Path(__file__).parent / "live"
    script = "\n".join((folder / name).read_text("utf-8") for name in (*scripts, "pictures.js"))
    return gr.HTML(
        value=EMPTY,
        elem_id=elem_id,
        html_template='<span class="live"></span>',
        css_template=".live { display: none; }",
        js_on_load=script.replace("/*MAPS*/{}", json.dumps(tables)),
        container=False,
        padding=False,
    )


def moved(elem_id: str, outputs: int = 0) -> str:
    """Return the js of an event whose inputs are: a truthy value if a second picture is drawn, then the controls.

    Args:
        elem_id: Of the live view.
        outputs: How many the event has; they stay as they are where the server draws.
    """
    return MOVE % (elem_id, elem_id, outputs, SKIP)
