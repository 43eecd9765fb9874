"""`dinodemo classify fit`, `predict` and `export`: a classifier from labelled photos, used on others."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ...commands import (
    AHEAD,
    Target,
    add_photos,
    open_batch,
    open_engine,
    progress,
    read_ahead,
    save,
)
from ...io.exits import EXIT_HELP, exit_status
from ...io.tables import table_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...io.images import Photo
    from ..retrieval.sources import Item, Problem
    from .classifier import PhotoClassifier, Prediction

RESOLUTION = 224
COLUMNS = ("path", "label", "probability")


def add_commands(commands) -> None:
    """Add the commands to the parser's."""
    classify = commands.add_parser(
        "classify", help="make a classifier of labelled photos, and use it", description="Classify photos."
    )
    parts = classify.add_subparsers(required=True, metavar="fit|predict|export")
    _add_fit(parts)
    _add_predict(parts)
    _add_export(parts)


def _add_fit(parts) -> None:
    from .draw import LEVEL, METHOD, TOKENS

    fit = _parser(
        parts,
        "fit",
        "learn classes from photos in class folders, or from a table of paths and labels",
        ["photos/train --out fruit.safetensors", "photos --labels labels.csv --out fruit.safetensors"],
    )
    fit.add_argument("folder", type=Path, help="folder or zip with a folder for each class; or a table (.csv)")
    fit.add_argument("--labels", type=Path, metavar="FILE.csv", help="table with the columns path and label")
    fit.add_argument("--out", type=Path, required=True, help="file of the classifier (.safetensors)")
    for option in (METHOD, TOKENS, LEVEL):
        option.add_to(fit)
    fit.add_argument(
        "--resolution", type=int, default=RESOLUTION, help="side that the network sees, pixels (default: %(default)s)"
    )
    fit.add_argument("--suspicious", type=Path, metavar="FILE.csv", help="write the photos whose label is doubtful")
    fit.set_defaults(run=_fit)


def _add_predict(parts) -> None:
    from .draw import UNKNOWN_LABELLED

    predict = _parser(
        parts,
        "predict",
        "write the class of each photo into a table",
        ["fruit.safetensors photos/new --out answers.csv", "fruit.safetensors photos/new --out answers.csv --unknown"],
    )
    predict.add_argument("model", type=Path, help="what `classify fit` made")
    add_photos(predict, f"table with the columns {', '.join(COLUMNS)}: .csv or .parquet", RESOLUTION)
    UNKNOWN_LABELLED.add_to(predict)
    predict.set_defaults(run=_predict)


def _add_export(parts) -> None:
    export = _parser(
        parts,
        "export",
        "write a classifier together with its backbone for other programs",
        ["fruit.safetensors --out fruit.onnx", "fruit.safetensors --out fruit-model"],
    )
    export.add_argument("model", type=Path, help="what `classify fit` made")
    export.add_argument(
        "--out", type=Path, required=True, help="a file .onnx, or a folder for AutoModelForImageClassification"
    )
    export.set_defaults(run=_export)


def _parser(parts, name: str, words: str, examples: list[str]) -> argparse.ArgumentParser:
    lines = "".join(f"  dinodemo classify {name} {line}\n" for line in examples)
    parser = parts.add_parser(
        name,
        help=words,
        description=f"{words[0].upper()}{words[1:]}.",
        epilog=f"examples:\n{lines}\n{EXIT_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--backbone", help="name, folder, finished run or hub id (default: the classifier's own)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--backend", default="auto", help="auto, torch or openvino: what runs the network on a CPU")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    return parser


def _fit(args: argparse.Namespace) -> int:
    from .classifier import PhotoClassifier
    from .dataset import read_labelled

    with read_labelled(args.folder, args.labels, args.level) as found:
        engine = open_engine(args)
        classifier = PhotoClassifier(engine, args.method, args.tokens, args.resolution)
        problems = list(found.problems)
        labels = {item.path: label for item, label in zip(found.items, found.labels, strict=True)}
        paths, pairs = _tokens(classifier, found.items, problems)
    if not paths:
        raise ValueError(f"none of the {len(found.items)} photos can be read; the first: {problems[-1][1]}")
    import numpy as np

    classifier.fit_tokens(np.stack(pairs), [labels[path] for path in paths])
    _write(classifier, args.out)
    doubtful = _doubtful(classifier, paths)
    if args.suspicious:
        save(args.suspicious, table_bytes(args.suspicious, ("path", "label", "probably"), doubtful))
    report = classifier.report_
    assert report is not None
    facts = {**classifier.card_, "file": str(args.out), "suspicious": doubtful, "note": found.note}
    lines = [f"{len(paths)} photos, {len(classifier.classes_)} classes. {report.sentence()}", report.outlook()]
    if doubtful:
        lines.append(f"{len(doubtful)} labels are doubtful; --suspicious FILE.csv lists them.")
    message = " ".join(filter(None, [*lines, f"Written to {args.out}."]))
    return _report(args, facts, message, problems, len(paths), found.note)


