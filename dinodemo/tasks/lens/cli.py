"""`dinodemo lens`: the lens on some photos as one HTML file."""

import argparse

from ...commands import add_command, add_photos, open_batch, open_engine, read_ahead, report, save


def add_commands(commands) -> None:
    """Add the command to the parser's."""
    parser = add_command(
        commands,
        "lens",
        _lens,
        "make one HTML file in which patches are compared under the pointer",
        ["cat.jpg dog.jpg --out lens.html", "photos --out lens.html --keep-position"],
    )
    add_photos(parser, "the .html file")
    parser.add_argument(
        "--keep-position", action="store_true", help="let patches in the same place look alike, as raw tokens do"
    )


def _lens(args: argparse.Namespace) -> int:
    from ...engine.provenance import made_with
    from ...io.images import shrink
    from ..tokens import positional_basis_of
    from .packing import MOST_PHOTOS, pack
    from .standalone import page

    if args.out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out must name an .html file, got {args.out}")
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} is there already; add --overwrite to write it again")
    with open_batch(args) as batch:
        if len(batch.targets) > MOST_PHOTOS:
            raise ValueError(f"the lens shows up to {MOST_PHOTOS} photos, got {len(batch.targets)}")
        engine, photos, left_out = open_engine(args), [], batch.left_out
        for target, photo in read_ahead(batch.targets, lambda target: target.read()):
            if isinstance(photo, Exception):
                left_out.append((target.item.path, str(photo)))
            else:
                photos.append(shrink(photo))
        if not photos:
            raise ValueError(f"none of the photos can be read: {left_out[0][0]}: {left_out[0][1]}")
        features = [engine.features(photo, args.resolution) for photo in photos]
        basis = None if args.keep_position else positional_basis_of(engine, args.resolution)
        packed = pack(features, basis)
        text = page(photos, packed, ", ".join(photo.name for photo in photos), made_with(features[0]))
        save(args.out, text.encode())
        summary = {"photos": [photo.name for photo in photos], "file": str(args.out), "error": round(packed.error, 5)}
        return report(args, engine, summary, f"{len(photos)} photos in {args.out}", left_out)
