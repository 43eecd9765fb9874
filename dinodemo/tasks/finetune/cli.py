"""`dinodemo train`, `eval` and `export`: adapt a backbone, measure one, take a run's result out."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from ...backbones.cli import add_export_options, run_export, settle_export_options
from ...io.exits import EXIT_HELP, exit_status
from ...io.files import plural


def add_commands(commands) -> None:
    """Add the commands to the parser's."""
    from ...train.__main__ import add_arguments

    train = commands.add_parser(
        "train",
        help="adapt a backbone to a folder of photos",
        epilog=f"example:\n  dinodemo train ~/Pictures --out runs/mine\n\n{EXIT_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(train)
    train.set_defaults(run=_train)
    measure = commands.add_parser(
        "eval",
        help="measure a backbone by k-NN on class folders",
        epilog=f"example:\n  dinodemo eval runs/mine photos/test --gallery photos/train\n\n{EXIT_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
        help="write a backbone or a run's result as a Hugging Face folder, ONNX graph or safetensors file",
        epilog="examples:\n  dinodemo export runs/mine my-backbone\n"
        "  dinodemo export --backbone dinov2-small --format onnx --out vits14.onnx",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_export_options(export)
    export.add_argument("--which", choices=("best", "last", "start"), help="of a run (default: best)")
    export.set_defaults(run=_export)


def _train(args: argparse.Namespace) -> int:
    from ...train.__main__ import report_status, run_arguments

    report = run_arguments(args)
    print(report["sentence"])
    if report.get("left_out"):
        names = args.out / "log.txt"
        print(f"{plural(report['left_out'], 'file')} left out; {names} has the reasons", file=sys.stderr)
    return report_status(report)


def _eval(args: argparse.Namespace) -> int:
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
    return exit_status(found["photos"], found["left_out"])


def _export(args: argparse.Namespace) -> None:
    from ...train import export_run

    settle_export_options(args)
    is_run = args.source is not None and (Path(args.source) / "checkpoints").is_dir()
    if args.which and not is_run:
        raise ValueError(f"--which is for the folder of a run, and {args.source or 'the default'} is none")
    if not args.which or args.which == "best":
        run_export(args, args.source)
        return
    with tempfile.TemporaryDirectory(prefix="dinodemo-export-") as scratch:
        run = Path(args.source).absolute()
        run_export(args, str(export_run(run, Path(scratch) / f"{run.name}-{args.which}", args.which)))
