"""What the segmentation tab draws and exports: results of a search in, pictures and files out. No Gradio."""

import csv
import io
import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from ...io.files import stem
from ...io.images import DISPLAY_SIDE, Photo, load_image, scale_to
from ...io.render import blend, colourise, png_bytes
from .. import base as shared
from ..base import Option
from .instances import Instances, find_instances
from .match import BOUNDS, FOUND, OBJECT, UNSURE, state_of
from .reference import DEFAULT_THRESHOLD, MIN_PRESENCE, Segmentation

FILL, OUTLINE, DOUBT = (255, 60, 60), (255, 255, 255), (255, 200, 0)
REFERENCE_FILLS = {"this": (255, 60, 60), "not_this": (60, 110, 255)}
THUMB_SIDE = 360
VIEWS = ("Overlay", "Outline", "Heat map", "Cut-out")
VIEW = Option("view", VIEWS[0], "Show as", choices=VIEWS)
THRESHOLD = Option("threshold", DEFAULT_THRESHOLD, "Threshold", "higher means smaller masks", step=0.01)
PRESENCE = Option(
    "presence",
    MIN_PRESENCE,
    "Minimum match",
    "photos that match less than this get an empty mask, 0 always paints",
)
TARGET = Option(
    "target",
    OBJECT,
    "Look for",
    "object finds this very object, kind also others of its kind",
    choices=tuple(BOUNDS),
    labels=("This very object", "This kind of thing"),
)
EXACT = Option(
    "exact", False, "Use exactly what I painted", "else paint, a click or a box is grown to the object that it means"
)
COUNT = Option("count", False, "Count", "count the objects on each photo; touching ones are split")
OPACITY = shared.OPACITY.changed(default=0.5)


@dataclass(frozen=True, eq=False)
class Reference:
    """Represent a reference photo and what was painted on it.

    Attributes:
        photo: the photo.
        this: (H, W) bool, what is meant.
        not_this: (H, W) bool, what is not.
        name: the object's label.
        box: x0, y0, x1, y1 in pixels around the object, or None.
        exact: whether `this` is the object itself; else it is paint that has to be grown to it.
    """

    photo: Photo
    this: np.ndarray
    not_this: np.ndarray
    name: str = "object"
    box: tuple[float, float, float, float] | None = None
    exact: bool = True


@dataclass(frozen=True)
class Result:
    """Represent one target and what was found on it.

    Attributes:
        photo: the target, shrunk for the session.
        path: of the upload, for cut-outs at full size.
        original_size: (H, W) of the upload.
        segmentation: what was found.
        hidden: numbers of the instances that were switched off.
    """

    photo: Photo
    path: str
    original_size: tuple[int, int]
    segmentation: Segmentation
    hidden: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Look:
    """Represent the controls' values."""

    threshold: float
    opacity: float
    view: str
    min_presence: float = MIN_PRESENCE


@dataclass(frozen=True)
class Shown:
    """Represent a result as the controls ask for it, computed once for everything that is drawn of it.

    Attributes:
        result, look: what it is made of.
        instances: the objects, hidden ones too.
        mask: (H, W) bool, without the hidden ones.
        state: "found", "unsure" or "not here".
        candidate: (H, W) bool, what would be painted; differs from the mask where the state is "unsure".
    """

    result: Result
    look: Look
    instances: Instances
    mask: np.ndarray
    state: str
    candidate: np.ndarray

    @property
    def count(self) -> int:
        """Return how many objects are switched on."""
        return sum(item.number not in self.result.hidden for item in self.instances)


def look_at(result: Result, look: Look) -> Shown:
    """Apply threshold and hidden instances to a result."""
    state = state_of(result.segmentation.presence, look.min_presence)
    instances = find_instances(result.segmentation.at(look.threshold, look.min_presence))
    ticked = [i.number for i in instances if i.number not in result.hidden]
    mask = instances.mask(ticked)
    candidate = result.segmentation.at(look.threshold, 0.0) if state == UNSURE else mask
    return Shown(result, look, instances, mask, state, candidate)


