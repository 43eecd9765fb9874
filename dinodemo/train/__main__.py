"""`python -m dinodemo.train FOLDER --out RUN`: train, with a bar in a terminal; also under torchrun."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..backbones import resolve
from ..io.exits import EXIT_HELP, LEFT_OUT
from ..io.files import refusal_of
from ..io.states import RunState
from .config import FinetuneConfig, check_lengths, explanations, parse_set
from .planning import Clock

SETTINGS = ("minutes", "objective", "epochs", "steps", "batch_size", "lr", "seed")  # that have an option of their own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training to a parser; `run_arguments` reads them."""
    parser.add_argument("folder", nargs="?", type=Path, help="photos at any depth; not needed with --resume")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--backbone", help='name, model folder, finished run, hub id, or "scratch"')
    helps = explanations()
    for name in SETTINGS:
        parser.add_argument(f"--{name.replace('_', '-')}", help=helps[name])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, see config.py")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")


def run_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Train with parsed options and return the report; raises ValueError and RuntimeError for user errors."""
    clock = Clock()  # before what takes seconds: importing torch
    import torch

    from ..engine.devices import limit_threads
    from .data import scan
    from .run import finetune

    if args.threads:
        torch.set_num_threads(args.threads)
    else:
        limit_threads()
    given = [f"{name}={getattr(args, name)}" for name in SETTINGS if getattr(args, name) is not None]
    explicit = parse_set([*given, *args.set])
    check_lengths(explicit)
    config = None
    if not args.resume:
        if args.folder is None:
            raise ValueError("name the folder of photos to train on, or resume a run with --resume")
        backbone = args.backbone or explicit.pop("backbone", None) or resolve(None)[0].name
        config = FinetuneConfig.for_dataset(len(scan(args.folder).paths), backbone, args.device, **explicit)
    elif explicit or args.backbone:
        raise ValueError("a resumed run keeps its settings; leave them out, or start a new run")
    bar = _Bar() if sys.stderr.isatty() and os.environ.get("RANK", "0") == "0" else None
    return finetune(args.folder, args.out, config, device=args.device, resume=args.resume, progress=bar, clock=clock)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. User errors are one sentence on stderr."""
    parser = argparse.ArgumentParser(
        "python -m dinodemo.train", description="Adapt a backbone to a folder of photos", epilog=EXIT_HELP
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        report = run_arguments(args)
    except (ValueError, RuntimeError) as error:
        sys.stderr.write(f"dinodemo: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"dinodemo: {refusal_of(error)}\n")
        return 1
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(f"{report['sentence']}\n{args.out}\n")
    return report_status(report)


def report_status(report: dict[str, Any]) -> int:
    """Return the exit status of a run by its report: 1 where it failed, 3 where photos were left out, else 0."""
    if report.get("state") == RunState.FAILED:
        return 1
    return LEFT_OUT if report.get("left_out") else 0


class _Bar:
    """Show a run's progress in a terminal."""

    def __init__(self):
        self._bar = None

    def __call__(self, step: int, total: int, line: dict[str, Any]) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, initial=step - 1, unit="step", dynamic_ncols=True)
        self._bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)
        self._bar.update(step - self._bar.n)


if __name__ == "__main__":
    sys.exit(main())
