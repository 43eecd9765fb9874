"""What the compare tab draws and exports: two photos' features in, pictures, a sentence and files out. No Gradio."""

import csv
import io
import json
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from ...engine.features import Features
from ...engine.provenance import made_with
from ...io.files import stem
from ...io.images import DISPLAY_SIDE, Photo, fit_within
from ...io.render import distinct_colours, overlay, png_bytes
from ..base import Option
from ..tokens import patch_at
from .matches import MODELS, Matches, consistent, heat_map, match, similarity, spread

COUNT = Option("count", 40, "Maximum pairs", "pairs that are drawn", 1, 200, 1)
LEAST = Option("least", 0.4, "Minimum similarity", "cosine of a pair", -1, 1, 0.01)
PLACELESS = Option("placeless", True, "Ignore patch position", "ignore where in the picture a patch lies")
ANY = "any"
MODEL = Option(
    "model",
    ANY,
    "Geometric check",
    "only pairs that one such movement explains",
    choices=(ANY, *MODELS),
    labels=("Off", "Perspective", "Affine"),
)
CHECKED = "homography"  # what the page begins with: unchecked lines between views of one object are a tangle
GAP = 12  # pixels between the two photos


@dataclass(frozen=True, eq=False)
class Pair:
    """Two photos, their features, and the point that was clicked."""

    photos: tuple[Photo, Photo]
    features: tuple[Features, Features]
    basis: np.ndarray | None  # directions of position that are left out of the comparison
    key: tuple  # what all this depends on
    point: tuple[int, int, int] | None = None  # side (0 or 1), row, column of the clicked patch

    @cached_property
    def matches(self) -> Matches:
        """Return all mutual nearest patches, best first."""
        return match(*self.features, self.basis)

    def click(self, side: int, x: float, y: float) -> "Pair":
        """Return the same pair with a point clicked on one side.

        Args:
            side: 0 or 1.
            x: 0 to 1 from left to right.
            y: 0 to 1 from top to bottom.
        """
        return replace(self, point=(side, *patch_at(self.features[side], x, y)))


@dataclass(frozen=True)
class Look:
    """The controls' values."""

    count: int  # pairs that are drawn
    least: float  # cosine
    model: str  # one of the choices of MODEL


def chosen(pair: Pair, look: Look) -> Matches:
    """Return the pairs that the controls let through, best first."""
    found = pair.matches.take(pair.matches.scores >= look.least)
    return found if look.model == ANY else found.take(consistent(found, look.model)[0])


