"""`dinodemo depth`: depth of single photos, for folders and scripts; `dinodemo depth-train`: a probe from pairs."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ...commands import Made, add_command, add_photos, add_resolution, into, open_batch, open_engine, report
from ..base import COLOUR_MAP
from .options import (
    EPOCHS,
    FAR,
    FLIP,
    FOV,
    INVERSE,
    INVERSE_COLOURS,
    KIND,
    METRES,
    MOST_DEPTH,
    NEAR,
    RELATIVE,
    SPACE,
    UNIT,
)
from .units import NO_UNIT

if TYPE_CHECKING:
    from ...engine import Engine
    from ...io.images import Photo
    from .draw import Look, View
    from .probe import DepthProbe

COLOURS, MILLIMETRES, NUMBERS, FACTS = "depth.png", "depth-mm.png", "depth.npy", "depth.json"
SPACES = {"none": [], "points": ["depth.ply"], "mesh": ["depth.glb"]}


def add_commands(commands) -> None:
    """Add the commands to the parser's."""
    _add_training(commands)
    parser = add_command(
        commands,
        "depth",
        _depth,
        "estimate depth from single photos",
        [
            "photos --out depth",
            "room.jpg --out depth --near 0.5 --far 8 --npy --json",
            "room.jpg --out depth --space mesh --fov 67",
        ],
    )
    add_photos(parser, "folder of the depth: 16-bit .png in millimetres (.npy if it has no unit), colours, facts")
    parser.add_argument(
        "--probe",
        help="a probe's .safetensors, a published head's .pth, or meta: and such a head's "
        "name (default: the one that came with the backbone)",
    )
    FLIP.add_to(parser)
    METRES.add_to(parser)
    parser.add_argument("--plain", action="store_true", help="do not follow the photo's edges")
    parser.add_argument("--npy", action="store_true", help="also the numbers, (H, W) float32")
    for end in (NEAR, FAR):
        parser.add_argument(f"--{end.name}", type=end.changed(high=MOST_DEPTH).parse, help=end.help)
    INVERSE_COLOURS.add_to(parser)
    COLOUR_MAP.add_to(parser, "of the depth")
    SPACE.add_to(parser)
    parser.add_argument(f"--{FOV.name}", type=FOV.parse, help=FOV.help)


def _add_training(commands) -> None:
    parser = add_command(
        commands,
        "depth-train",
        _depth_train,
        "train a depth probe on photos with depth maps",
        [
            "pairs.zip --out room.safetensors",
            "kitti --unit kitti --check",
            "set --unit none --inverse --out near_far.safetensors",
        ],
    )
    parser.add_argument("pairs", help="folder or zip: rgb/x.jpg with depth/x.png, or a csv of pairs")
    parser.add_argument("--out", type=Path, help="the probe's file (.safetensors)")
    parser.add_argument("--check", action="store_true", help="only say how the files are paired and read")
    parser.add_argument("--unit", default=UNIT.default, help=f"{UNIT.help} (default: %(default)s)")
    parser.add_argument("--inverse", action=argparse.BooleanOptionalAction, default=None, help=INVERSE.help)
    RELATIVE.add_to(parser)
    KIND.add_to(parser)
    EPOCHS.add_to(parser)
    add_resolution(parser)


def _depth_train(args: argparse.Namespace) -> int:
    from .pairs import read_pairs
    from .survey import summary

    if args.out is None and not args.check:
        raise ValueError("say where the probe goes with --out, or only look at the files with --check")
    if args.out is not None and args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} is there already; add --overwrite or choose another name")
    unit = NO_UNIT if args.relative and args.unit == UNIT.default else args.unit
    pairs, problems = read_pairs(args.pairs, unit=unit, inverse=args.inverse)
    found = summary(pairs)
    if not args.json:
        _print_survey(found)
    if args.check:
        if args.json:
            print(json.dumps({"command": args.command, **found, "left_out": [list(one) for one in problems]}))
        for file, reason in problems:
            print(f"left out: {file}: {reason}", file=sys.stderr)
        return 0
    return _train(args, pairs, problems, found)


