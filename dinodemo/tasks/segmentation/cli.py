"""`dinodemo segment`: find on photos what a mask shows on another, for folders and scripts."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...commands import Made, add_command, add_photos, open_batch, open_engine

if TYPE_CHECKING:
    import numpy as np

    from ...engine import Engine
    from ...io.images import Photo
    from .reference import ReferenceSegmenter

MASK, TOLD, OVERLAY = "mask.png", "mask.json", "mask-overlay.png"


def add_commands(commands) -> None:
    """Add the command to the parser's."""
    from .draw import PRESENCE, THRESHOLD

    parser = add_command(
        commands,
        "segment",
        _segment,
        "find on photos what a mask shows on another",
        [
            "photos --reference cup.jpg --mask cup_mask.png --out masks",
            "photos --reference cup.jpg --mask cup_mask.png --negative table.jpg --overlay --out masks --json",
        ],
    )
    add_photos(parser, "folder of the masks, each with a .json of presence, area and boxes")
    parser.add_argument(
        "--reference",
        action="append",
        required=True,
        metavar="PHOTO",
        help="a photo of the thing; may be given several times, each with its --mask",
    )
    parser.add_argument(
        "--mask",
        action="append",
        required=True,
        help="of the reference: a picture (white, coloured or opaque on the object, class indices, flat colours), "
        ".npy, COCO json, YOLO txt, labelme json, CVAT xml or Label Studio json",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        help="which label of the masks is the object; may be given several times; needed where a mask holds several",
    )
    parser.add_argument("--invert-mask", action="store_true", help="take what the masks do not cover")
    parser.add_argument("--negative", action="append", default=[], metavar="PHOTO", help="a photo without the thing")
    parser.add_argument(
        "--negative-mask",
        action="append",
        default=[],
        metavar="MASK",
        help='only this part of the negative is "not this"; for each of them or for none',
    )
    THRESHOLD.add_to(parser)
    PRESENCE.add_to(parser)
    parser.add_argument("--overlay", action="store_true", help="also the mask laid over the photo")


def _segment(args: argparse.Namespace) -> int:
    from ...engine.provenance import made_with_name
    from ...io.images import shrink
    from ...io.render import png_bytes
    from . import draw

    look = draw.Look(args.threshold, draw.OPACITY.default, draw.VIEWS[0], args.presence)
    with open_batch(args) as batch:
        references, negatives = _references(args)
        engine = open_engine(args)
        segmenter = _fit(engine, args.resolution, references, negatives)

        def make(photo: "Photo") -> Made:
            small = shrink(photo)
            result = draw.Result(small, "", photo.size, segmenter.predict(small))
            mask, facts = draw.full_mask(result, look)
            words = made_with_name(engine.backbone.name)
            files = {MASK: png_bytes(mask.astype("uint8") * 255, words), TOLD: json.dumps(facts).encode()}
            if args.overlay:
                files[OVERLAY] = png_bytes(draw.paint_mask(photo.rgb, mask, look.opacity), words)
            return files, facts

        batch.run([MASK, TOLD, *([OVERLAY] if args.overlay else [])], make)
        found = sum(bool(photo["area"]) for photo in batch.made)
        return batch.finish(engine, found=found, threshold=look.threshold, least_presence=look.min_presence)


def _references(args: argparse.Namespace) -> tuple[list[tuple], list]:
    """Read the references and negatives: [(photo, mask), ...], [(photo, mask) or photo, ...]."""
    from ...io.images import load_photo

    if len(args.reference) != len(args.mask):
        raise ValueError(f"each --reference needs its --mask; there are {len(args.reference)} and {len(args.mask)}")
    if args.negative_mask and len(args.negative) != len(args.negative_mask):
        raise ValueError(
            "give a --negative-mask for each --negative or for none; there are "
            f"{len(args.negative_mask)} and {len(args.negative)}"
        )
    photos = [load_photo(path) for path in args.reference]
    references = [(p, _mask(path, p, args.label, args.invert_mask)) for p, path in zip(photos, args.mask, strict=True)]
    negatives: list = [load_photo(path) for path in args.negative]
    if args.negative_mask:
        negatives = [(p, _mask(m, p, (), False)) for p, m in zip(negatives, args.negative_mask, strict=True)]
    return references, negatives


def _mask(path: str, photo: "Photo", labels: Sequence[str], invert: bool) -> "np.ndarray":
    """Read a mask and say on stderr what might have been meant otherwise; raises ValueError that names the option."""
    from .masks import open_mask_file

    file = open_mask_file(path, photo)
    if len(file.labels) > 1 and not labels:
        names = " ".join(f"--label {label.name}" for label in file.labels[:2])
        raise ValueError(f"{file.name} holds {len(file.labels)} labels: {file.describe()}; choose, for example {names}")
    mask = file.choose(labels, invert)
    if message := file.message(mask):
        print(f"{message} (--invert-mask)" if "invert" in message else message, file=sys.stderr)
    return mask


def _fit(engine: "Engine", resolution: int, references: list, negatives: list) -> "ReferenceSegmenter":
    from .reference import ReferenceSegmenter

    return ReferenceSegmenter(engine, resolution).fit(references, negatives=negatives)
