"""`dinodemo pca`: the tab's pictures, for folders and scripts."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ...commands import Batch, Made, add_command, add_photos, number, open_batch, open_engine, read_ahead, save
from ...commands import progress as show_progress

if TYPE_CHECKING:
    from ...engine import Engine
    from ...io.images import Photo
    from .basis import PatchPCA

FIT_ON = 500  # photos that a joint PCA is fitted on unless told otherwise; at 518 px each takes about 2 MB
PCA_ENDING = "pca.png"


def add_commands(commands) -> None:
    """Add the command to the parser's."""
    from .draw import BACKDROP, CHANNELS, SIDE_BY_SIDE, SMOOTH

    parser = add_command(
        commands,
        "pca",
        _pca,
        "colour patches by what they mean, jointly over all photos",
        [
            "photos --out colours",
            "photos --out colours --save basis.npz --backdrop",
            "cat.jpg --out colours --basis basis.npz --smooth",
        ],
    )
    add_photos(parser, "folder of the pictures")
    parser.add_argument("--foreground", default="auto", help="auto, off, or a threshold from 0 to 1 (default: auto)")
    parser.add_argument(
        "--components",
        type=CHANNELS[0].parse,
        nargs=3,
        default=[channel.default for channel in CHANNELS],
        metavar=("R", "G", "B"),
        help="which become red, green and blue (default: 1 2 3)",
    )
    parser.add_argument("--save", type=Path, help="keep the fitted basis in this .npz; one that is there is used")
    parser.add_argument("--basis", type=Path, help="use this saved basis, fit none")
    parser.add_argument(
        "--fit-on",
        type=number(1, 10**6, int),
        default=FIT_ON,
        metavar="N",
        help="of more photos, fit on so many spread over them (default: %(default)s)",
    )
    SMOOTH.add_to(parser, "no squares")
    BACKDROP.add_to(parser)
    SIDE_BY_SIDE.add_to(parser)
    parser.add_argument("--longest", type=number(16, 12000, int), help="pixels of a picture's longer side")


def _pca(args: argparse.Namespace) -> int:
    from ...engine.provenance import made_with
    from ...io.render import png_bytes
    from . import draw

    look = _pca_look(args)
    with open_batch(args) as batch:
        engine = open_engine(args)
        pca, fitted = _basis(args, batch, engine, look)

        def make(photo: "Photo") -> Made:
            if pca is None:
                raise ValueError("none of the photos that a PCA is fitted on can be read; raise --fit-on")
            f = engine.features(photo, args.resolution)
            view = draw.View((photo,), (f,), (f.backbone, args.resolution), "")
            ((picture, _),) = draw.draw(view, look, pca, args.longest or max(photo.size))
            share = float(pca.foreground_mask(f).mean())
            return {PCA_ENDING: png_bytes(picture, made_with(f))}, {"foreground": round(share, 4)}

        batch.run([PCA_ENDING], make)
        ratios = [] if pca is None else [round(float(ratio), 4) for ratio in pca.explained_variance_ratio_]
        return batch.finish(engine, fitted_on=fitted, explained_variance_ratio=ratios)


def _pca_look(args: argparse.Namespace):
    from .draw import THRESHOLD, Look

    if args.foreground in ("auto", "off"):
        foreground, threshold = args.foreground, THRESHOLD.default
    else:
        try:
            foreground, threshold = "manual", number(0, 1)(args.foreground)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"--foreground must be auto, off or from 0 to 1, got {args.foreground}") from error
    red, green, blue = args.components
    return Look(foreground, threshold, red, green, blue, args.smooth, args.backdrop, args.side_by_side)


def _basis(args: argparse.Namespace, batch: Batch, engine: "Engine", look) -> tuple["PatchPCA | None", int]:
    """Return the basis and on how many photos it was fitted now; None when no photo needs or allows one."""
    from . import draw

    saved = args.basis or (args.save if args.save and args.save.exists() and not args.overwrite else None)
    todo = batch.missing([PCA_ENDING])
    if saved:
        return _load_basis(saved, args, engine), 0
    if not todo and not args.save:
        return None, 0
    if 0 < len(todo) < len(batch.targets):
        raise ValueError(
            f"{len(batch.targets) - len(todo)} of the photos are coloured already, by a basis of their "
            "own; add --overwrite to colour all anew, or --basis with that basis"
        )
    count, every = min(args.fit_on, len(batch.targets)), len(batch.targets)
    some = [batch.targets[i * every // count] for i in range(count)]
    photos = (photo for _, photo in read_ahead(some, lambda target: target.read()))
    # who cannot be read is told of when the pictures are made
    features = [
        engine.features(p, args.resolution) for p in show_progress(photos, count) if not isinstance(p, Exception)
    ]
    if not features:
        return None, 0
    pca = draw.fit(draw.View((), tuple(features), (engine.backbone.name, args.resolution), ""), look)
    if args.save:
        with tempfile.TemporaryDirectory() as folder:
            save(args.save, draw.basis_file(pca, Path(folder))[1])
    return pca, len(features)


def _load_basis(path: Path, args: argparse.Namespace, engine: "Engine") -> "PatchPCA":
    from .basis import PatchPCA

    pca = PatchPCA.load(path)
    try:
        if doubt := pca.check(engine.backbone.name, engine.identity):
            print(f"{path}: {doubt}", file=sys.stderr)
    except ValueError as error:
        other = f"; add --backbone {pca.backbone_}" if pca.backbone_ != engine.backbone.name else ""
        raise ValueError(f"{path}: {error}{other}") from error
    if max(args.components) > len(pca.components_):
        raise ValueError(f"{path} has {len(pca.components_)} components, --components asks for {max(args.components)}")
    return pca
