"""`dinodemo depth`: depth of single photos, for folders and scripts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...commands import Made, add_command, add_photos, number, open_batch, open_engine
from ..base import COLOUR_MAP

if TYPE_CHECKING:
    from ...engine import Engine
    from ...io.images import Photo
    from .draw import Look, View
    from .probe import DepthProbe

COLOURS, MILLIMETRES, NUMBERS = "depth.png", "depth-mm.png", "depth.npy"


def add_commands(commands) -> None:
    """Add the command to the parser's."""
    from .draw import FLIP

    parser = add_command(
        commands,
        "depth",
        _depth,
        "estimate depth from single photos",
        [
            "photos --out depth",
            "room.jpg --out depth --near 0.5 --far 8 --npy --json",
        ],
    )
    add_photos(parser, "folder of the depth: 16-bit .png in millimetres (.npy if it has no unit), and colours")
    parser.add_argument(
        "--probe",
        help="a probe's .safetensors, a published head's .pth, or meta: and such a head's "
        "name (default: the one that came with the backbone)",
    )
    FLIP.add_to(parser)
    parser.add_argument("--plain", action="store_true", help="do not follow the photo's edges")
    parser.add_argument("--npy", action="store_true", help="also the numbers, (H, W) float32")
    parser.add_argument("--near", type=number(0, 1e6), help="of the colours (default: each photo's own range)")
    parser.add_argument("--far", type=number(0, 1e6), help="of the colours")
    parser.add_argument("--inverse", action="store_true", help="more colours near by")
    COLOUR_MAP.add_to(parser, "of the depth")


def _depth(args: argparse.Namespace) -> int:
    from ...engine.provenance import made_with_name
    from . import draw

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
            makers = {
                COLOURS: lambda: draw.picture_file(view, look),
                MILLIMETRES: lambda: draw.millimetre_file(view),
                NUMBERS: lambda: draw.array_file(view),
            }
            facts = {"nearest": round(float(depth.min()), 3), "farthest": round(float(depth.max()), 3)}
            return {ending: makers[ending]()[1] for ending in wanted}, facts

        batch.run(wanted, make)
        return batch.finish(engine, probe=name, unit=probe.unit_, note=probe.note_)


def _depth_look(args: argparse.Namespace, view: "View") -> "Look":
    from .draw import Look, natural_range

    near, far = natural_range(view.depth)
    near, far = near if args.near is None else args.near, far if args.far is None else args.far
    return Look(near, far, args.colour_map, args.inverse)


def _probe(asked: str | None, engine: "Engine") -> tuple[str, "DepthProbe"]:
    """Return the name of the probe that was asked for, else of the backbone's own, and the probe."""
    from .probe import DepthProbe
    from .probe_store import META_KEY, ProbeStore

    backbone = engine.backbone.name
    if asked and asked.startswith(META_KEY):
        name, probe = asked, ProbeStore.load(asked)
    elif asked:
        name = Path(asked).name
        probe = DepthProbe.from_meta(asked) if asked.lower().endswith(".pth") else DepthProbe.load(asked)
    else:
        ready = ProbeStore.ready(backbone)
        if not ready:
            raise ValueError(f"no depth probe came with {backbone}; give one with --probe, or another --backbone")
        name, probe = ready[0][1], ProbeStore.load(ready[0][1])
    if probe.backbone_ != backbone:
        raise ValueError(f"{name} was made for {probe.backbone_}, this is {backbone}; add --backbone {probe.backbone_}")
    return name, probe
