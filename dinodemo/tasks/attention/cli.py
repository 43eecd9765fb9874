"""`dinodemo attention`: the tab's pictures, for folders and scripts."""

import argparse
import io
from typing import TYPE_CHECKING

from ...commands import Made, add_command, add_look, add_photos, open_batch, open_engine
from ..base import OPACITY

if TYPE_CHECKING:
    from ...engine import Engine
    from ...io.images import Photo


def add_commands(commands) -> None:
    """Add the command to the parser's."""
    from .draw import HEAD, MASS

    parser = add_command(
        commands,
        "attention",
        _attention,
        "draw where the network looks",
        [
            "photos --out maps",
            "cat.jpg --out maps --head 1 2 3 --mass 0.6 --raw",
            "photos --out maps --head all --layer 2 --json",
        ],
    )
    add_photos(parser, "folder of the overlays")
    words = f"mean, max, numbers from 1, or all (default: {HEAD.default})"
    parser.add_argument("--head", nargs="+", default=[HEAD.default], metavar="HEAD", help=words)
    parser.add_argument("--layer", type=int, help="counted from 1 (default: the last)")
    MASS.add_to(parser)
    OPACITY.add_to(parser)
    parser.add_argument("--raw", action="store_true", help="also the layer's attention as .npy, (heads, h, w) float32")
    add_look(parser)


def _attention(args: argparse.Namespace) -> int:
    import numpy as np

    from ...engine.provenance import made_with
    from ...io.render import png_bytes
    from . import draw
    from .maps import attention_of

    with open_batch(args) as batch:
        engine = open_engine(args)
        layer, heads = _layer(args, engine), _heads(args, engine)
        looks = {
            f"attention-{h}.png": draw.Look(layer, h, 100 * args.mass, args.opacity, args.colour_map, not args.squares)
            for h in heads
        }

        def make(photo: "Photo") -> Made:
            f = engine.features(photo, args.resolution, attention=True)
            view = draw.View(photo, f, (f.backbone, args.resolution), "")
            side = args.longest or max(photo.size)
            files = {e: png_bytes(draw.draw_overlay(view, look, side), made_with(f)) for e, look in looks.items()}
            rows = attention_of(f)[layer - 1]
            if args.raw:
                files["attention.npy"] = _npy(rows)
            return files, {"grid": list(f.grid), "on_patches": float(np.sum(rows.mean(axis=0)))}

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
        raise ValueError(
            f"--head must be mean, max, all or from 1 to {len(numbers)} with {engine.backbone.name}, got {wrong[0]}"
        )
    return list(dict.fromkeys(h for head in args.head for h in (numbers if head == "all" else [head])))


def _npy(array) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
