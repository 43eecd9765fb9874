"""What the depth tab draws and exports: a depth map in, pictures, readings and files out. No Gradio, no torch."""

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from ...io.files import stem
from ...io.images import DISPLAY_SIDE, Photo, fit_within
from ...io.render import colourise, png_bytes
from .camera import camera_words, place
from .options import FORMS

if TYPE_CHECKING:
    from .probe_store import Estimate

LEAST_SPAN = 1e-3  # between near and far
MAX_MILLIMETRES = 65535
TICKS = 5
BENT = "This depth is relative: sizes have no unit, and what is flat may come out bent."


@dataclass(frozen=True, eq=False)
class View:
    """One photo's depth, what it was made with, and the point that is read."""

    photo: Photo
    depth: np.ndarray  # (H, W) float32 of the photo's size
    unit: str  # "metres" or "relative"
    probe: str  # the probe's name
    note: str  # what its card says in a sentence
    made_with: str
    key: tuple  # what the depth depends on besides the photo
    point: tuple[int, int] | None = None  # x, y in the photo's pixels
    inside: bool | None = None  # whether the photo is like the probe's training pictures; None where not known
    message: str = ""  # what the reader should know first
    former: tuple[int, int] | None = None  # the point that was read before

    @classmethod
    def of(cls, photo: Photo, found: "Estimate", made_with: str, key: tuple = (), point: tuple | None = None) -> "View":
        """Return what a probe store's estimate of a photo is shown as."""
        return cls(
            photo,
            found.depth,
            found.unit,
            found.name,
            found.note,
            made_with,
            key,
            point,
            found.inside,
            found.message,
        )


@dataclass(frozen=True)
class Look:
    """The controls' values."""

    near: float
    far: float
    colour_map: str
    inverse: bool


