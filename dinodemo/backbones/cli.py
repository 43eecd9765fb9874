"""`dinodemo weights`: list, fetch, verify and import backbones; and what `dinodemo export` does."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from . import (
    BACKBONES,
    DEFAULT,
    OFFLINE_DEFAULT,
    Backbone,
    HubError,
    default_backbone,
    fetch,
    find_local,
    imported_names,
    resolve,
)
from .export import FORMATS, export
from .identity import identify


def add_commands(commands) -> None:
    """Add the command and its actions to the parser's."""
    weights = commands.add_parser("weights", help="list, fetch, verify or import backbones").add_subparsers(
        required=True, metavar="ACTION"
    )
    listing = weights.add_parser("list", help="every known backbone and where its weights are")
    listing.set_defaults(run=_list)
    fetching = weights.add_parser("fetch", help="download a backbone; without a name, the default one")
    fetching.add_argument("name", nargs="?", help="a name from `weights list`, or a hub id")
    fetching.add_argument(
        "--full", action="store_true", help="the official default, also where the offline one is here already"
    )
    fetching.set_defaults(run=_fetch)
    verifying = weights.add_parser("verify", help="check the checksums of what is on this machine")
    verifying.set_defaults(run=_verify)
    importing = weights.add_parser("import", help="convert a checkpoint in another layout (Meta, timm, ...)")
    importing.add_argument("source", type=Path, help="a .pth, .pt, .bin or .safetensors file, or a folder with one")
    importing.add_argument("--name", help="what it is called from now on (default: the file's name)")
    importing.set_defaults(run=_import)


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Add what `dinodemo export` takes."""
    parser.add_argument("source", nargs="?", help="name, folder, run or hub id (default: the one on this machine)")
    parser.add_argument("target", nargs="?", type=Path, help="the file or, with hf, the folder to write")
    parser.add_argument("--format", choices=FORMATS, default="hf", help="what it is written as (default: %(default)s)")
    parser.add_argument("--backbone", help="the same as SOURCE")
    parser.add_argument("--out", type=Path, help="the same as TARGET (default: the backbone's name, here)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def settle_export_options(args: argparse.Namespace) -> None:
    """Bring both ways of naming source and target together; raises ValueError where they contradict each other."""
    for position, option in (("source", "backbone"), ("target", "out")):
        given, named = getattr(args, position), getattr(args, option)
        if given is not None and named is not None and str(given) != str(named):
            raise ValueError(f"{given} and --{option} {named} contradict each other; give one of them")
        setattr(args, position, given if given is not None else named)


def run_export(args: argparse.Namespace, source: str | None) -> None:
    """Write a backbone, and print what was done.

    Args:
        args: Of the command.
        source: Name or folder of the backbone; None is the default.
    """
    made = export(source, args.format, args.target, args.overwrite)
    if args.json:
        facts = {"format": args.format, "path": str(made.path), "identity": asdict(made.identity)}
        print(json.dumps({"command": "export", **facts, "differences": dict(made.differences)}))
        return
    print(f"{made.identity.label}: {made.path}")
    if made.differences:
        worst = ", ".join(f"{name} {value:.1e}" for name, value in made.differences.items())
        print(f"compared with PyTorch under ONNX Runtime at several sizes; largest difference: {worst}")


def _list(_args: argparse.Namespace) -> None:
    default = default_backbone()
    print(f"{'name':32}{'width x depth':15}{'heads':7}{'patch':7}{'reg.':6}{'MB':>6}  {'licence':26}where")
    for row in BACKBONES.values():
        print(_line(row, row.licence, _where(row, default)))
    for name in imported_names():
        row, folder = resolve(name)
        print(_line(row, "yours (imported)", str(folder)))


def _line(row: Backbone, licence: str, where: str) -> str:
    shape = f"{row.width} x {row.depth}"
    return (
        f"{row.name:32}{shape:15}{row.heads:<7}{row.patch_size:<7}{row.registers:<6}{row.download_mb:>6}  "
        f"{licence:26}{where}"
    )


def _where(row: Backbone, default: str) -> str:
    folder = find_local(row.name)
    if folder is None:
        return "not on this machine" + (": needs an accepted licence and HF_TOKEN" if row.gated else "")
    notes = ["the default"] if row.name == default else []
    if row.name == OFFLINE_DEFAULT and _is_outdated(folder):
        notes.append("of an earlier version, built anew at the next start")
    return f"{folder}" + (f" ({'; '.join(notes)})" if notes else "")


def _is_outdated(folder: Path) -> bool:
    from .offline import is_outdated

    return is_outdated(folder)


def _fetch(args: argparse.Namespace) -> None:
    if args.full and args.name:
        raise ValueError(f"--full fetches {DEFAULT}; leave out the name {args.name!r}, or leave out --full")
    if args.name:
        # asked for by name: an official backbone is not replaced by a similar one
        print(f"{args.name}: {fetch(args.name)}")
        return
    if args.full:
        _fetch_official()
        return
    row, folder = resolve(None)
    print(f"{row.name}: {folder}")
    if row.notice:
        print(row.notice)


def _fetch_official() -> None:
    """Fetch the official default; where that cannot be had, say what runs instead."""
    try:
        folder = fetch(DEFAULT)
    except HubError as error:
        stays = "stays the default" if find_local(OFFLINE_DEFAULT) else "is not here either"
        raise HubError(f"{DEFAULT} could not be had: {error}; {OFFLINE_DEFAULT} {stays}") from error
    print(f"{DEFAULT}: {folder}")
    print(identify(DEFAULT, folder).label)
    if find_local(OFFLINE_DEFAULT):
        print(
            "It is the default from now on. Heads, probes, indexes and bases made with "
            f"{OFFLINE_DEFAULT} do not fit it: make them again, or name --backbone {OFFLINE_DEFAULT} with them."
        )


def _verify(_args: argparse.Namespace) -> int:
    from .offline import verify

    report = verify()
    for file, state in report.items():
        print(f"{state:4} {file}")
    return 0 if all(state == "ok" or state.startswith("not checked") for state in report.values()) else 1


def _import(args: argparse.Namespace) -> None:
    from .convert import import_checkpoint

    made = import_checkpoint(args.source, args.name)
    print(f"{made.name}: {made.folder}")
    print(f"read as {made.family}")
    for note in made.notes:
        print(note)
    print(f"use it with --backbone {made.name}, or pick it in the app")
