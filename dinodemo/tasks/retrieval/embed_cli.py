"""`dinodemo embed`: one vector a photo, made as an index makes them, in a file that other programs read.

With --ray the vectors are computed on a cluster, and go into an index, which can be searched and added to.
"""

import argparse
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...commands import (
    Target,
    add_command,
    add_photos,
    into,
    number,
    open_batch,
    open_engine,
    progress,
    read_ahead,
    report,
    save,
)

if TYPE_CHECKING:
    import numpy as np

    from ...engine.engine import Engine
    from ...io.images import Photo
    from .sources import Problem

RESOLUTION = 224
AHEAD = 32  # photos that may be decoded before the network takes them: small squares, so little memory
KINDS = (".npz", ".parquet")


def add_embed(commands) -> None:
    """Add the command to the parser's."""
    from .descriptor import DEFAULT_DESCRIPTOR, DESCRIPTORS

    parser = add_command(
        commands,
        "embed",
        _embed,
        "write one vector a photo into a file",
        [
            "photos --out vectors.npz",
            "photos --out vectors.parquet --resolution 392 --json",
            "s3://bucket/photos --ray --out s3://bucket/my.index",
        ],
    )
    add_photos(
        parser,
        "file of paths and vectors of unit length: .npz or .parquet; with --ray an index",
        RESOLUTION,
        lambda text: text if "://" in text else Path(text),
    )
    parser.add_argument(
        "--descriptor",
        choices=DESCRIPTORS,
        help="cls: the last layer's class token; cls11: the one before; gem: the patches' generalised "
        f"mean (default: {DEFAULT_DESCRIPTOR}; with --ray what an index takes)",
    )
    parser.add_argument(
        "--ray",
        action="store_true",
        help="on the Ray cluster of $RAY_ADDRESS, or one that is started here; photos and index may "
        "lie in an object store (s3://...). Stopped, the same command goes on",
    )
    parser.add_argument(
        "--workers", type=number(1, 10_000, int), help="with --ray: processes that run the network (default: one a GPU)"
    )


def _embed(args: argparse.Namespace) -> int:
    import numpy as np

    from .descriptor import DEFAULT_DESCRIPTOR

    if args.ray:
        return _embed_on_cluster(args)
    if args.workers or "://" in str(args.out):
        raise ValueError("--workers and an object store's address as --out need --ray")
    args.descriptor = args.descriptor or DEFAULT_DESCRIPTOR
    if args.out.suffix not in KINDS:
        raise ValueError(f"--out must end in {' or '.join(KINDS)}, got {args.out.name}")
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} is there already; add --overwrite, or choose another --out")
    with open_batch(args) as batch:
        engine = open_engine(args)
        side = _side(engine, args.resolution)
        problems = batch.left_out
        rows = list(progress(embed(engine, batch.targets, side, args.descriptor, problems), len(batch.targets)))
    if not rows:
        return report(args, engine, {"photos": 0}, f"nothing to write into {args.out}", problems)
    paths, vectors = [path for path, _ in rows], np.stack([vector for _, vector in rows])
    about = {"backbone": engine.backbone.name, "resolution": str(side), "descriptor": args.descriptor}
    encode = _parquet if args.out.suffix == ".parquet" else _npz
    save(args.out, encode(paths, vectors, about))
    facts = {"photos": len(rows), "width": vectors.shape[1], "file": str(args.out), "descriptor": args.descriptor}
    return report(args, engine, facts, f"{len(rows)} vectors of {vectors.shape[1]} numbers in {args.out}", problems)


def _embed_on_cluster(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ...scale.cluster import Cluster
    from .index import ImageIndex

    if args.overwrite or args.device != "auto":
        raise ValueError("--overwrite and --device do nothing with --ray; leave them out")
    recipe = ImageIndex(args.out).recipe
    cluster: Any = Cluster(args.backbone or (recipe.backbone if recipe else None), args.workers)  # an Engine's stand-in
    index = ImageIndex(args.out, cluster, _side(cluster, args.resolution), args.descriptor)
    with tqdm(unit="photo", disable=not sys.stderr.isatty()) as bar:
        added = index.add(args.photos, progress=into(bar), make_rows=cluster.rows)
    index.wait()
    made = index.recipe
    facts = {
        "photos": added.added,
        "kept": added.skipped,
        "file": index.path,
        "descriptor": made.descriptor if made else None,
    }
    return report(args, cluster, facts, f"{added.sentence()}; {len(index)} photos in {args.out}", added.problems)


def embed(
    engine: "Engine", targets: Iterable[Target], side: int, descriptor: str, problems: list["Problem"]
) -> Iterator[tuple[str, "np.ndarray"]]:
    """Yield (path, unit vector (D,) float32) for each photo, in order; whoever cannot be read is added to problems."""
    from .descriptor import describe

    waiting: list[str] = []

    def photos() -> Iterator["Photo"]:
        for target, photo in read_ahead(targets, lambda target: read_square(target, side), AHEAD):
            if isinstance(photo, Exception):
                problems.append((target.item.path, str(photo)))
            else:
                waiting.append(target.item.path)
                yield photo

    for vector in describe(engine, photos(), side, descriptor):
        yield waiting.pop(0), vector


def read_square(target: Target, side: int) -> "Photo":
    """Decode a photo and make it side x side, as an index does; raises what reading raises."""
    from .adding import decode
    from .descriptor import squash

    return squash(decode(target.item.read(), side)[1], side, target.item.name)


def _side(engine: "Engine", resolution: int) -> int:
    from .descriptor import input_side

    return input_side(resolution, engine.backbone.patch_size)


def _npz(paths: list[str], vectors: "np.ndarray", about: dict[str, str]) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"paths": np.array(paths), "vectors": vectors, **about}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _parquet(paths: list[str], vectors: "np.ndarray", about: dict[str, str]) -> bytes:
    import pyarrow as pa

    from ...io.tables import parquet

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return parquet({"path": pa.array(paths, pa.string()), "vector": column}, about)
