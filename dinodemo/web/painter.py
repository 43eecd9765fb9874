"""A mask painter for the page: brush, click, box, eraser, "exclude", undo and zoom on a 2-D canvas.

Gradio's ImageEditor draws with WebGL, needs half a minute for a stroke on a phone photo without a GPU and loses
strokes; a small canvas of our own does not. What comes back from the browser is checked here.
"""

import base64
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import gradio as gr
import numpy as np
from PIL import Image

from ..io.images import DAMAGE, Photo, fit_within

PAINT_SIDE = 1024  # pixels of the longer side while painting
MAX_MASK_BYTES = 8_000_000
HINT = "Drop a reference photo above, then scribble on the object, click it, or draw a box around it."
REGION_HINT = "The query will be here: draw a box on it to search for that part alone."
BOX_ONLY = "\n[data-tool], [data-action=save], .tools label { display: none !important; }\n"
_FOLDER = Path(__file__).parent / "painter"
_versions = itertools.count(1)


@dataclass(frozen=True, eq=False)
class Drawing:
    """Represent what was painted, at the photo's size.

    Attributes:
        this: (H, W) bool, what is meant.
        not_this: (H, W) bool, what is excluded.
        box: x0, y0, x1, y1 in pixels, or None.
    """

    this: np.ndarray
    not_this: np.ndarray
    box: tuple[float, float, float, float] | None = None

    def with_box(self) -> np.ndarray:
        """Return what is meant with the box filled: (H, W) bool."""
        mask = self.this.copy()
        if self.box is not None:
            x0, y0, x1, y1 = (round(v) for v in self.box)
            mask[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
        return mask & ~self.not_this


def mask_painter(elem_id: str) -> gr.HTML:
    """Return an empty painter. Set its value with `painter_value`, read it with `read_drawing`."""
    return gr.HTML(
        value=painter_value(None),
        elem_id=elem_id,
        html_template=_read("html"),
        css_template=_read("css"),
        js_on_load=_read("js"),
        label="Mask painter",
    )


def outline_layer(elem_id: str, painter_id: str) -> gr.HTML:
    """Return the layer that shows an outline in a painter, without touching what is painted there meanwhile.

    Set its value with `outline_value`.

    Args:
        elem_id: Of the layer.
        painter_id: Of the painter.
    """
    return gr.HTML(
        value=outline_value(None),
        elem_id=elem_id,
        html_template='<span class="outline-layer"></span>',
        css_template=".outline-layer { display: none; }",
        js_on_load=_read("outline.js").replace("PAINTER", painter_id),
        container=False,
        padding=False,
    )


def region_painter(elem_id: str) -> gr.HTML:
    """Return a painter that only draws boxes, to mark a part of a photo."""
    html = _read("html").replace(HINT, REGION_HINT).replace("Clear mask", "Clear the box")
    return gr.HTML(
        value=painter_value(None),
        elem_id=elem_id,
        html_template=html,
        css_template=_read("css") + BOX_ONLY,
        js_on_load=_read("js").replace("tool = 'brush'", "tool = 'box'").replace("FILL_BOX = false", "FILL_BOX = true"),
        label="Region",
    )


def outline_value(mask: np.ndarray | None) -> dict:
    """Return the value that shows the outline of a mask (H, W) bool over the painter's photo; None shows none."""
    value: dict[str, str | int | None] = {"outline": None, "version": next(_versions)}
    if mask is None or not mask.any():
        return value
    small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(_fitted(mask.shape))) > 127
    contours, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    rgba = np.zeros((*small.shape, 4), np.uint8)
    rgba[small] = (255, 220, 0, 60)
    thick = max(2, max(small.shape) // 350)
    cv2.drawContours(rgba, contours, -1, (0, 0, 0, 255), thick + 2)
    cv2.drawContours(rgba, contours, -1, (255, 220, 0, 255), thick)
    value["outline"] = _data_url(Image.fromarray(rgba), "PNG")
    return value


def is_painted(value: dict | None) -> bool:
    """Return whether a person painted since the server last set the painter's value."""
    return bool((value or {}).get("painted"))


def painter_value(photo: Photo | None, mask: np.ndarray | None = None) -> dict:
    """Return the value that shows a photo in the painter.

    Args:
        photo: None empties the painter.
        mask: (H, W) bool, painted already.
    """
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
    """Return what was painted at the photo's size.

    Args:
        value: Of the painter.
        photo: That it shows.

    Raises:
        ValueError: When nothing was painted, or what came is no mask.
    """
    box = _read_box((value or {}).get("box"), photo)
    text = (value or {}).get("mask")
    if text is None and box is not None:
        nothing = np.zeros(photo.size, bool)
        return Drawing(nothing, nothing, box)
    if not isinstance(text, str) or not text.startswith("data:image/png;base64,"):
        raise ValueError("nothing is painted yet; scribble on the object, click it or draw a box around it")
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
    drawing = Drawing(painted & ~blue, painted & blue, box)
    if not drawing.this.any() and box is None:
        what = 'only "exclude" is painted' if drawing.not_this.any() else "the mask is empty"
        raise ValueError(f"{what}; paint the object to find")
    return drawing


def _read_box(value: object, photo: Photo) -> tuple[float, float, float, float] | None:
    """Return a box in the photo's pixels from shares of it; None for anything else."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in value):
        return None
    x0, y0, x1, y1 = value
    height, width = photo.size
    return (x0 * width, y0 * height, x1 * width, y1 * height) if x1 > x0 and y1 > y0 else None


def _fitted(size: tuple[int, ...]) -> tuple[int, int]:
    """Return (width, height) of a photo of `size` (H, W) as the painter shows it."""
    scale = min(1.0, PAINT_SIDE / max(size))
    return max(1, round(size[1] * scale)), max(1, round(size[0] * scale))


def _data_url(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=90)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _read(suffix: str) -> str:
    return (_FOLDER / f"painter.{suffix}").read_text(encoding="utf-8")