def _print_survey(found: dict) -> None:
    unit = "m" if found["unit"] == "metres" else "(no unit)"
    for text in found["warnings"]:
        print(f"warning: {text}", file=sys.stderr)
    print(
        f"{found['pairs']} pairs, median depth {found['median']:.2f} {unit}, {found['near']:.2f} to {found['far']:.2f}"
    )
    for text in found["messages"]:
        print(text)
    most = max(share for _, share in found["histogram"])
    for depth, share in found["histogram"]:
        print(f"{depth:10.2f} {'#' * round(40 * share / most)}")
    for row in found["pairing"][:8]:
        print(f"{row['photo']} + {row['depth']} ({row['by']})")


def _train(args: argparse.Namespace, pairs, problems, found: dict) -> int:
    from .probe import DepthProbe

    engine = open_engine(args)
    relative = args.relative or pairs.info.unit == "relative"
    probe = DepthProbe(args.kind, args.epochs, args.resolution, relative=relative, engine=engine)
    groups = [pair.group for pair in pairs]
    from tqdm import tqdm

    with tqdm(unit="step", disable=not sys.stderr.isatty()) as bar:
        step = into(bar)
        probe.fit(
            pairs,
            groups=groups if len(set(groups)) > 1 else None,
            progress=lambda done, total, message: step(done, total),
            data=f"{len(pairs)} pairs of {Path(args.pairs).name}",
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    probe.save(args.out)
    summary = {"probe": str(args.out), "metrics": probe.metrics_, "note": probe.note_, "read": found}
    return report(args, engine, summary, f"{probe.note_}\n{args.out}", problems)


def _depth(args: argparse.Namespace) -> int:
    from ...engine.provenance import made_with_name
    from . import draw
    from .camera import field_of_view
    from .card import check_engine

    space = SPACES[args.space]
    if args.fov is not None and not space:
        raise ValueError("--fov is of the picture in space; add --space points or --space mesh")
    if args.near is not None and args.far is not None and args.near >= args.far:
        raise ValueError(f"--near must be below --far, got {args.near:g} and {args.far:g}")
    with open_batch(args) as batch:
        engine = open_engine(args)
        name, probe = _probe(args.probe, engine)
        doubt = check_engine(probe, engine)
        if doubt:
            print(doubt, file=sys.stderr)
        words = made_with_name(engine.backbone.name, engine.identity)

        def make(photo: "Photo") -> Made:
            found = probe.estimate(
                engine, photo, flip=args.flip, guided=not args.plain, resolution=args.resolution, metres=args.metres
            )
            view = draw.View(
                photo, found.depth, found.unit, name, probe.note_, words, (), None, found.inside, found.message
            )
            look = _depth_look(args, view)
            fov = field_of_view(photo) if args.fov is None else args.fov
            makers = {
                COLOURS: lambda: draw.picture_file(view, look),
                MILLIMETRES: lambda: draw.millimetre_file(view),
                NUMBERS: lambda: draw.array_file(view),
                FACTS: lambda: draw.facts_file(view, fov if space else None),
                **{ending: lambda: draw.space_file(view, fov, args.space) for ending in space},
            }
            in_metres = found.unit == "metres"
            wanted = [COLOURS, MILLIMETRES if in_metres else NUMBERS, FACTS]
            wanted += [NUMBERS] if in_metres and args.npy else []
            wanted += space
            facts = {
                "unit": found.unit,
                "inside": found.inside,
                "nearest": round(float(found.depth.min()), 3),
                "farthest": round(float(found.depth.max()), 3),
            }
            return {ending: makers[ending]()[1] for ending in wanted}, facts

        batch.run([COLOURS, FACTS, *([NUMBERS] if args.npy else []), *space], make)
        return batch.finish(engine, probe=name, unit=probe.unit_, note=probe.note_)


def _depth_look(args: argparse.Namespace, view: "View") -> "Look":
    from .draw import Look, natural_range

    near, far = natural_range(view.depth)
    near, far = near if args.near is None else args.near, far if args.far is None else args.far
    return Look(near, far, args.colour_map, args.inverse)


def _probe(asked: str | None, engine: "Engine") -> tuple[str, "DepthProbe"]:
    """Return name and probe: what was asked for, else the one that came with the backbone."""
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
