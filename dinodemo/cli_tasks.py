"""`dinodemo segment` and `depth`: these tabs' functions for folders and scripts."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_files import Made, add_command, add_photos, number, open_batch, open_engine

if TYPE_CHECKING:
    from .engine import Engine
    from .images import Photo
    from .tasks.depth import DepthProbe
    from .tasks.segmentation import ReferenceSegmenter
    from .ui.depth_view import Look, View

MASK, TOLD, OVERLAY = "mask.png", "mask.json", "mask-overlay.png"
COLOURS, MILLIMETRES, NUMBERS = "depth.png", "depth-mm.png", "depth.npy"


def add_commands(commands) -> None:
    """Add both commands to the parser's."""
    _add_segment(commands)
    _add_depth(commands)


def _add_segment(commands) -> None:
    parser = add_command(commands, "segment", _segment, "find on photos what a mask shows on another", [
        "photos --reference cup.jpg --mask cup_mask.png --out masks",
        "photos --reference cup.jpg --mask cup_mask.png --negative table.jpg --overlay --out masks --json",
    ])  # fmt: skip
    add_photos(parser, "folder of the masks, each with a .json of presence, area and boxes")
    parser.add_argument("--reference", action="append", required=True, metavar="PHOTO",
                        help="a photo of the thing; may be given several times, each with its --mask")  # fmt: skip
    parser.add_argument("--mask", action="append", required=True,
                        help="of the reference: white, coloured or opaque where the thing is")  # fmt: skip
    parser.add_argument("--negative", action="append", default=[], metavar="PHOTO", help="a photo without the thing")
    parser.add_argument("--negative-mask", action="append", default=[], metavar="MASK",
                        help='only this part of the negative is "not this"; for each of them or for none')  # fmt: skip
    parser.add_argument("--threshold", type=number(0, 1), help="higher: smaller masks (default: as in the app)")
    parser.add_argument("--presence", type=number(0, 1),
                        help="photos below it get empty masks; 0 always paints (default: as in the app)")  # fmt: skip
    parser.add_argument("--overlay", action="store_true", help="also the mask laid over the photo")


def _add_depth(commands) -> None:
    parser = add_command(commands, "depth", _depth, "estimate depth from single photos", [
        "photos --out depth",
        "room.jpg --out depth --near 0.5 --far 8 --npy --json",
    ])  # fmt: skip
    add_photos(parser, "folder of the depth: 16-bit .png in millimetres (.npy if it has no unit), and colours")
    parser.add_argument("--probe", help="a probe's .safetensors, a published head's .pth, or meta: and such a head's "
                        "name (default: the one that came with the backbone)")  # fmt: skip
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")
    parser.add_argument("--plain", action="store_true", help="do not follow the photo's edges")
    parser.add_argument("--npy", action="store_true", help="also the numbers, (H, W) float32")
    parser.add_argument("--near", type=number(0, 1e6), help="of the colours (default: each photo's own range)")
    parser.add_argument("--far", type=number(0, 1e6), help="of the colours")
    parser.add_argument("--inverse", action="store_true", help="more colours near by")
    from .render import COLOUR_MAPS

    parser.add_argument("--colour-map", choices=list(COLOUR_MAPS), default="inferno", help="default: %(default)s")


def _segment(args: argparse.Namespace) -> int:
    from .render import png_bytes
    from .tasks.segmentation import DEFAULT_THRESHOLD, MIN_PRESENCE
    from .ui import segmentation_view as draw
    from .ui.services import made_with_name, shrink

    look = draw.Look(DEFAULT_THRESHOLD if args.threshold is None else args.threshold, 0.5, draw.VIEWS[0],
                     MIN_PRESENCE if args.presence is None else args.presence)  # fmt: skip
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
    from .images import load_photo
    from .tasks.segmentation.masks import read_mask_file

    if len(args.reference) != len(args.mask):
        raise ValueError(f"each --reference needs its --mask; there are {len(args.reference)} and {len(args.mask)}")
    if args.negative_mask and len(args.negative) != len(args.negative_mask):
        raise ValueError("give a --negative-mask for each --negative or for none; there are "
                         f"{len(args.negative_mask)} and {len(args.negative)}")  # fmt: skip
    photos = [load_photo(path) for path in args.reference]
    references = [(p, read_mask_file(path, p)) for p, path in zip(photos, args.mask, strict=True)]
    negatives = [load_photo(path) for path in args.negative]
    if args.negative_mask:
        negatives = [(p, read_mask_file(m, p)) for p, m in zip(negatives, args.negative_mask, strict=True)]
    return references, negatives


def _fit(engine: "Engine", resolution: int, references: list, negatives: list) -> "ReferenceSegmenter":
    from .tasks.segmentation import ReferenceSegmenter

    return ReferenceSegmenter(engine, resolution).fit(references, negatives=negatives)


def _depth(args: argparse.Namespace) -> int:
    from .ui import depth_view as draw
    from .ui.services import made_with_name

    if args.near is not None and args.far is not None and args.near >= args.far:
        raise ValueError(f"--near must be below --far, got {args.near:g} and {args.far:g}")
    with open_batch(args) as batch:
        engine = open_engine(args)
        name, probe = _probe(args.probe, engine)
        unitless = [NUMBERS] if args.npy or probe.unit_ != "metres" else []
        wanted = [COLOURS, *([MILLIMETRES] if probe.unit_ == "metres" else []), *unitless]

        def make(photo: "Photo") -> Made:
            depth = probe.predict(engine, photo, flip=args.flip, guided=not args.plain, resolution=args.resolution)
            words = made_with_name(engine.backbone.name)
            view = draw.View(photo, depth, probe.unit_, name, probe.note_, words, ())
            look = _depth_look(args, view)
            makers = {COLOURS: lambda: draw.picture_file(view, look), MILLIMETRES: lambda: draw.millimetre_file(view),
                      NUMBERS: lambda: draw.array_file(view)}  # fmt: skip
            facts = {"nearest": round(float(depth.min()), 3), "farthest": round(float(depth.max()), 3)}
            return {ending: makers[ending]()[1] for ending in wanted}, facts

        batch.run(wanted, make)
        return batch.finish(engine, probe=name, unit=probe.unit_, note=probe.note_)


def _depth_look(args: argparse.Namespace, view: "View") -> "Look":
    from .ui.depth_view import Look, natural_range

    near, far = natural_range(view.depth)
    near, far = near if args.near is None else args.near, far if args.far is None else args.far
    return Look(near, far, args.colour_map, args.inverse)


def _probe(asked: str | None, engine: "Engine") -> tuple[str, "DepthProbe"]:
    """Return the name of the probe that was asked for, else of the backbone's own, and the probe."""
    from .tasks.depth import DepthProbe
    from .ui.depth_probes import META_KEY, ProbeShelf

    backbone = engine.backbone.name
    if asked and asked.startswith(META_KEY):
        name, probe = asked, ProbeShelf(None).load(asked)
    elif asked:
        name = Path(asked).name
        probe = DepthProbe.from_meta(asked) if asked.lower().endswith(".pth") else DepthProbe.load(asked)
    else:
        ready = ProbeShelf(None).ready(backbone)
        if not ready:
            raise ValueError(f"no depth probe came with {backbone}; give one with --probe, or another --backbone")
        name, probe = ready[0][1], ProbeShelf(None).load(ready[0][1])
    if probe.backbone_ != backbone:
        raise ValueError(f"{name} was made for {probe.backbone_}, this is {backbone}; add --backbone {probe.backbone_}")
    return name, probe
