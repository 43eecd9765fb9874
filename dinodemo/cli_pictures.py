"""`dinodemo attention`, `pca` and `match`: the pictures of these tabs, for folders and scripts."""

import argparse
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_files import (
    Batch,
    Made,
    add_command,
    add_photos,
    add_resolution,
    number,
    open_batch,
    open_engine,
    read_ahead,
    report,
    write_file,
)
from .cli_files import progress as show_progress

if TYPE_CHECKING:
    from .engine import Engine
    from .images import Photo
    from .tasks.pca import PatchPCA

FIT_ON = 500  # photos that a joint PCA is fitted on unless told otherwise; at 518 px each takes about 2 MB
PCA_ENDING = "pca.png"


def add_commands(commands) -> None:
    """Add the commands to the parser's."""
    _add_attention(commands)
    _add_pca(commands)
    _add_match(commands)


def _add_attention(commands) -> None:
    parser = add_command(commands, "attention", _attention, "draw where the network looks", [
        "photos --out maps",
        "cat.jpg --out maps --head 1 2 3 --mass 0.6 --raw",
        "photos --out maps --head all --layer 2 --json",
    ])  # fmt: skip
    add_photos(parser, "folder of the overlays")
    parser.add_argument("--head", nargs="+", default=["mean"], metavar="HEAD",
                        help="mean, max, numbers from 1, or all (default: mean)")  # fmt: skip
    parser.add_argument("--layer", type=int, help="counted from 1 (default: the last)")
    parser.add_argument("--mass", type=number(0.001, 1), default=1.0,
                        help="show the strongest patches that hold this share (default: 1, all)")  # fmt: skip
    parser.add_argument("--opacity", type=number(0, 1), default=0.6, help="of the map (default: %(default)s)")
    parser.add_argument("--raw", action="store_true", help="also the layer's attention as .npy, (heads, h, w) float32")
    _add_look(parser)


def _add_pca(commands) -> None:
    parser = add_command(commands, "pca", _pca, "colour patches by what they mean, jointly over all photos", [
        "photos --out colours",
        "photos --out colours --save basis.npz --backdrop",
        "cat.jpg --out colours --basis basis.npz --smooth",
    ])  # fmt: skip
    add_photos(parser, "folder of the pictures")
    parser.add_argument("--foreground", default="auto", help="auto, off, or a threshold from 0 to 1 (default: auto)")
    parser.add_argument("--components", type=number(1, 8, int), nargs=3, default=[1, 2, 3], metavar=("R", "G", "B"),
                        help="which become red, green and blue (default: 1 2 3)")  # fmt: skip
    parser.add_argument("--save", type=Path, help="keep the fitted basis in this .npz; one that is there is used")
    parser.add_argument("--basis", type=Path, help="use this saved basis, fit none")
    parser.add_argument("--fit-on", type=number(1, 10**6, int), default=FIT_ON, metavar="N",
                        help="of more photos, fit on so many spread over them (default: %(default)s)")  # fmt: skip
    parser.add_argument("--smooth", action="store_true", help="no squares")
    parser.add_argument("--backdrop", action="store_true", help="the photo, dimmed, where there is no colour")
    parser.add_argument("--side-by-side", action="store_true", help="the photo next to its colours")
    parser.add_argument("--longest", type=number(16, 12000, int), help="pixels of a picture's longer side")


def _add_match(commands) -> None:
    parser = add_command(commands, "match", _match, "find the parts of two photos that agree", [
        "cup.jpg table.jpg --out matches",
        "cup.jpg table.jpg --out matches --least 0.6 --model affine --json",
    ])  # fmt: skip
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--out", required=True, type=Path, help="folder of the drawing and the table")
    add_resolution(parser, 518)
    parser.add_argument("--count", type=number(1, 10000, int), default=40, help="pairs drawn (default: %(default)s)")
    parser.add_argument("--least", type=number(-1, 1), default=0.4, help="cosine of a pair (default: %(default)s)")
    parser.add_argument("--model", choices=("any", "homography", "affine"), default="any",
                        help="only pairs that one such movement explains (default: any)")  # fmt: skip
    parser.add_argument("--keep-place", action="store_true", help="let where a patch lies count too")


def _add_look(parser: argparse.ArgumentParser) -> None:
    from .render import COLOUR_MAPS

    parser.add_argument("--colour-map", choices=list(COLOUR_MAPS), default="inferno", help="default: %(default)s")
    parser.add_argument("--squares", action="store_true", help="one square a patch instead of a smooth map")
    parser.add_argument("--longest", type=number(16, 12000, int),
                        help="pixels of a picture's longer side (default: the photo's own)")  # fmt: skip


def _attention(args: argparse.Namespace) -> int:
    import numpy as np

    from .render import png_bytes
    from .ui import attention_view as draw
    from .ui.services import made_with

    with open_batch(args) as batch:
        engine = open_engine(args)
        layer, heads = _layer(args, engine), _heads(args, engine)
        looks = {f"attention-{h}.png": draw.Look(layer, h, 100 * args.mass, args.opacity, args.colour_map,
                                                 not args.squares) for h in heads}  # fmt: skip

        def make(photo: "Photo") -> Made:
            f = engine.features(photo, args.resolution, attention=True)
            view = draw.View(photo, f, (f.backbone, args.resolution), "")
            side = args.longest or max(photo.size)
            files = {e: png_bytes(draw.draw_overlay(view, look, side), made_with(f)) for e, look in looks.items()}
            if args.raw:
                files["attention.npy"] = _npy(f.layer_attention[layer - 1])
            return files, {"grid": list(f.grid), "on_patches": float(np.sum(f.layer_attention[layer - 1].mean(axis=0)))}

        batch.run([*looks, *(["attention.npy"] if args.raw else [])], make)
        return batch.finish(engine, layer=layer, heads=heads)


