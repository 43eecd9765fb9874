"""`dinodemo segment`: find on photos what a mask shows on another, for folders and scripts."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...commands import Batch, Made, add_command, add_photos, open_batch, open_engine, save

if TYPE_CHECKING:
    import numpy as np

    from ...engine import Engine
    from ...io.images import Photo
    from .draw import Reference
    from .reference import ReferenceSegmenter

MASK, FACTS, OVERLAY = "mask.png", "mask.json", "mask-overlay.png"


def add_commands(commands) -> None:
    """Add the command to the parser's."""
    from .draw import COUNT, PRESENCE, TARGET, THRESHOLD

    parser = add_command(
        commands,
        "segment",
        _segment,
        "find on photos what a mask, a box or a click marks on another",
        [
            "photos --reference cup.jpg --mask cup_mask.png --out masks",
            "photos --reference cup.jpg --mask cup_mask.png --negative table.jpg --overlay --out masks --json",
            "photos --reference cup.jpg --box 10,10,60,50 --count --out counted",
        ],
    )
    add_photos(parser, "folder of the masks, each with a .json of state, match, area, count and boxes")
    _add_references(parser)
    THRESHOLD.add_to(parser)
    PRESENCE.add_to(parser)
    TARGET.add_to(parser)
    COUNT.add_to(parser, "also counts.csv: how many objects are on each photo")
    parser.add_argument("--overlay", action="store_true", help="also the mask laid over the photo")


def _add_references(parser: argparse.ArgumentParser) -> None:
    """Add what says which object is meant, and what is not."""
    parser.add_argument(
        "--reference",
        action="append",
        required=True,
        metavar="PHOTO",
        help="a photo of the object; may be given several times, each with its --mask, --box or --point",
    )
    parser.add_argument(
        "--mask",
        action="append",
        default=[],
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
    parser.add_argument("--grow", action="store_true", help="the masks are scribbles, to be grown to the object")
    parser.add_argument(
        "--box", action="append", default=[], metavar="X0,Y0,X1,Y1", help="instead of a mask: pixels around the object"
    )
    parser.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="X,Y",
        help="instead of a mask: a pixel on the object; several for one reference with semicolons",
    )
    parser.add_argument(
        "--negative",
        action="append",
        default=[],
        metavar="PHOTO",
        help="a photo without the object; it sets the bound of the match for this reference",
    )
    parser.add_argument(
        "--negative-mask",
        action="append",
        default=[],
        metavar="MASK",
        help='only this part of the negative is "not this"; for each of them or for none',
    )


def _segment(args: argparse.Namespace) -> int:
    from ...engine.provenance import made_with_name
    from ...io.images import shrink
    from ...io.render import png_bytes
    from . import draw

    look = draw.Look(args.threshold, draw.OPACITY.default, draw.VIEW.default, args.presence)
    with open_batch(args) as batch:
        references, negatives = _references(args)
        engine = open_engine(args)
        segmenter = _fit(engine, args, references, negatives)

        def make(photo: "Photo") -> Made:
            small = shrink(photo)
            result = draw.Result(small, "", photo.size, segmenter.predict(small))
            mask, facts = draw.full_mask(result, look)
            words = made_with_name(engine.backbone.name, engine.identity)
            files = {MASK: png_bytes(mask.astype("uint8") * 255, words), FACTS: json.dumps(facts).encode()}
            if args.overlay:
                files[OVERLAY] = png_bytes(draw.paint_mask(photo.rgb, mask, look.opacity), words)
            return files, facts

        batch.run([MASK, FACTS, *([OVERLAY] if args.overlay else [])], make)
        found = sum(bool(photo["area"]) for photo in batch.made)
        if args.count:
            _save_counts(batch)
        return batch.finish(engine, found=found, threshold=look.threshold, least_presence=look.min_presence)


def _save_counts(batch: Batch) -> None:
    """Write counts.csv for all photos, those that were done before too."""
    from .draw import count_table

    rows = []
    for target in batch.targets:
        path = batch.path(target, FACTS)
        if path.is_file():
            facts = json.loads(path.read_text(encoding="utf-8"))
            if {"state", "presence", "count"} <= facts.keys():  # not of version 0.1
                rows.append({"photo": target.item.path, **facts})
    save(batch.args.out / "counts.csv", count_table(rows))


def _references(args: argparse.Namespace) -> tuple[list["Reference"], list]:
    """Read the references and negatives: references, [(photo, mask) or photo, ...]."""
    from ...io.images import load_photo
    from .references import from_box, from_points

    given = {name: values for name in ("mask", "box", "point") if (values := getattr(args, name))}
    if len(given) > 1:
        raise ValueError(
            f"give --mask, --box or --point, one of the three; there are {', '.join(f'--{n}' for n in given)}"
        )
    name, marks = next(iter(given.items()), ("mask", []))
    if len(args.reference) != len(marks):
        raise ValueError(
            f"each --reference needs its --mask, --box or --point; there are {len(args.reference)} and {len(marks)}"
        )
    if args.negative_mask and len(args.negative) != len(args.negative_mask):
        raise ValueError(
            "give a --negative-mask for each --negative or for none; there are "
            f"{len(args.negative_mask)} and {len(args.negative)}"
        )
    pairs = list(zip([load_photo(path) for path in args.reference], marks, strict=True))
    if name == "box":
        references = [from_box(photo, _numbers(mark)) for photo, mark in pairs]
    elif name == "point":
        references = [from_points(photo, [_numbers(part) for part in mark.split(";")]) for photo, mark in pairs]
    else:
        references = [_masked(photo, mark, args) for photo, mark in pairs]
    negatives: list = [load_photo(path) for path in args.negative]
    if args.negative_mask:
        negatives = [(p, _mask(m, p, (), False)) for p, m in zip(negatives, args.negative_mask, strict=True)]
    return references, negatives


def _masked(photo: "Photo", path: str, args: argparse.Namespace) -> "Reference":
    from .draw import Reference

    mask = _mask(path, photo, args.label, args.invert_mask)
    return Reference(photo, mask, mask & False, exact=not args.grow)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"numbers with commas were expected, got {text!r}") from error


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


def _fit(
    engine: "Engine", args: argparse.Namespace, references: list["Reference"], negatives: list
) -> "ReferenceSegmenter":
    from .reference import ReferenceSegmenter
    from .references import grown

    segmenter = ReferenceSegmenter(engine, args.resolution, target=args.target)
    pairs = [(r.photo, r.this) for r in (grown(segmenter, reference) for reference in references)]
    return segmenter.fit(pairs, negatives=negatives)
