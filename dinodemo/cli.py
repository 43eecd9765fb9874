"""The `dinodemo` command: serve the app, look after weights, do with folders what the tabs do, train backbones."""

import argparse
import os
import sys
from collections.abc import Sequence

from . import cli_embed, cli_pictures, cli_retrieval, cli_tasks, cli_training, settings
from .backbones import BACKBONES, DEFAULT, default_backbone, fetch, find_local, resolve


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. User errors are one sentence on stderr."""
    args = _parser().parse_args(argv)
    try:
        status = args.run(args) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would flush into it once more
        return 1
    except KeyboardInterrupt:
        print("dinodemo: stopped; what was done stays", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError) as error:
        print(f"dinodemo: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dinodemo", description="Self-supervised vision features on your own pictures")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    app = commands.add_parser("app", help="serve the web app")
    settings.add_arguments(app)
    app.set_defaults(run=_app)
    for part in (cli_pictures, cli_tasks, cli_embed, cli_retrieval):
        part.add_commands(commands)
    cli_training.add_commands(commands)
    weights = commands.add_parser("weights", help="list, fetch or verify backbones").add_subparsers(
        required=True, metavar="ACTION"
    )
    listing = weights.add_parser("list", help="every known backbone and where its weights are")
    listing.set_defaults(run=_list)
    fetching = weights.add_parser("fetch", help="download a backbone; without a name, the default one")
    fetching.add_argument("name", nargs="?", help="a name from `weights list`, or a hub id")
    fetching.set_defaults(run=_fetch)
    verifying = weights.add_parser("verify", help="check the checksums in the weights folder")
    verifying.set_defaults(run=_verify)
    return parser


def _app(args: argparse.Namespace) -> None:
    from .ui.app import launch

    launch(settings.from_arguments(args))


def _list(_args: argparse.Namespace) -> None:
    print(f"{'name':32}{'width x depth':15}{'heads':7}{'patch':7}{'reg.':6}{'MB':>6}  {'licence':26}where")
    for row in BACKBONES.values():
        shape = f"{row.width} x {row.depth}"
        where = find_local(row.name) or "not on this machine"
        print(f"{row.name:32}{shape:15}{row.heads:<7}{row.patch_size:<7}{row.registers:<6}{row.download_mb:>6}  "
              f"{row.licence:26}{where}")  # fmt: skip


def _fetch(args: argparse.Namespace) -> None:
    if args.name:
        # asked for by name: an official backbone is not replaced by a similar one
        print(f"{args.name}: {find_local(args.name) or fetch(args.name)}")
        return
    name = default_backbone()
    if find_local(name) is None:
        print(f"fetching {name} ...", flush=True)
    row, folder = resolve(name)
    print(f"{row.name}: {folder}")
    if row.name != DEFAULT:
        print(row.notice)


def _verify(_args: argparse.Namespace) -> int:
    from .weights import verify

    report = verify()
    for file, state in report.items():
        print(f"{state:4} {file}")
    return 0 if all(state == "ok" for state in report.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
