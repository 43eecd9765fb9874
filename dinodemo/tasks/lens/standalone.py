"""The lens as one HTML file that needs neither server nor network."""

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...io.images import Photo
from ...io.render import COLOUR_MAPS, colour_table
from .packing import Packed, lens_value

FOLDER = Path(__file__).resolve().parents[2] / "web" / "lens"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ margin: 12px auto; max-width: 1400px; padding: 0 12px; font: 16px/1.5 system-ui, sans-serif;
background: Canvas; color: CanvasText; color-scheme: light dark; }}
{css}</style></head><body>
<h1>{title}</h1>
{lens}
<p>Move over a photo: every patch is coloured by the cosine of its token to the one under the pointer. Click to pin.
{made_with}</p>
<script>{core}
const value = {value};
window.lens = createLens(document.querySelector('.lens').parentNode);
window.lens.load(value);</script></body></html>
"""


@dataclass(frozen=True)
class BrowserSide:
    """The texts that make a lens: `core` runs anywhere, `glue` inside Gradio's HTML component."""

    html: str
    css: str
    core: str
    glue: str


@cache
def browser_side() -> BrowserSide:
    """Return the browser's side, with the package's colour maps put in."""
    maps = {name: base64.b64encode(colour_table(name).tobytes()).decode() for name in COLOUR_MAPS}
    texts = {name: (FOLDER / name).read_text("utf-8") for name in ("lens.html", "lens.css", "core.js", "lens.js")}
    options = "".join(f"<option>{name}</option>" for name in COLOUR_MAPS)
    markup = texts["lens.html"].replace("<!--MAPS-->", options)
    core = texts["core.js"].replace("/*MAPS*/{}", json.dumps(maps))
    return BrowserSide(markup, texts["lens.css"], core, texts["lens.js"])


def page(photos: Sequence[Photo], packed: Packed, title: str = "Lens", made_with: str = "") -> str:
    """Return the lens on some photos as one self-contained HTML page.

    Args:
        photos: in the order of `packed`.
        packed: their tokens, see `packing.pack`.
        title: of the page; shown as it is.
        made_with: a sentence on the network, shown below.
    """
    side = browser_side()
    value = json.dumps(lens_value(photos, packed)).replace("<", "\\u003c")  # no name closes the script
    return PAGE.format(
        title=html.escape(title), css=side.css, lens=side.html, core=side.core, value=value,
        made_with=html.escape(made_with),
    )  # fmt: skip
