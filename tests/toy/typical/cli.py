"""The command, for folders and scripts."""

import argparse

from dinodemo.commands import add_command, add_photos, open_batch, open_engine


def add_commands(commands) -> None:
    """Add the command to the parser's."""
    parser = add_command(
        commands,
        "typical",
        _typical,
        "draw how much each patch is like the photo as a whole",
        [
            "photos --out maps",
        ],
    )
    add_photos(parser, "folder of the pictures")
    parser.add_argument("--squares", action="store_true", help="one square a patch instead of a smooth map")


def _typical(args: argparse.Namespace) -> int:
    from . import draw

    with open_batch(args) as batch:
        engine = open_engine(args)

        def make(photo):
            f = engine.features(photo, args.resolution)
            return {"typical.png": draw.picture_file(photo, f, not args.squares)[1]}, {"grid": list(f.grid)}

        batch.run(["typical.png"], make)
        return batch.finish(engine)
