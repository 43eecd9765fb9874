"""`dinodemo index` and `dinodemo search`: the retrieval tab's functions for folders and scripts."""

import argparse
import json
import sys

from ...commands import into
from .embed_cli import add_embed


def add_commands(commands) -> None:
    """Add the commands to the parser's."""
    add_embed(commands)
    index = commands.add_parser(
        "index", help="put photos into an index", epilog="dinodemo index ~/Pictures --out my.index"
    )
    index.add_argument("source", nargs="+", help="folders, zips or photos; class folders become labels")
    index.add_argument("--out", required=True, help="folder of the index, or an object store's address (s3://...)")
    _add_engine(index)
    index.add_argument("--resolution", type=int, help="pixels that the network sees (default: 224)")
    index.add_argument("--rebuild", action="store_true", help="make the vectors of an existing index anew first")
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
    from tqdm import tqdm

    if args.rebuild:
        from ...engine.engine import Engine
        from .index import ImageIndex

        index = ImageIndex(args.out)
        engine = Engine(args.backbone, device=args.device)
        with tqdm(unit="photo", disable=not sys.stderr.isatty()) as bar:
            index.rebuild(engine, args.resolution, progress=into(bar))
        index.engine = engine
    else:
        index = _open(args.out, args.backbone, args.device, args.resolution)
    with tqdm(unit="photo", disable=not sys.stderr.isatty()) as bar:
        report = index.add(args.source, progress=into(bar))
    index.wait()
    found = index.statistics()
    if args.json:
        print(
            json.dumps(
                {
                    "added": report.added,
                    "skipped": report.skipped,
                    "problems": report.problems,
                    "photos": found.count,
                    "labels": found.labels,
                    "search": found.search,
                }
            )
        )
    else:
        print(f"{report.added} added, {report.skipped} were there already; {found.count} photos in {args.out}")
        for file, reason in report.problems:
            print(f"left out: {file}: {reason}", file=sys.stderr)
    return 0


def _search(args: argparse.Namespace) -> None:
    from .snapshot import Filter

    index = _open(args.index, args.backbone, args.device)
    where = Filter(labels=tuple(args.label), path=args.path)
    region = tuple(args.region) if args.region else None
    answers = {}
    for query in args.query:
        hits = index.search(query, k=args.k, rerank=args.rerank, where=where, region=region)
        answers[query] = [
            {"path": h.path, "score": round(h.score, 5), "label": h.label, "region": h.region} for h in hits
        ]
    if args.json:
        print(json.dumps(answers, ensure_ascii=False))
        return
    for query, hits in answers.items():
        print(query)
        for hit in hits:
            print(f"  {hit['score']:.4f}  {hit['path']}" + (f"  {hit['region']}" if hit["region"] else ""))
