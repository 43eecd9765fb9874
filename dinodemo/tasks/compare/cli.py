"""`dinodemo compare`: the parts of two photos that agree, for scripts."""

import argparse
from pathlib import Path

from ...commands import add_command, add_resolution, open_engine, report, save


def add_commands(commands) -> None:
    """Add the command to the parser's."""
    from .draw import COUNT, LEAST, MODEL

    parser = add_command(
        commands,
        "compare",
        _compare,
        "find the parts of two photos that agree",
        [
            "cup.jpg table.jpg --out matches",
            "cup.jpg table.jpg --out matches --least 0.6 --model affine --json",
        ],
        former=["match"],
    )
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--out", required=True, type=Path, help="folder of the drawing and the table")
    add_resolution(parser)
    COUNT.changed(high=10_000).add_to(parser)
    LEAST.add_to(parser)
    MODEL.add_to(parser)
    parser.add_argument("--keep-position", "--keep-place", action="store_true", help="let where a patch lies count too")


def _compare(args: argparse.Namespace) -> int:
    from ...io.images import load_photo
    from ..tokens import positional_basis_of
    from . import draw

    photos = (load_photo(args.first), load_photo(args.second))
    engine = open_engine(args)
    first, second = (engine.features(photo, args.resolution) for photo in photos)
    basis = None if args.keep_position else positional_basis_of(engine, args.resolution)
    pair = draw.Pair(photos, (first, second), basis, ())
    look = draw.Look(args.count, args.least, args.model)
    made = []
    for name, content in (draw.lines_file(pair, look), draw.table_file(pair, look)):
        path = args.out / name
        if args.overwrite or not path.exists():
            save(path, content)
            made.append(str(path))
    kept = len(draw.chosen(pair, look))
    cosine = draw.similarity(first, second)
    facts = {"files": made, "cls_cosine": round(cosine, 5), "mutual": len(pair.matches), "chosen": kept}
    files = f"written: {', '.join(made)}" if made else "the files are there already"
    message = f"cosine of CLS {cosine:.3f}, {kept} of {len(pair.matches)} mutual pairs chosen; {files}"
    return report(args, engine, facts, message)
