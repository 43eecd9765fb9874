"""Pictures and sentences of the anomaly task: heat on a scale that never moves, outlines, the nearest good patch."""

from dataclasses import dataclass

import cv2
import numpy as np

from ...io.files import plural
from ...io.images import DISPLAY_SIDE, Photo, scale_to
from ...io.render import blend, colourise, enlarge, mark_patch
from .. import base as shared
from ..base import Option
from .detector import Anomaly, Neighbour

HEAT = (0.5, 1.75)  # lines at which the colours begin and end: the same for every photo
THUMB_SIDE = 320
OUTLINES = ((0, 0, 0), (255, 255, 255))
VIEWS = ("Heat map", "Outline", "Photo")
VIEW = Option("view", VIEWS[0], "Show as", choices=VIEWS)
LINE = Option(
    "line",
    1.0,
    "Good up to here",
    "photos that score higher are anomalies; 1 is what the good photos gave",
    0.2,
    4,
    0.01,
)
OPACITY = shared.OPACITY.changed(default=0.55)


@dataclass(frozen=True, eq=False)
class Checked:
    """A photo that was checked.

    Attributes:
        photo: The photo, shrunk for the session.
        path: Where the upload lies.
        size: (H, W) of the original.
        result: What the detector found on it.
    """

    photo: Photo
    path: str
    size: tuple[int, int]
    result: Anomaly


def ranked(checked: list[Checked]) -> list[Checked]:
    """Return checked photos, the most anomalous first; ties keep their order."""
    return sorted(checked, key=lambda one: -one.result.score)


def draw(
    one: Checked, line: float, view: str = VIEW.default, opacity: float = OPACITY.default, side: int = DISPLAY_SIDE
):
    """Draw one photo: (H, W, 3) uint8 at most `side` pixels long, enlarged if it is smaller.

    Heat runs over `HEAT` for every photo, so a good photo stays clear whatever is on it.
    """
    rgb = scale_to(one.photo.rgb, side)
    if view == "Photo":
        return rgb
    if view == "Heat map":
        rgb = heat_over(rgb, one.result, opacity)
    return outline(rgb, one.result.at(line, rgb.shape[:2]))


def heat_over(rgb: np.ndarray, result: Anomaly, opacity: float) -> np.ndarray:
    """Lay the map over a photo (H, W, 3) uint8 on the fixed scale; what is below the line stays nearly clear."""
    low, high = HEAT
    heat = np.clip((enlarge(result.patches, rgb.shape[:2]) - low) / (high - low), 0, 1)
    return blend(rgb, colourise(heat), (opacity * np.minimum(2 * heat, 1)).astype(np.float32))


def outline(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the outline of a mask (H, W) bool on a photo of its size: (H, W, 3) uint8."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thick = max(1, round(max(mask.shape) / 450))
    picture = np.ascontiguousarray(rgb).copy()
    for colour, width in zip(OUTLINES, (thick + 2, thick), strict=True):
        cv2.drawContours(picture, contours, -1, colour, width)
    return picture


def thumbnails(checked: list[Checked], line: float, view: str, opacity: float) -> list[tuple[np.ndarray, str]]:
    """Draw all photos small, each with its caption, in the order given."""
    return [(draw(one, line, view, opacity, THUMB_SIDE), caption(one, line)) for one in checked]


def caption(one: Checked, line: float) -> str:
    """Return a photo's verdict, score and name in one line."""
    return f"{one.result.verdict_at(line)} · {one.result.score / line:.2f} × line · {one.photo.name}"


def counts(checked: list[Checked], line: float) -> str:
    """Return how many photos lie on either side of the line."""
    if not checked:
        return ""
    bad = sum(one.result.score > line for one in checked)
    anomalies = "1 anomaly" if bad == 1 else f"{bad} anomalies"
    return f"**{anomalies}**, {len(checked) - bad} good, of {plural(len(checked), 'photo')}."


def nearest_picture(one: Checked, good: np.ndarray, found: Neighbour) -> np.ndarray:
    """Draw the asked patch and its nearest good patch side by side, both marked: (H, W, 3) uint8.

    Args:
        one: The photo that was asked.
        good: The good photo, (H, W, 3) uint8 of any size.
        found: What lies nearest.
    """
    side, grid = DISPLAY_SIDE // 2, one.result.patches.shape
    left = mark_patch(scale_to(one.photo.rgb, side), found.patch, grid)
    h, w = grid  # a patch of the good photo is about as large
    x, y = found.location
    right = mark_patch(scale_to(good, side), (min(int(y * h), h - 1), min(int(x * w), w - 1)), grid)
    height = max(left.shape[0], right.shape[0])
    gap = np.full((height, 8, 3), 255, np.uint8)
    return np.concatenate([_on_canvas(left, height), gap, _on_canvas(right, height)], axis=1)


def nearest_sentence(found: Neighbour, good_name: str, line: float) -> str:
    """Return a sentence on how far a patch lies from the nearest good one, and how to read that."""
    times = found.distance / line
    if times > 1:
        why = "no good photo has anything closer, so it counts as an anomaly"
    else:
        why = "good photos differ as much among themselves"
    return f"Left: the patch you clicked. Right: the nearest good patch, on {good_name}: {times:.2f} × the line, {why}."


def _on_canvas(rgb: np.ndarray, height: int) -> np.ndarray:
    missing = height - rgb.shape[0]
    return np.pad(rgb, ((missing // 2, missing - missing // 2), (0, 0), (0, 0)), constant_values=255)
