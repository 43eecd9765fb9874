"""The `dinodemo` command: serve the app, look after weights, do with folders what the tabs do, train backbones."""

import argparse
import os
import sys
from collections.abc import Sequence

from . import tasks
from .backbones import cli as weights
from .io.files import refusal_of
from .web import settings


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
    except OSError as error:
        print(f"dinodemo: {refusal_of(error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dinodemo", description="Self-supervised vision features on your own pictures")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    app = commands.add_parser("app", help="serve the web app")
    settings.add_arguments(app)
    app.set_defaults(run=_app)
    for task in tasks.TASKS:
        if room := task.room("cli"):
            room.add_commands(commands)
    weights.add_commands(commands)
    return parser


def _app(args: argparse.Namespace) -> None:
    from .web.app import launch

    launch(settings.from_arguments(args))


if __name__ == "__main__":
    sys.exit(main())
