"""`dinodemo embed`: one vector a photo, made as an index makes them, in a file that other programs read."""

import argparse
import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .cli_files import (
    Target,
    add_command,
    add_photos,
    open_batch,
    open_engine,
    progress,
    read_ahead,
    report,
    write_file,
)

if TYPE_CHECKING:
    import numpy as np

    from .engine import Engine
    from .images import Photo
    from .tasks.retrieval.sources import Problem

RESOLUTION = 224
AHEAD = 32  # photos that may be decoded before the network takes them: small squares, so little memory
KINDS = (".npz", ".parquet")


def add_commands(commands) -> None:
    """Add the command to the parser's."""
    from .tasks.retrieval.descriptor import DEFAULT_DESCRIPTOR, DESCRIPTORS

    parser = add_command(commands, "embed", _embed, "write one vector a photo into a file", [
        "photos --out vectors.npz",
        "photos --out vectors.parquet --resolution 392 --json",
    ])  # fmt: skip
    add_photos(parser, "file of paths and vectors of unit length: .npz or .parquet", RESOLUTION)
    parser.add_argument("--descriptor", choices=DESCRIPTORS, default=DEFAULT_DESCRIPTOR,
                        help="cls: the last layer's class token; cls11: the one before; gem: the patches' generalised "
                        "mean (default: %(default)s)")  # fmt: skip


def _embed(args: argparse.Namespace) -> int:
    import numpy as np

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
    write_file(args.out, encode(paths, vectors, about))
    facts = {"photos": len(rows), "width": vectors.shape[1], "file": str(args.out), "descriptor": args.descriptor}
    return report(args, engine, facts, f"{len(rows)} vectors of {vectors.shape[1]} numbers in {args.out}", problems)


def embed(
    engine: "Engine", targets: Iterable[Target], side: int, descriptor: str, problems: list["Problem"]
) -> Iterator[tuple[str, "np.ndarray"]]:
    """Yield (path, unit vector (D,) float32) for each photo, in order; whoever cannot be read is added to problems."""
    from .tasks.retrieval.descriptor import describe

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
    from .tasks.retrieval.adding import decode
    from .tasks.retrieval.descriptor import squash

    return squash(decode(target.item.read(), side)[1], side, target.item.name)


def _side(engine: "Engine", resolution: int) -> int:
    from .tasks.retrieval.descriptor import input_side

    return input_side(resolution, engine.backbone.patch_size)


def _npz(paths: list[str], vectors: "np.ndarray", about: dict[str, str]) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, paths=np.array(paths), vectors=vectors, **about)
    return buffer.getvalue()


def _parquet(paths: list[str], vectors: "np.ndarray", about: dict[str, str]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = pa.table({"path": pa.array(paths, pa.string()), "vector": column}).replace_schema_metadata(about)
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()