def draw_lines(pair: Pair, look: Look, side: int = DISPLAY_SIDE) -> np.ndarray:
    """Return both photos next to each other at one height, with lines between some of the chosen pairs.

    Args:
        pair: To draw.
        look: Settings.
        side: Longest side of each photo, px.
    """
    height, widths = _layout(pair, side)
    shown = [
        cv2.resize(photo.rgb, (width, height), interpolation=cv2.INTER_AREA)
        for photo, width in zip(pair.photos, widths, strict=True)
    ]
    gap = np.full((height, GAP, 3), 128, np.uint8)
    canvas = np.ascontiguousarray(np.concatenate([shown[0], gap, shown[1]], axis=1))
    drawn = spread(chosen(pair, look), int(look.count))
    a, b = drawn.points()
    starts = a * [shown[0].shape[1], height]
    ends = b * [shown[1].shape[1], height] + [shown[0].shape[1] + GAP, 0]
    for start, end, colour in zip(starts, ends, distinct_colours(len(drawn)).tolist(), strict=True):
        start, end = (tuple(int(v) for v in point) for point in (start, end))
        cv2.line(canvas, start, end, colour, 2, cv2.LINE_AA)
        for point in (start, end):
            cv2.circle(canvas, point, 5, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(canvas, point, 4, colour, -1, cv2.LINE_AA)
    return canvas


def point_on_lines(pair: Pair, x: float, y: float, side: int = DISPLAY_SIDE) -> tuple[int, float, float]:
    """Return which photo a pixel of `draw_lines` lies on (0 or 1) and where, x and y from 0 to 1."""
    height, (first, second) = _layout(pair, side)
    if x < first + GAP / 2:
        return 0, min(x / first, 1.0), y / height
    return 1, max((x - first - GAP) / second, 0.0), y / height


def _layout(pair: Pair, side: int) -> tuple[int, tuple[int, int]]:
    """Return the height of both photos in `draw_lines`, and their widths."""
    height = min(side * 2 // 3, *(photo.size[0] for photo in pair.photos))
    first, second = (max(1, round(photo.size[1] * height / photo.size[0])) for photo in pair.photos)
    return height, (first, second)


def draw_side(pair: Pair, side: int) -> np.ndarray:
    """Draw one photo: with a cross on the clicked point, or with the heat and the best match of the other's point."""
    rgb = fit_within(pair.photos[side].rgb, DISPLAY_SIDE)
    if pair.point is None:
        return rgb
    clicked, row, column = pair.point
    if clicked == side:
        return _cross(rgb, (row, column), pair.features[side].grid)
    heat = heat_map(pair.features[clicked], (row, column), pair.features[side], pair.basis)
    best = divmod(int(heat.argmax()), heat.shape[1])
    return _cross(overlay(rgb, heat, 0.55), best, heat.shape)


def summary(pair: Pair, look: Look) -> str:
    """Return a sentence on how similar the two photos are and how many parts agree.

    Args:
        pair: To describe.
        look: Settings.
    """
    found, kept = pair.matches, chosen(pair, look)
    least = min(f.patches.shape[0] * f.patches.shape[1] for f in pair.features)
    text = (
        f"**Cosine of the CLS tokens {similarity(*pair.features):.2f}** · {len(found)} of {least} patches are "
        f"mutual nearest · {len(kept)} pass the filters"
    )
    if len(kept):
        return text + f", drawn: {min(len(kept), int(look.count))}"
    return text + "; lower the minimum similarity or switch the geometric check off"


def describe_point(pair: Pair | None) -> str:
    """Return a sentence on what matches the clicked point best."""
    if pair is None or pair.point is None:
        return "Click a point on one photo: the other shows where it finds the same."
    clicked, row, column = pair.point
    heat = heat_map(pair.features[clicked], (row, column), pair.features[1 - clicked], pair.basis)
    name = pair.photos[1 - clicked].name
    return f"Best match on {name}: cosine **{heat.max():.2f}** (half of its patches are below {np.median(heat):.2f})"


def lines_file(pair: Pair, look: Look) -> tuple[str, bytes]:
    """Return the drawing as PNG."""
    return f"{_name(pair)}.png", png_bytes(draw_lines(pair, look, 2 * DISPLAY_SIDE), made_with(pair.features[0]))


def table_file(pair: Pair, look: Look) -> tuple[str, bytes]:
    """Return the chosen pairs as CSV: pixels of both upright photos, cosine."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["x_a", "y_a", "x_b", "y_b", "cosine"])
    rows.writerows(_rows(pair, look))
    return f"{_name(pair)}.csv", text.getvalue().encode()


def json_file(pair: Pair, look: Look) -> tuple[str, bytes]:
    """Return the comparison as JSON: both photos, their CLS cosine, the chosen pairs."""
    content = {
        "a": {"name": pair.photos[0].name, "size": list(pair.photos[0].size)},
        "b": {"name": pair.photos[1].name, "size": list(pair.photos[1].size)},
        "backbone": pair.features[0].backbone,
        "cls_cosine": round(similarity(*pair.features), 5),
        "columns": ["x_a", "y_a", "x_b", "y_b", "cosine"],
        "pairs": _rows(pair, look),
    }
    return f"{_name(pair)}.json", json.dumps(content, indent=1).encode()


def _rows(pair: Pair, look: Look) -> list[list[float]]:
    kept = chosen(pair, look)
    a, b = (points * photo.size[::-1] for points, photo in zip(kept.points(), pair.photos, strict=True))
    return np.round(np.column_stack([a, b, kept.scores]).astype(float), 4).tolist()


def _name(pair: Pair) -> str:
    return "-".join(stem(photo.name) for photo in pair.photos) + "-matches"


def _cross(rgb: np.ndarray, patch: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    at = tuple(int((patch[1 - i] + 0.5) * rgb.shape[1 - i] / grid[1 - i]) for i in range(2))
    marked = np.ascontiguousarray(rgb).copy()
    for colour, thick in (((0, 0, 0), 6), ((255, 255, 255), 2)):
        cv2.drawMarker(marked, at, colour, cv2.MARKER_CROSS, 30, thick, cv2.LINE_AA)
    return marked
