"""The API's `segment`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...engine.provenance import made_with_name
from ...io.files import stem
from ...io.images import load_photo, shrink
from ...io.render import png_bytes
from ...web.api_values import (
    File,
    as_file,
    check_backbone,
    check_bool,
    check_str,
    name_of,
    read_files,
    read_path,
    read_photo,
    reason_of,
)
from ..base import RESOLUTION
from . import draw
from .draw import Reference
from .references import DEFAULT_NAME, MOST_TARGETS, fit, from_box, from_points

if TYPE_CHECKING:
    from ...io.images import Photo
    from ...web.services import Services
    from .reference import ReferenceSegmenter

MOST_REFERENCES = 8


def functions(services: "Services") -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (SegmentationApi(services).segment,)


@dataclass(frozen=True)
class SegmentationApi:
    """The API of this task; its docstrings are what callers read."""

    services: "Services"

    def segment(
        self,
        references: list[File],
        masks: list[File] | None = None,
        photos: list[File] | None = None,
        negatives: list[File] | None = None,
        threshold: float = draw.THRESHOLD.default,
        presence: float = draw.PRESENCE.default,
        label: str = "",
        invert: bool = False,
        backbone: str = "",
        resolution: int = RESOLUTION.default,
        target: str = draw.TARGET.default,
        boxes: list[list[float]] | None = None,
        points: list[list[list[float]]] | None = None,
        grow: bool = False,
    ) -> tuple[list[File], File, dict]:
        """Find on photos what is marked on reference photos. Returns masks (.png), their facts (.json), the facts.

        Each photo is "found", "unsure" (its mask is empty) or "not here", with its match ("presence", 0 to 1) and the
        count of objects. Photos that cannot be read are named in the facts, and the others go on.

        Parameters:
            references: 1 to 8 photos of the object
            masks: one for each reference: a picture that is white, coloured or opaque on the object, class indices,
                flat colours, .npy, COCO json, YOLO, labelme, CVAT xml or Label Studio json
            photos: 1 to 50 photos to search
            negatives: up to 8 photos without the object; they set the bound of the match
            threshold: 0 to 1; higher means smaller masks
            presence: 0 to 1; photos that match less get an empty mask, 0 always paints
            label: which label of the masks is the object, several with commas; needed where a mask holds several
            invert: take what the masks do not cover
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
            target: "object" finds this very object, "kind" also others of its kind
            boxes: instead of masks, [x0, y0, x1, y1] in pixels around the object, one for each reference
            points: instead of masks, [[x, y], ...] in pixels on the object, one list for each reference
            grow: the masks are scribbles, to be grown to the object
        """
        name, side = check_backbone(self.services, backbone, resolution)
        draw.TARGET.check(target)
        look = draw.Look(
            draw.THRESHOLD.check(threshold), draw.OPACITY.default, draw.VIEW.default, draw.PRESENCE.check(presence)
        )
        files = read_files(photos, "photos", MOST_TARGETS, least=1)
        wanted, messages = _wanted(references, masks, boxes, points, label, invert, grow)
        absent = [read_photo(f, f"negative {i}") for i, f in _numbered(negatives, "negatives")]
        segmenter = fit(self.services, wanted, [], name, side, target, absent)
        return _search(segmenter, files, look, messages)


def _wanted(
    references: list[File],
    masks: list[File] | None,
    boxes: list | None,
    points: list | None,
    label: str,
    invert: bool,
    grow: bool,
) -> tuple[list[Reference], list[str]]:
    """Read the references with their masks, boxes or points; returns them and what should be said of the masks."""
    given = read_files(references, "references", MOST_REFERENCES, least=1)
    readers = [partial(read_photo, file, f"reference {i}") for i, file in enumerate(given, start=1)]
    if sum(bool(one) for one in (masks, boxes, points)) > 1:
        raise ValueError("give masks, boxes or points, one of the three")
    if not (boxes or points):
        return _masked(readers, masks or [], label, invert, grow)
    make = from_box if boxes else from_points
    marks = _marks(boxes or points, len(given))
    return [make(read(), mark) for read, mark in zip(readers, marks, strict=True)], []


def _search(
    segmenter: "ReferenceSegmenter", files: list[File], look: draw.Look, messages: list[str]
) -> tuple[list[File], File, dict]:
    """Go through the photos; photos that cannot be read are named."""
    words = made_with_name(segmenter.backbone_, segmenter.identity_)
    pictures: list[File] = []
    results: list[dict] = []
    left_out: list[dict] = []
    for i, file in enumerate(files, start=1):
        try:
            path = read_path(file, f"photo {i}")
            photo = load_photo(path, name_of(file, path))
            small = shrink(photo)
            result = draw.Result(small, "", photo.size, segmenter.predict(small))
        except ValueError as error:
            left_out.append({"photo": i, "reason": reason_of(error)})
            continue
        mask, facts = draw.full_mask(result, look)
        results.append({"photo": i, "name": photo.name, **facts})
        pictures.append(as_file((f"{i:02d}-{stem(photo.name)}-mask.png", png_bytes(np.uint8(255) * mask, words))))
    summary = {
        "backbone": segmenter.backbone_,
        "made_with": words,
        "photos": results,
        "left_out": left_out,
        "messages": messages,
    }
    return pictures, as_file(("masks.json", json.dumps(summary).encode())), summary


def _masked(
    readers: Sequence[Callable[[], "Photo"]], masks: list[File], label: str, invert: bool, grow: bool
) -> tuple[list[Reference], list[str]]:
    """Read references and masks; returns them and what should be said of the masks."""
    from .masks import open_mask_file, split_labels

    drawn = read_files(masks, "masks", MOST_REFERENCES)
    if len(readers) != len(drawn):
        raise ValueError(f"each reference needs its mask; there are {len(readers)} references and {len(drawn)} masks")
    check_bool(grow, "grow")
    found, messages = [], []
    for i, (read, mask) in enumerate(zip(readers, drawn, strict=True), start=1):
        given = read()
        path = read_path(mask, f"mask {i}")
        wanted = split_labels(check_str(label, "label"))
        file = open_mask_file(path, given, name_of(mask, path))
        this = file.choose(wanted, check_bool(invert, "invert"))
        messages += [message for message in [file.message(this)] if message]
        found.append(Reference(given, this, np.zeros_like(this), DEFAULT_NAME, exact=not grow))
    return found, messages


def _marks(values: object, count: int) -> list:
    if not isinstance(values, list | tuple) or len(values) != count:
        got = len(values) if isinstance(values, list | tuple) else values
        raise ValueError(f"each reference needs its box or points; there are {count} references and {got}")
    if not all(isinstance(one, list | tuple) for one in values):
        raise ValueError(f"boxes and points are lists of numbers, got {values!r}"[:200])
    return list(values)


def _numbered(files: list[File] | None, what: str) -> list[tuple[int, File]]:
    return list(enumerate(read_files(files, what, MOST_REFERENCES), start=1))
