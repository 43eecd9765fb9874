"""A mask painter for the page: brush, box, eraser, "not this", undo and zoom on a 2-D canvas.

Gradio's ImageEditor draws with WebGL, needs half a minute for a stroke on a phone photo without a GPU and loses
strokes; a small canvas of our own does not. What comes back from the browser is checked here.
"""

import base64
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from ..io.images import DAMAGE, Photo, fit_within

PAINT_SIDE = 1024  # pixels of the longer side while painting
MAX_MASK_BYTES = 8_000_000
HINT = "Drop a reference photo above, then paint the thing to find."
REGION_HINT = "The query will be here: draw a box on it to search for that part alone."
BOX_ONLY = "\n[data-tool], [data-action=save], .tools label { display: none !important; }\n"
_FOLDER = Path(__file__).parent / "painter"
_versions = itertools.count(1)


@dataclass(frozen=True, eq=False)
class Drawing:
    """Hold what was painted, at the photo's size: `this` and `not_this`, (H, W) bool."""

    this: np.ndarray
    not_this: np.ndarray


def mask_painter(elem_id: str) -> gr.HTML:
    """Make an empty painter. Set its value with `painter_value`, read it with `read_drawing`."""
    return gr.HTML(
        value=painter_value(None),
        elem_id=elem_id,
        html_template=_read("html"),
        css_template=_read("css"),
        js_on_load=_read("js"),
        label="Mask painter",
    )


def region_painter(elem_id: str) -> gr.HTML:
    """Make a painter that only draws boxes, to mark a part of a photo."""
    html = _read("html").replace(HINT, REGION_HINT).replace("Clear mask", "Clear the box")
    return gr.HTML(
        value=painter_value(None),
        elem_id=elem_id,
        html_template=html,
        css_template=_read("css") + BOX_ONLY,
        js_on_load=_read("js").replace("tool = 'brush'", "tool = 'box'"),
        label="Region",
    )


def painter_value(photo: Photo | None, mask: np.ndarray | None = None) -> dict:
    """Return the value that shows a photo in the painter, with a mask (H, W) bool already painted if given."""
    value: dict[str, str | int | None] = {"photo": None, "mask": None, "version": next(_versions)}
    if photo is not None:
        value["photo"] = _data_url(Image.fromarray(fit_within(photo.rgb, PAINT_SIDE)), "JPEG")
    if mask is not None:
        rgba = np.zeros((*mask.shape, 4), np.uint8)
        rgba[mask] = (255, 32, 32, 255)
        small = Image.fromarray(rgba)
        small.thumbnail((PAINT_SIDE, PAINT_SIDE), Image.Resampling.NEAREST)
        value["mask"] = _data_url(small, "PNG")
    return value


def read_drawing(value: dict | None, photo: Photo) -> Drawing:
    """Read the painted mask at the photo's size; raises ValueError when nothing was painted or it is no mask."""
    text = (value or {}).get("mask")
    if not isinstance(text, str) or not text.startswith("data:image/png;base64,"):
        raise ValueError("nothing is painted yet; paint the thing to find on the reference photo")
    if len(text) > MAX_MASK_BYTES:
        raise ValueError("the painted mask is too large to be real; clear it and paint again")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text.split(",", 1)[1], validate=True)), formats=["PNG"])
        if max(image.size) > PAINT_SIDE:
            raise ValueError(f"a mask of at most {PAINT_SIDE} pixels was expected, got {image.size}")
        rgba = np.asarray(image.convert("RGBA").resize(photo.size[::-1], Image.Resampling.NEAREST))
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise ValueError("the painted mask is damaged or too large; clear it and paint again") from error
    painted = rgba[..., 3] > 127
    blue = rgba[..., 2] > rgba[..., 0]
    drawing = Drawing(painted & ~blue, painted & blue)
    if not drawing.this.any():
        what = 'only "not this" is painted' if drawing.not_this.any() else "the mask is empty"
        raise ValueError(f"{what}; paint the thing to find")
    return drawing


def _data_url(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=90)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _read(suffix: str) -> str:
    return (_FOLDER / f"painter.{suffix}").read_text(encoding="utf-8")