def natural_range(depth: np.ndarray) -> tuple[float, float]:
    """Return near and far such that a hundredth of the pixels lies outside on either side."""
    near, far = (float(v) for v in np.quantile(depth[:: max(1, len(depth) // 512)], (0.01, 0.99)))
    return round(near, 2), round(max(far, near + 0.01), 2)


def shade(depth: np.ndarray, look: Look) -> np.ndarray:
    """Map depth to 0 (near) to 1 (far), or with `inverse` to 1 (near) to 0 (far) evenly in 1 / depth."""
    near, far = look.near, max(look.far, look.near + LEAST_SPAN)
    if not look.inverse:
        return np.clip((depth - near) / (far - near), 0, 1)
    near = max(near, LEAST_SPAN)
    return np.clip((1 / np.maximum(depth, LEAST_SPAN) - 1 / far) / (1 / near - 1 / far), 0, 1)


def draw_depth(view: View, look: Look, side: int = DISPLAY_SIDE) -> np.ndarray:
    """Colour the depth, with a cross at the point that is read and a line to the one before: (h, w, 3) uint8."""
    colours = fit_within(colourise(shade(view.depth, look), look.colour_map), side)
    if view.point is None:
        return colours
    scale = colours.shape[1] / view.depth.shape[1]
    marked = np.ascontiguousarray(colours).copy()
    at, *before = [tuple(int(v * scale) for v in point) for point in (view.point, view.former) if point is not None]
    for colour, thick in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        for former in before:
            cv2.line(marked, at, former, colour, thick - 1, cv2.LINE_AA)
            cv2.drawMarker(marked, former, colour, cv2.MARKER_CROSS, 16, thick, cv2.LINE_AA)
        cv2.drawMarker(marked, at, colour, cv2.MARKER_CROSS, 26, thick, cv2.LINE_AA)
    return marked


def draw_photo(view: View) -> np.ndarray:
    """Return the photo at the size of `draw_depth`."""
    return fit_within(view.photo.rgb, DISPLAY_SIDE)


def colour_bar(look: Look, unit: str) -> str:
    """Return the colour bar as HTML: a strip with ticks, in metres where the depth is."""
    steps = np.linspace(0, 1, 24)
    far = max(look.far, look.near + LEAST_SPAN)
    depths = look.near + steps * (far - look.near)
    rgb = colourise(shade(depths[None], look), look.colour_map)[0]
    stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in rgb)
    ticks = "".join(f"<span>{v:.2f}</span>" for v in np.linspace(look.near, far, TICKS))
    name = "metres" if unit == "metres" else "relative depth, without a unit"
    return (
        f'<div class="colour-bar" role="img" aria-label="Colours from {look.near:.2f} to {far:.2f} {name}">'
        f'<div style="background: linear-gradient(to right, {stops})"></div><p>{ticks}</p><p>{name}</p></div>'
    )


def distance(view: View, fov: float) -> float | None:
    """Return the distance in space between the two points read last, in metres; None without two, or a unit.

    Args:
        view: what is shown.
        fov: field of view of a pinhole camera along the longer side, in degrees.
    """
    if view.unit != "metres" or view.point is None or view.former is None:
        return None
    columns, rows = np.array([view.point, view.former]).T
    there, here = place(view.depth[rows, columns], rows, columns, view.depth.shape, fov)
    return float(np.linalg.norm(there - here))


def reading(view: View, fov: float | None = None) -> str:
    """Return the depth at the point that is read, and how far it is from the one before where `fov` is given."""
    if view.point is None:
        return "Click the picture to read the depth at a point."
    x, y = view.point
    value = float(view.depth[y, x])
    shown = f"**{value:.2f} m**" if view.unit == "metres" else f"**{value:.3f}** (relative, no unit)"
    return f"{shown} at ({x}, {y}), from the top left{'' if fov is None else _from_former(view, fov)}"


def _from_former(view: View, fov: float) -> str:
    """Return how far the point is from the one before, or why that is not known."""
    if view.former is None:
        return ""
    if view.unit != "metres":
        return " · no distance to the point before: this depth is relative, without a unit"
    apart = distance(view, fov)
    return f" · **{apart:.2f} m** from the point before, with a field of view of {fov:.1f}°"


def difference(a: View, b: View) -> str:
    """Return in a line how far two probes' depths of one photo lie apart."""
    apart = np.abs(a.depth - b.depth)
    if a.unit != "metres" or b.unit != "metres":
        first, second = (
            cv2.resize(v.depth, (64, 64), interpolation=cv2.INTER_AREA).ravel().argsort().argsort() for v in (a, b)
        )
        return f"One of them has no unit; their orders of near and far agree by {np.corrcoef(first, second)[0, 1]:.2f}."
    return (
        f"They differ by {np.median(apart):.2f} m in the middle, by {np.quantile(apart, 0.95):.2f} m at most for 95 %."
    )


def picture_file(view: View, look: Look) -> tuple[str, bytes]:
    """Return the coloured depth at the photo's size as PNG."""
    return f"{stem(view.photo.name)}-depth.png", png_bytes(
        colourise(shade(view.depth, look), look.colour_map), view.made_with
    )


def millimetre_file(view: View) -> tuple[str, bytes]:
    """Return the depth as a 16-bit PNG in millimetres; raises ValueError for depth without a unit."""
    if view.unit != "metres":
        raise ValueError(
            "this depth has no unit, so there are no millimetres; download the .npy, or ask for metres although unsure"
        )
    buffer = io.BytesIO()
    millimetres = np.clip(np.rint(view.depth * 1000), 0, MAX_MILLIMETRES).astype(np.uint16)
    Image.fromarray(millimetres).save(buffer, "PNG")
    return f"{stem(view.photo.name)}-depth-mm.png", buffer.getvalue()


def array_file(view: View) -> tuple[str, bytes]:
    """Return the depth as .npy, (H, W) float32."""
    buffer = io.BytesIO()
    np.save(buffer, view.depth.astype(np.float32))
    return f"{stem(view.photo.name)}-depth.npy", buffer.getvalue()


def facts(view: View, fov: float | None = None) -> dict:
    """Return what to know of the numbers: unit, whether the probe knows such pictures, range, probe, network.

    Args:
        view: what is shown.
        fov: of the picture in space, where there is one: field of view along the longer side, in degrees.
    """
    near, far = natural_range(view.depth)
    return {
        "unit": view.unit,
        "inside": view.inside,
        "message": view.message,
        "near": near,
        "far": far,
        "size": list(view.depth.shape),
        "probe": view.probe,
        "note": view.note,
        "made_with": view.made_with,
        **({} if fov is None else {"field_of_view": fov, "camera": " ".join(space_text(view, fov).split())}),
    }


def facts_file(view: View, fov: float | None = None) -> tuple[str, bytes]:
    """Return `facts` as JSON, to lie beside the numbers."""
    return f"{stem(view.photo.name)}-depth.json", json.dumps(facts(view, fov), indent=2).encode()


def space_file(view: View, fov: float, form: str) -> tuple[str, bytes]:
    """Return the picture in space: "points" as .ply, "mesh" as .glb with the photo as texture.

    Args:
        view: what is shown.
        fov: field of view along the longer side, in degrees.
        form: one of `options.FORMS`.
    """
    from .glb import to_glb
    from .pointcloud import back_project, to_ply

    mesh = FORMS.check(form) == "mesh"
    cloud = back_project(view.depth, view.photo.rgb, fov, mesh=mesh)
    name = stem(view.photo.name)
    return (f"{name}.glb", to_glb(cloud, view.photo.rgb)) if mesh else (f"{name}.ply", to_ply(cloud))


def space_text(view: View, fov: float) -> str:
    """Return what to know of the picture in space: where the field of view is from, and what relative depth bends."""
    bent = "" if view.unit == "metres" else f"\n\n{BENT}"
    return camera_words(view.photo, fov) + bent


def card_text(card: dict | None, note: str) -> str:
    """Return a probe's card as Markdown: what it is, on what it was trained, how well it does."""
    if card is None:
        return note
    metrics, near = card.get("metrics") or {}, card.get("nearness")
    rows = {
        "Backbone": card["backbone"],
        "Kind": f"{card['kind']}, {card['bins']} bins",
        "Range": f"{card['range'][0]:g} to {card['range'][1]:g} {'(relative)' if card['relative'] else 'm'}",
        "Near and far": f"layer {near['layer'] + 1}, {near['share']:.0%} of the metres' shape" if near else "",
        "Trained on": " · ".join(str(card[k]) for k in ("data", "source", "licence") if card.get(k)),
        "Held out": " · ".join(f"{name} {value:.3f}" for name, value in metrics.items()),
    }
    lines = "\n".join(f"- {name}: {value}" for name, value in rows.items() if value)
    return f"{note}\n\n{lines}"
