"""Heat maps that the browser redraws over pictures of the page; `web/heat/` holds its browser side."""

import base64
import json
from pathlib import Path

import gradio as gr

from ..io.render import COLOUR_MAPS, colour_table

EMPTY: dict = {"version": 0, "maps": []}
MOVE = """(...values) => {
  [...document.querySelectorAll('#%s, #%s *')].find((one) => one.heat)?.heat.move(...values);
}"""


def heat_view(elem_id: str) -> gr.HTML:
    """Return the invisible component that redraws heat maps over pictures of the page.

    Its value comes from `tasks.attention.live.live_value`. Its submit event asks the server to draw instead.

    Args:
        elem_id: Of the component.
    """
    tables = {name: base64.b64encode(colour_table(name).tobytes()).decode() for name in COLOUR_MAPS}
    script = (Path(__file__).parent / "heat" / "heat.js").read_text("utf-8")
    return gr.HTML(
        value=EMPTY,
        elem_id=elem_id,
        html_template='<span class="heat"></span>',
        css_template=".heat { display: none; }",
        js_on_load=script.replace("/*MAPS*/{}", json.dumps(tables)),
        container=False,
        padding=False,
    )


def moved(elem_id: str) -> str:
    """Return the js of an event whose inputs are: a truthy value if the server must draw, then the look's controls.

    Args:
        elem_id: Of the heat view.
    """
    return MOVE % (elem_id, elem_id)
