"""What the attention tab draws: a person's photo and features in, pictures and sentences out. No Gradio."""

import io
from dataclasses import dataclass

import numpy as np

from ...engine.features import Features
from ...engine.provenance import made_with
from ...io.files import stem
from ...io.images import DISPLAY_SIDE, Photo, scale_to
from ...io.render import colourise, enlarge, mark_patch, normalise, overlay, png_bytes
from ..base import Option
from .maps import attention_of, attention_sinks, combine_heads, cosine_to_patch, keep_mass, norms_of, prefix_mass

HEAD_SIDE = 320  # pixels of the pictures in the grid of heads
SINKS_ADVICE = (
    "**Attention sinks:** {count} patches of outlier norm hold {share:.0%} of this layer's attention. The network uses "
    "such patches as scratch memory, so the map says little about the picture (Darcet et al. 2024). Take a backbone "
    "with registers, such as `dinov2-small-with-registers` or a DINOv3 one."
)
MASS = Option("mass", 1.0, "Share", "show only the strongest patches that hold this share", 0.001, 1)
MASS_PERCENT = Option(
    "mass",
    100,
    "Strongest patches (% of attention)",
    "Show only the strongest patches that together hold this share.",
    5,
    100,
    5,
)
LAYER = Option("layer", 12, "Layer", "1 is the first, the last is deepest", 1, 12, 1)
HEAD = Option("head", "mean", "Head", "mean, max, or a head's number from 1", choices=("mean", "max"))
POINT = tuple(Option(n, 50, f"Point: % from the {side}", "", 0, 100, 1) for n, side in (("x", "left"), ("y", "top")))


def head_option(heads: int) -> Option:
    """Return the choice of a head for a backbone with so many of them."""
    numbers = tuple(str(i) for i in range(1, heads + 1))
    return HEAD.changed(choices=(*HEAD.choices, *numbers), labels=("Mean", "Max", *numbers))


@dataclass(frozen=True)
class View:
    """One person's photo and its features; controls only redraw from here."""

    photo: Photo
    features: Features  # with attention
    key: tuple[str, int]  # backbone asked for, resolution
    status: str
    patch: tuple[int, int] | None = None  # clicked (row, column)
    patch_rows: np.ndarray | None = None  # (L, heads, h, w) the clicked patch's attention


@dataclass(frozen=True)
class Look:
    """The controls' values as they are on the page: layer and head count from 1, mass is in percent."""

    layer: int
    head: str  # "mean", "max" or a number
    mass: float
    opacity: float
    colour_map: str
    smooth: bool

    def layer_index(self, f: Features) -> int:
        return min(max(int(self.layer), 1), len(attention_of(f))) - 1

    def head_index(self, f: Features) -> str | int:
        return self.head if self.head in ("mean", "max") else min(int(self.head), attention_of(f).shape[1]) - 1

    def combine(self, rows: np.ndarray, f: Features) -> np.ndarray:
        """Reduce (L, heads, h, w) attention to the (h, w) map that the controls ask for."""
        attention = combine_heads(rows[self.layer_index(f)], self.head_index(f))
        return attention if self.mass >= 100 else keep_mass(attention, self.mass / 100)


def draw_overlay(view: View, look: Look, side: int = DISPLAY_SIDE) -> np.ndarray:
    """Draw the CLS attention over the photo, the clicked patch outlined."""
    f = view.features
    picture = _lay(view, look.combine(attention_of(f), f), look, side)
    return picture if view.patch is None else mark_patch(picture, view.patch, f.grid)


def draw_heads(view: View, look: Look) -> list[tuple[np.ndarray, str]]:
    """Draw every head of the layer, small, with captions."""
    rows = attention_of(view.features)[look.layer_index(view.features)]
    return [(_lay(view, row, look, HEAD_SIDE), f"Head {i}") for i, row in enumerate(rows, start=1)]


def draw_point(view: View, look: Look) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Draw the clicked patch's attention and the cosine similarity of all patches to it; None before a click."""
    if view.patch is None or view.patch_rows is None:
        return None, None
    f = view.features
    attention = _lay(view, look.combine(view.patch_rows, f), look, DISPLAY_SIDE)
    cosine = _lay(view, cosine_to_patch(f, view.patch), look, DISPLAY_SIDE)
    return mark_patch(attention, view.patch, f.grid), mark_patch(cosine, view.patch, f.grid)


def draw_norms(view: View, look: Look) -> np.ndarray:
    """Draw the norms of the last layer's patch tokens as a heat map."""
    size = scale_to(view.photo.rgb, DISPLAY_SIDE).shape[:2]
    return colourise(enlarge(normalise(norms_of(view.features)), size, look.smooth), look.colour_map)


def note(view: View, look: Look) -> str:
    """Return a sentence on the attention that does not reach the patches, with a warning of sinks."""
    f, layer = view.features, look.layer_index(view.features)
    on_cls, on_registers = prefix_mass(f, layer)
    registers = f" and {on_registers:.0%} on the {len(f.registers)} registers" if len(f.registers) else ""
    text = f"In layer {layer + 1}, {on_cls:.0%} of the attention stays on CLS itself{registers}; the rest is shown."
    sinks = attention_sinks(f, layer)
    if sinks.dominate:
        text += "\n\n" + SINKS_ADVICE.format(count=int(sinks.patches.sum()), share=sinks.share)
    return text


def picture_file(view: View, look: Look) -> tuple[str, bytes]:
    """Return the overlay as shown, at the photo's size, as a named PNG."""
    layer = look.layer_index(view.features) + 1
    name = f"{stem(view.photo.name)}-attention-layer{layer}-{look.head}-{stem(view.features.backbone)}.png"
    picture = draw_overlay(view, look, max(view.photo.size))
    return name, png_bytes(picture, made_with(view.features))


def raw_file(view: View) -> tuple[str, bytes]:
    """Return attention, norms and tokens as a named .npz, with the backbone's name inside."""
    f, buffer = view.features, io.BytesIO()
    arrays: dict = {
        "attention": f.layer_attention,
        "prefix_attention": f.prefix_attention,
        "cls": f.cls,
        "patches": f.patches,
        "registers": f.registers,
        "patch_norms": f.patch_norms,
        "backbone": f.backbone,
        "made_with": made_with(f),
        "identity": f.identity.to_json() if f.identity else "",
        "image_size": f.image_size,
        "input_size": f.input_size,
    }
    if view.patch is not None:
        arrays |= {"patch": view.patch, "patch_attention": view.patch_rows}
    np.savez_compressed(buffer, **arrays)
    return f"{stem(view.photo.name)}-attention-{stem(f.backbone)}.npz", buffer.getvalue()


def _lay(view: View, values: np.ndarray, look: Look, side: int) -> np.ndarray:
    return overlay(scale_to(view.photo.rgb, side), values, look.opacity, look.colour_map, look.smooth)
