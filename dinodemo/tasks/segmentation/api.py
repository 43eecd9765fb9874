"""The API's `segment`."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...engine.provenance import made_with_name
from ...io.files import stem
from ...io.images import load_photo, shrink
from ...io.render import png_bytes
from ...web.api_values import File, made, name_of, network, read_files, read_path, read_photo, reason_of, text, truth
from ..base import RESOLUTION
from . import draw
from .draw import Reference
from .references import DEFAULT_NAME, MOST_TARGETS, fit

if TYPE_CHECKING:
    from ...web.services import Services

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
        masks: list[File],
        photos: list[File],
        negatives: list[File] | None = None,
        threshold: float = draw.THRESHOLD.default,
        presence: float = draw.PRESENCE.default,
        label: str = "",
        invert: bool = False,
        backbone: str = "",
        resolution: int = RESOLUTION.default,
    ) -> tuple[list[File], File, dict]:
        """Find on photos what masks show on reference photos. Returns masks (.png), their facts (.json), the facts.

        Photos that cannot be read are named in the facts, and the others go on.

        Parameters:
            references: 1 to 8 photos of the thing
            masks: one for each reference: a picture that is white, coloured or opaque on the object, class indices,
                flat colours, .npy, COCO json, YOLO, labelme, CVAT xml or Label Studio json
            photos: 1 to 50 photos to search
            negatives: up to 8 photos without the thing
            threshold: 0 to 1; higher means smaller masks
            presence: 0 to 1; photos whose presence is below it get an empty mask, 0 always paints
            label: which label of the masks is the object, several with commas; needed where a mask holds several
            invert: take what the masks do not cover
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
        """
        name, side = network(self.services, backbone, resolution)
        look = draw.Look(
            draw.THRESHOLD.check(threshold), draw.OPACITY.default, draw.VIEWS[0], draw.PRESENCE.check(presence)
        )
        files = read_files(photos, "photos", MOST_TARGETS, least=1)
        wanted, messages = _references(references, masks, label, invert)
        segmenter = fit(self.services, wanted, _negatives(negatives), name, side)
        words, pictures, told, left_out = made_with_name(segmenter.backbone_), [], [], []
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
            told.append({"photo": i, "name": photo.name, **facts})
            pictures.append(made((f"{i:02d}-{stem(photo.name)}-mask.png", png_bytes(np.uint8(255) * mask, words))))
        summary = {
            "backbone": segmenter.backbone_,
            "made_with": words,
            "photos": told,
            "left_out": left_out,
            "messages": messages,
        }
        return pictures, made(("masks.json", json.dumps(summary).encode())), summary


def _references(
    references: list[File], masks: list[File], label: str, invert: bool
) -> tuple[list[Reference], list[str]]:
    """Read references and masks; returns them and what should be said of the masks."""
    from .masks import open_mask_file, split_labels

    photos = read_files(references, "references", MOST_REFERENCES, least=1)
    drawn = read_files(masks, "masks", MOST_REFERENCES)
    if len(photos) != len(drawn):
        raise ValueError(f"each reference needs its mask; there are {len(photos)} references and {len(drawn)} masks")
    found, messages = [], []
    for i, (photo, mask) in enumerate(zip(photos, drawn, strict=True), start=1):
        given = read_photo(photo, f"reference {i}")
        path = read_path(mask, f"mask {i}")
        wanted = split_labels(text(label, "label"))
        file = open_mask_file(path, given, name_of(mask, path))
        this = file.choose(wanted, truth(invert, "invert"))
        messages += [message for message in [file.message(this)] if message]
        found.append(Reference(given, this, np.zeros_like(this), DEFAULT_NAME))
    return found, messages


def _negatives(files: list[File] | None) -> list[Reference]:
    given = [
        read_photo(file, f"negative {i}")
        for i, file in enumerate(read_files(files, "negatives", MOST_REFERENCES), start=1)
    ]
    return [Reference(photo, np.ones(photo.size, bool), np.zeros(photo.size, bool), DEFAULT_NAME) for photo in given]
