"""`dinodemo index` and `dinodemo search`: the retrieval tab's functions for folders and scripts."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ...commands import into
from ...io.exits import EXIT_HELP, exit_status
from ...io.files import plural
from ...scale.addresses import is_address
from .embed_cli import add_embed

if TYPE_CHECKING:
    from .index import ImageIndex
    from .writing import AddReport


def add_commands(commands) -> None:
    """Add the commands to the parser's."""
    add_embed(commands)
    index = commands.add_parser(
        "index",
        help="put photos into an index",
        epilog=f"""examples:
  dinodemo index ~/Pictures --out my.index
  dinodemo index --out my.index --relocate /mnt/old/Pictures ~/Pictures

{EXIT_HELP}""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    index.add_argument("source", nargs="*", help="folders, zips or photos; class folders become labels")
    index.add_argument("--out", required=True, help="folder of the index, or an object store's address (s3://...)")
    _add_engine(index)
    index.add_argument("--resolution", type=int, help="pixels that the network sees (default: 224)")
    index.add_argument("--rebuild", action="store_true", help="make the vectors of an existing index anew first")
    index.add_argument(
        "--relocate",
        nargs=2,
        metavar=("OLD", "NEW"),
        help="a folder, zip or photo of the index has moved from OLD to NEW; no photo is read",
    )
    index.add_argument("--json", action="store_true", help="print the report as JSON")
    index.set_defaults(run=_index)
    search = commands.add_parser("search", help="find alike photos", epilog="dinodemo search my.index cup.jpg -k 5")
    search.add_argument("index", help="what `dinodemo index --out` made")
    search.add_argument("query", nargs="+", help="photos to ask with")
    search.add_argument("-k", type=int, default=12, help="hits for each (default: %(default)s)")
    search.add_argument("--region", type=float, nargs=4, metavar=("X0", "Y0", "X1", "Y1"), help="pixels of the query")
    search.add_argument("--label", action="append", default=[], help="only these labels")
    search.add_argument("--path", default="", help="only paths that contain this")
    search.add_argument("--rerank", action="store_true", help="compare parts of the first 50 too")
    _add_engine(search)
    search.add_argument("--json", action="store_true", help="print the hits as JSON")
    search.set_defaults(run=_search)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", help="name, folder or hub id (default: the index's own, else the default)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")


def _open(path: str, backbone: str | None, device: str, resolution: int | None = None):
    from ...engine.engine import Engine
    from .index import ImageIndex

    recipe = ImageIndex(path).recipe
    name = backbone or (recipe.backbone if recipe else None)
    return ImageIndex(path, Engine(name, device=device), resolution if recipe is None else None)


def _index(args: argparse.Namespace) -> int:
    if args.relocate:
        if args.source or args.rebuild:
            raise ValueError("--relocate changes paths alone; add photos or rebuild in a second command")
        return _relocate(args)
    if not args.source and not args.rebuild:
        raise ValueError("name the photos to add: folders, zips or photos; or use --relocate OLD NEW, or --rebuild")
    index, report = _filled(args)
    index.wait()
    found = index.statistics()
    if args.json:
        changed = {"moved": report.moved, "replaced": report.replaced, "problems": report.problems}
        there = {"photos": found.count, "labels": found.labels, "search": found.search}
        print(json.dumps({"added": report.added, "skipped": report.skipped, **changed, **there}))
    else:
        print(f"{report.sentence()}; {found.count} photos in {args.out}")
        for file, reason in report.problems:
            print(f"left out: {file}: {reason}", file=sys.stderr)
    _warn(index)
    return exit_status(report.added + report.skipped, len(report.problems))


def _warn(index: "ImageIndex") -> None:
    """Print what is doubtful about an index: of version 0.1, for example, which weights made it."""
    if index.doubt:
        print(f"note: {index.doubt}", file=sys.stderr)


def _filled(args: argparse.Namespace) -> "tuple[ImageIndex, AddReport]":
    """Rebuild an index where that is asked for, and add the photos."""
    from tqdm import tqdm

    from .writing import AddReport

    report = AddReport()
    if args.rebuild:
        from ...engine.engine import Engine
        from .index import ImageIndex

        index = ImageIndex(args.out)
        with tqdm(unit="photo", disable=not sys.stderr.isatty()) as bar:
            report = index.rebuild(Engine(args.backbone, device=args.device), args.resolution, progress=into(bar))
    else:
        index = _open(args.out, args.backbone, args.device, args.resolution)
    if args.source:
        with tqdm(unit="photo", disable=not sys.stderr.isatty()) as bar:
            left_out = report.problems
            report = index.add(args.source, progress=into(bar))
            report.problems[:0] = left_out
    return index, report


def _relocate(args: argparse.Namespace) -> int:
    from .index import ImageIndex

    old, new = (path if is_address(path) else str(Path(path).expanduser().absolute()) for path in args.relocate)
    found = ImageIndex(args.out).relocate(old, new)
    if args.json:
        print(json.dumps({"moved": found.moved, "missing": found.missing, "taken": found.taken}))
    else:
        print(f"{plural(found.moved, 'photo')} of {args.out} now at {new}")
        for path in found.missing:
            print(f"not there: {path}", file=sys.stderr)
        for path in found.taken:
            print(f"left as it was: {path}: the index has another photo at its new path", file=sys.stderr)
    return exit_status(found.moved - len(found.missing), len(found.missing) + len(found.taken))


def _search(args: argparse.Namespace) -> int:
    from ...io.images import DAMAGE, load_photo
    from .snapshot import Filter

    index = _open(args.index, args.backbone, args.device)
    where = Filter(labels=tuple(args.label), path=args.path)
    region = tuple(args.region) if args.region else None
    answers, problems = {}, []
    for query in args.query:
        try:
            photo = load_photo(query)
        except DAMAGE as error:
            problems.append((query, str(error)))
            continue
        hits = index.search(photo, k=args.k, rerank=args.rerank, where=where, region=region)
        answers[query] = [
            {"path": h.path, "score": round(h.score, 5), "label": h.label, "region": h.region} for h in hits
        ]
    if args.json:
        print(json.dumps(answers, ensure_ascii=False))
    else:
        for query, hits in answers.items():
            print(query)
            for hit in hits:
                print(f"  {hit['score']:.4f}  {hit['path']}" + (f"  {hit['region']}" if hit["region"] else ""))
    for query, reason in problems:
        print(f"left out: {query}: {reason}", file=sys.stderr)
    _warn(index)
    return exit_status(len(answers), len(problems))