def _predict(args: argparse.Namespace) -> int:
    classifier = _load(args)
    args.resolution = classifier.resolution
    with open_batch(args) as batch:
        problems = batch.left_out
        paths, pairs = _tokens(classifier, [target.item for target in batch.targets], problems)
    import numpy as np

    found = classifier.predict_tokens(np.stack(pairs)) if pairs else []
    answers = zip(paths, found, strict=True)
    rows = [(path, label_of(one, args.unknown), round(one.probability, 4)) for path, one in answers]
    save(args.out, table_bytes(args.out, COLUMNS, rows))
    unlike = sum(one.is_unknown for one in found)
    note = ""
    if unlike and not args.unknown:
        note = f"{unlike} of {len(found)} are unlike all photos the classifier has seen; --unknown labels them so"
    doubt = getattr(classifier, "doubt_", "")
    facts = {"photos": [dict(zip(COLUMNS, row, strict=True)) for row in rows], "unknown": unlike, "file": str(args.out)}
    message = f"{len(rows)} photos classified; table in {args.out}"
    return _report(args, facts, message, problems, len(rows), "; ".join(filter(None, [note, doubt])))


def _export(args: argparse.Namespace) -> int:
    from .export import export_folder, export_onnx

    classifier = _load(args)
    if args.out.suffix.lower() == ".onnx":
        difference = export_onnx(classifier, args.out)
        message = f"{args.out} gives the same probabilities in ONNX Runtime, to {difference:.1g}"
    else:
        export_folder(classifier, args.out)
        message = f'{args.out} opens with AutoModelForImageClassification.from_pretrained("{args.out}")'
    print(json.dumps({"file": str(args.out)}) if args.json else message)
    return 0


def label_of(prediction: "Prediction", unknown: bool) -> str:
    """Return what is written for a photo."""
    from .classifier import UNKNOWN

    return UNKNOWN if unknown and prediction.is_unknown else prediction.label


def _load(args: argparse.Namespace) -> "PhotoClassifier":
    from ...engine.engine import Engine
    from .classifier import PhotoClassifier

    found = PhotoClassifier.load(args.model)
    engine = Engine(args.backbone or found.card_["backbone"], device=args.device, backend=args.backend)
    return PhotoClassifier.load(args.model, engine)


def _tokens(classifier: "PhotoClassifier", items: "Iterable[Item]", problems: "list[Problem]") -> tuple[list, list]:
    """Return the paths of the photos that can be read, and their tokens; the others are added to the problems."""
    items = list(items)
    waiting: list[str] = []

    def photos() -> "Iterator[Photo]":
        targets = [Target(item, item.name) for item in items]
        for target, photo in read_ahead(targets, Target.read, AHEAD):
            if isinstance(photo, Exception):
                problems.append((target.item.path, str(photo)))
            else:
                waiting.append(target.item.path)
                yield photo

    pairs = list(progress(classifier.tokens_of(photos()), len(items)))
    return waiting, pairs


def _doubtful(classifier: "PhotoClassifier", paths: list[str]) -> list[tuple[str, str, str]]:
    report = classifier.report_
    assert report is not None
    if report.evaluation is None:
        return []
    row_of = {int(row): i for i, row in enumerate(report.rows)}
    truth, predicted = report.evaluation.truth, report.evaluation.predicted
    return [(paths[row], str(truth[row_of[row]]), str(predicted[row_of[row]])) for row in report.suspicious.tolist()]


def _write(classifier: "PhotoClassifier", path: Path) -> None:
    try:
        classifier.save(path)
    except OSError as error:
        raise RuntimeError(f"{path} cannot be written ({error.strerror or error}); choose another --out") from error


def _report(
    args: argparse.Namespace, facts: dict, message: str, problems: "list[Problem]", done: int, note: str
) -> int:
    if args.json:
        left_out = [{"photo": file, "reason": reason} for file, reason in problems]
        print(json.dumps({**facts, "left_out": left_out}))
    else:
        print(message)
        for file, reason in problems:
            print(f"left out: {file}: {reason}", file=sys.stderr)
    if note:
        print(f"note: {note}", file=sys.stderr)
    return exit_status(done, len(problems))