def _layer(args: argparse.Namespace, engine: "Engine") -> int:
    layer, depth = engine.backbone.depth if args.layer is None else args.layer, engine.backbone.depth
    if not 1 <= layer <= depth:
        raise ValueError(f"--layer must be from 1 to {depth} with {engine.backbone.name}, got {layer}")
    return layer


def _heads(args: argparse.Namespace, engine: "Engine") -> list[str]:
    numbers = [str(i) for i in range(1, engine.backbone.heads + 1)]
    wrong = [head for head in args.head if head not in ("mean", "max", "all", *numbers)]
    if wrong:
        raise ValueError(f"--head must be mean, max, all or from 1 to {len(numbers)} with {engine.backbone.name}, "
                         f"got {wrong[0]}")  # fmt: skip
    return list(dict.fromkeys(h for head in args.head for h in (numbers if head == "all" else [head])))


def _pca(args: argparse.Namespace) -> int:
    from .render import png_bytes
    from .ui import pca_view as draw
    from .ui.services import made_with

    look = _pca_look(args)
    with open_batch(args) as batch:
        engine = open_engine(args)
        pca, fitted = _basis(args, batch, engine, look)

        def make(photo: "Photo") -> Made:
            f = engine.features(photo, args.resolution)
            view = draw.View((photo,), (f,), (f.backbone, args.resolution), "")
            ((picture, _),) = draw.draw(view, look, pca, args.longest or max(photo.size))
            share = float(pca.foreground_mask(f).mean())
            return {PCA_ENDING: png_bytes(picture, made_with(f))}, {"foreground": round(share, 4)}

        batch.run([PCA_ENDING], make)
        ratios = [] if pca is None else [round(float(ratio), 4) for ratio in pca.explained_variance_ratio_]
        return batch.finish(engine, fitted_on=fitted, explained_variance_ratio=ratios)


def _pca_look(args: argparse.Namespace):
    from .ui.pca_view import Look

    if args.foreground in ("auto", "off"):
        foreground, threshold = args.foreground, 0.5
    else:
        try:
            foreground, threshold = "manual", number(0, 1)(args.foreground)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"--foreground must be auto, off or from 0 to 1, got {args.foreground}") from error
    return Look(foreground, threshold, *args.components, args.smooth, args.backdrop, args.side_by_side)


def _basis(args: argparse.Namespace, batch: Batch, engine: "Engine", look) -> tuple["PatchPCA | None", int]:
    """Return the basis and on how many photos it was fitted now; None when no photo needs or allows one."""
    from .ui import pca_view as draw

    saved = args.basis or (args.save if args.save and args.save.exists() and not args.overwrite else None)
    todo = batch.missing([PCA_ENDING])
    if saved:
        return _load_basis(saved, args, engine), 0
    if not todo and not args.save:
        return None, 0
    if 0 < len(todo) < len(batch.targets):
        raise ValueError(f"{len(batch.targets) - len(todo)} of the photos are coloured already, by a basis of their "
                         "own; add --overwrite to colour all anew, or --basis with that basis")  # fmt: skip
    count, every = min(args.fit_on, len(batch.targets)), len(batch.targets)
    some = [batch.targets[i * every // count] for i in range(count)]
    photos = (photo for _, photo in read_ahead(some, lambda target: target.read()))
    # who cannot be read is told of when the pictures are made
    features = [engine.features(p, args.resolution) for p in show_progress(photos, count)
                if not isinstance(p, Exception)]  # fmt: skip
    if not features:
        return None, 0
    pca = draw.fit(draw.View((), tuple(features), (engine.backbone.name, args.resolution), ""), look)
    if args.save:
        with tempfile.TemporaryDirectory() as folder:
            write_file(args.save, draw.basis_file(pca, Path(folder))[1])
    return pca, len(features)


def _load_basis(path: Path, args: argparse.Namespace, engine: "Engine") -> "PatchPCA":
    from .tasks.pca import PatchPCA

    pca = PatchPCA.load(path)
    if pca.backbone_ != engine.backbone.name:
        raise ValueError(f"{path} was fitted with {pca.backbone_}, this is {engine.backbone.name}; "
                         f"add --backbone {pca.backbone_}, or fit a new basis")  # fmt: skip
    if max(args.components) > len(pca.components_):
        raise ValueError(f"{path} has {len(pca.components_)} components, --components asks for {max(args.components)}")
    return pca


def _match(args: argparse.Namespace) -> int:
    from .images import load_photo
    from .tokens import place_of
    from .ui import compare_view as draw

    photos = (load_photo(args.first), load_photo(args.second))
    engine = open_engine(args)
    features = tuple(engine.features(photo, args.resolution) for photo in photos)
    basis = None if args.keep_place else place_of(engine, args.resolution)
    pair = draw.Pair(photos, features, basis, ())
    names = {model or "any": name for name, model in draw.MODELS.items()}
    look = draw.Look(args.count, args.least, names[args.model])
    made = []
    for name, content in (draw.lines_file(pair, look), draw.table_file(pair, look)):
        path = args.out / name
        if args.overwrite or not path.exists():
            write_file(path, content)
            made.append(str(path))
    kept = len(draw.chosen(pair, look))
    cosine = draw.similarity(*features)
    facts = {"files": made, "cls_cosine": round(cosine, 5), "mutual": len(pair.matches), "chosen": kept}
    files = f"written: {', '.join(made)}" if made else "the files are there already"
    told = f"cosine of CLS {cosine:.3f}, {kept} of {len(pair.matches)} mutual pairs chosen; {files}"
    return report(args, engine, facts, told)


def _npy(array) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