def draw_result(shown: Shown, side: int = DISPLAY_SIDE) -> np.ndarray:
    """Draw one target as the controls ask for; numbers mark the instances, hidden ones in brackets."""
    look, rgb = shown.look, scale_to(shown.result.photo.rgb, side)
    if look.view == "Heat map":
        return _heat(rgb, shown.result.segmentation.score, look.opacity)
    mask = _resize_mask(shown.mask, rgb.shape[:2])
    if shown.state == UNSURE:
        return _outline(rgb, _resize_mask(shown.candidate, rgb.shape[:2]), DOUBT)
    if look.view == "Cut-out":
        return blend(_checkerboard(rgb.shape[:2]), rgb, mask.astype(np.float32))
    return _number(paint_mask(rgb, mask, look.opacity if look.view == "Overlay" else 0.0), shown)


def paint_mask(rgb: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
    """Lay a mask (H, W) bool over a picture of its size, with an outline: (H, W, 3) uint8."""
    return _outline(blend(rgb, np.full_like(rgb, FILL), opacity * mask.astype(np.float32)), mask)


def full_mask(result: Result, look: Look) -> tuple[np.ndarray, dict]:
    """Return a target's mask (H, W) bool at the original size, and its match, area and objects in those pixels."""
    shown = look_at(result, look)
    mask = _resize_mask(shown.mask, result.original_size)
    pieces = [{"area": piece.area, "box": list(piece.box)} for piece in find_instances(mask)]
    return mask, {
        "state": shown.state,
        "presence": round(float(result.segmentation.presence), 4),
        "area": int(mask.sum()),
        "share": round(float(mask.mean()), 5),
        "size": list(mask.shape),
        "count": len(pieces),
        "pieces": pieces,
    }


def draw_thumbs(results: list[Result], look: Look) -> list[tuple[np.ndarray, str]]:
    """Draw all targets small, with a caption that says whether the object is there."""
    return [(draw_result(shown, THUMB_SIDE), caption(shown)) for shown in (look_at(r, look) for r in results)]


def caption(shown: Shown) -> str:
    """Return state, match, covered share, count and name of a target in a line; what matters comes first."""
    words = {FOUND: "found", UNSURE: "unsure: is it?"}.get(shown.state, "not here")
    parts = [words, f"match {shown.result.segmentation.presence:.2f}"]
    if shown.state == FOUND:
        parts.append(f"{shown.mask.mean():.1%}")
        parts.append(f"{shown.count} object{'' if shown.count == 1 else 's'}")
    return " · ".join([*parts, shown.result.photo.name])


def by_match(results: list[Result]) -> list[Result]:
    """Return the results, the best match first."""
    return sorted(results, key=lambda result: -result.segmentation.presence)


def count_table(rows: list[dict]) -> bytes:
    """Return a csv of photo, state, match and count, a line a photo."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["photo", "state", "match", "count"])
    writer.writerows([row["photo"], row["state"], row["presence"], row["count"]] for row in rows)
    return stream.getvalue().encode()


def draw_reference(reference: Reference) -> np.ndarray:
    """Draw a reference small, with what is meant in red and what is not in blue."""
    rgb = scale_to(reference.photo.rgb, THUMB_SIDE)
    for name, colour in REFERENCE_FILLS.items():
        mask = _resize_mask(getattr(reference, name), rgb.shape[:2])
        rgb = blend(rgb, np.full_like(rgb, colour), 0.55 * mask.astype(np.float32))
    return rgb


def toggle(shown: Shown, numbers: list[int]) -> Result:
    """Return the result with only the instances of these numbers switched on."""
    return replace(shown.result, hidden=frozenset(i.number for i in shown.instances) - frozenset(numbers))


def zip_file(results: list[Result], look: Look, made_with: str) -> tuple[str, bytes]:
    """Pack masks (binary and soft), cut-outs and overlays at the original size, and COCO annotations, into a zip."""
    buffer = io.BytesIO()
    annotations: list[dict] = []
    images: list[dict] = []
    rows: list[dict] = []
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, result in enumerate(results, start=1):
            name = f"{i:02d}-{stem(result.photo.name)}"
            mask = _resize_mask(look_at(result, look).mask, result.original_size)
            for kind, picture in _pictures(result, mask, look).items():
                archive.writestr(f"{name}-{kind}.png", png_bytes(picture, made_with))
            images.append({"id": i, "file_name": result.photo.name, "height": mask.shape[0], "width": mask.shape[1]})
            found = coco_annotations(mask, i)
            rows.append(
                {
                    "photo": result.photo.name,
                    "state": state_of(result.segmentation.presence, look.min_presence),
                    "presence": round(float(result.segmentation.presence), 4),
                    "count": len(found),
                }
            )
            for annotation in found:
                annotations.append(
                    {"id": len(annotations) + 1, **annotation, "score": round(float(result.segmentation.presence), 4)}
                )
        coco = {
            "info": {"description": made_with},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "reference"}],
        }
        archive.writestr("annotations.json", json.dumps(coco))
        archive.writestr("counts.csv", count_table(rows))
    return "segmentation.zip", buffer.getvalue()


def coco_annotations(mask: np.ndarray, image_id: int) -> list[dict]:
    """Return a COCO annotation (uncompressed RLE) for every instance of a mask."""
    return [
        {
            "image_id": image_id,
            "category_id": 1,
            "iscrowd": 0,
            "area": item.area,
            "bbox": _corner_and_size(item.box),
            "segmentation": run_lengths(pieces.mask([item.number])),
        }
        for pieces in [find_instances(mask)]
        for item in pieces
    ]


def run_lengths(mask: np.ndarray) -> dict:
    """Encode a mask (H, W) bool as COCO's RLE: column by column, lengths of zeros and ones in turn, zeros first."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def _pictures(result: Result, mask: np.ndarray, look: Look) -> dict[str, np.ndarray]:
    full = load_image(result.path) if Path(result.path).is_file() else scale_to(result.photo.rgb, max(mask.shape))
    soft = cv2.resize(result.segmentation.score, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return {
        "mask": mask.astype(np.uint8) * 255,
        "soft": (np.clip(soft, 0, 1) * 255).round().astype(np.uint8),
        "cutout": np.dstack([full, mask.astype(np.uint8) * 255]),
        "overlay": paint_mask(full, mask, look.opacity),
    }


def _resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample a mask (h, w) bool to `size` (H, W) with a smooth edge."""
    if mask.shape == tuple(size):
        return mask
    how = cv2.INTER_AREA if size[0] < mask.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(mask.astype(np.float32), (size[1], size[0]), interpolation=how) > 0.5


def _outline(rgb: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] = OUTLINE) -> np.ndarray:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thick = max(1, round(max(mask.shape) / 500))
    picture = np.ascontiguousarray(rgb).copy()
    cv2.drawContours(picture, contours, -1, (0, 0, 0), thick + 2)
    return cv2.drawContours(picture, contours, -1, colour, thick)


def _number(picture: np.ndarray, shown: Shown) -> np.ndarray:
    height, width = shown.mask.shape
    size = max(picture.shape[:2]) / 900
    for instance in shown.instances:
        text = f"({instance.number})" if instance.number in shown.result.hidden else str(instance.number)
        x, y = instance.center[0] * picture.shape[1] / width, instance.center[1] * picture.shape[0] / height
        where, thick = (int(x - 10 * size), int(y + 10 * size)), max(1, round(2 * size))
        cv2.putText(picture, text, where, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), thick + 3, cv2.LINE_AA)
        cv2.putText(picture, text, where, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), thick, cv2.LINE_AA)
    return picture


def _heat(rgb: np.ndarray, score: np.ndarray, opacity: float) -> np.ndarray:
    heat = colourise(cv2.resize(score, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR), "inferno")
    return blend(rgb, heat, np.full(rgb.shape[:2], opacity, np.float32))


def _corner_and_size(box: tuple[int, int, int, int]) -> list[int]:
    """Turn (x0, y0, x1, y1) into COCO's (x, y, width, height)."""
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _checkerboard(size: tuple[int, int], square: int = 16) -> np.ndarray:
    y, x = np.indices(size)
    grey = np.where((y // square + x // square) % 2, 190, 240).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
