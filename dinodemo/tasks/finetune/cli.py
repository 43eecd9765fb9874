"""`dinodemo train`, `eval` and `export`: adapt a backbone, measure one, take a run's result out."""

import argparse
import json
from pathlib import Path

from ...io.files import plural
from ...io.states import RunState


def add_commands(commands) -> None:
    """Add the commands to the parser's."""
    from ...train.__main__ import add_arguments

    train = commands.add_parser(
        "train", help="adapt a backbone to a folder of photos", epilog="dinodemo train ~/Pictures --out runs/mine"
    )
    add_arguments(train)
    train.set_defaults(run=_train)
    measure = commands.add_parser(
        "eval",
        help="measure a backbone by k-NN on class folders",
        epilog="dinodemo eval runs/mine photos/test --gallery photos/train",
    )
    measure.add_argument("backbone", help="name, model folder, finished run or hub id")
    measure.add_argument("folder", type=Path, help="a folder for each class")
    measure.add_argument("--gallery", type=Path, help="class folders to compare with (default: the others of FOLDER)")
    measure.add_argument("-k", type=int, default=10, help="neighbours that vote (default: %(default)s)")
    measure.add_argument("--size", type=int, default=224, help="pixels of the centre looked at (default: %(default)s)")
    measure.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    measure.add_argument("--json", action="store_true", help="print the metrics as JSON")
    measure.set_defaults(run=_eval)
    export = commands.add_parser(
        "export",
        help="take a run's network out as a Hugging Face folder",
        epilog="dinodemo export runs/mine my-backbone",
    )
    export.add_argument("run_folder", metavar="run", type=Path, help="folder of a run")
    export.add_argument("out", type=Path, help="folder to write")
    export.add_argument("--which", choices=("best", "last", "start"), default="best", help="default: %(default)s")
    export.set_defaults(run=_export)


def _train(args: argparse.Namespace) -> int:
    from ...train.__main__ import run_arguments

    report = run_arguments(args)
    print(report["sentence"])
    return 1 if report.get("state") == RunState.FAILED else 0


def _eval(args: argparse.Namespace) -> None:
    from ...train import evaluate_knn

    found = evaluate_knn(args.backbone, args.folder, args.gallery, device=args.device, size=args.size, k=args.k)
    if args.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['backbone']}: k-NN {found['knn']:.1%} on {found['photos']} photos of {found['classes']} "
            f"classes, effective rank {found['rank']:.1f}"
            + (f"; {plural(found['left_out'], 'unreadable photo')} left out" if found["left_out"] else "")
        )


def _export(args: argparse.Namespace) -> None:
    from ...train import export_run

    print(export_run(args.run_folder, args.out, args.which))
