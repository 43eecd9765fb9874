"""`dinodemo anomaly`: learn from good photos, check others, for folders and pipelines."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ...commands import (
    Batch,
    Target,
    add_command,
    add_resolution,
    open_batch,
    open_engine,
    progress,
    read_ahead,
    report,
    save,
)

if TYPE_CHECKING:
    from ...engine.engine import Engine
    from ...io.images import Photo
    from .detector import AnomalyDetector

FOUND = 4  # exit status: at least one photo is an anomaly
SET_SUFFIX = ".safetensors"


def add_commands(commands) -> None:
    """Add the command to the parser's."""
    from .detector import AUGMENT, FOREGROUND, RESOLUTION
    from .draw import LINE

    parser = add_command(
        commands,
        "anomaly",
        _anomaly,
        "learn what good photos look like, and score others by what is unlike all of them",
        [
            "good/ check/ --out result",
            "good/ check/ --out result --save bottle.safetensors",
            "bottle.safetensors check/ --out result --line 1.2 && echo all good",
        ],
    )
    parser.epilog = f"{parser.epilog}, {FOUND} at least one anomaly (0 with --exit-zero)"
    parser.add_argument("good", help=f"1 to 100 good photos: a folder, a zip or a photo; or a saved set ({SET_SUFFIX})")
    parser.add_argument("photos", nargs="+", metavar="check", help="photos to check: folders, zips or photos")
    parser.add_argument("--out", required=True, type=Path, help="folder of scores.csv and maps/ (16-bit PNG)")
    add_resolution(parser, int(RESOLUTION.default))
    LINE.add_to(parser)
    AUGMENT.add_to(parser)
    FOREGROUND.add_to(parser)
    parser.add_argument("--save", type=Path, metavar="FILE", help=f"also write what was learned ({SET_SUFFIX})")
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 also when there are anomalies")


def _anomaly(args: argparse.Namespace) -> int:
    from .export import FULL_SCALE, scores_csv

    if args.save and args.save.suffix != SET_SUFFIX:
        raise ValueError(f"--save must end in {SET_SUFFIX}, got {args.save}")
    with open_batch(args) as batch:
        engine = open_engine(args)
        detector = _detector(args, engine, batch)
        if args.save:
            save(args.save, detector.to_bytes())
        args.resolution = detector.resolution_
        _check(args, detector, batch)
        bad = sum(row["verdict"] != "good" for row in batch.made)
        rows = [(row["photo"], row["score"], row["verdict"]) for row in batch.made]
        save(args.out / "scores.csv", scores_csv(rows))
        facts = {"photos": batch.made, "anomalies": bad, "line": args.line, "map_full_scale": FULL_SCALE}
        message = f"{bad} of {len(rows)} photos are anomalies; scores and maps in {args.out}"
        status = report(args, engine, {**facts, "good": detector.card()}, message, batch.left_out)
    return FOUND if bad and not args.exit_zero else status


def _detector(args: argparse.Namespace, engine: "Engine", batch: Batch) -> "AnomalyDetector":
    from .detector import AnomalyDetector

    if args.good.lower().endswith(SET_SUFFIX):
        return AnomalyDetector.load(args.good, engine)
    photos = _read_good(args, batch)
    detector = AnomalyDetector(engine, args.resolution, augment=args.augment, foreground=args.foreground).fit(photos)
    for warning in detector.warnings_:
        print(f"note: {warning}", file=sys.stderr)
    return detector


def _read_good(args: argparse.Namespace, batch: Batch) -> "list[Photo]":
    """Read the good photos, a spread of them where there are more than a set takes; bad ones are left out, named."""
    import numpy as np

    from .learning import MOST_GOOD

    photos: list[Photo] = []
    with open_batch(argparse.Namespace(**{**vars(args), "photos": [args.good]})) as found:
        batch.left_out += found.left_out
        targets = found.targets
        if len(targets) > MOST_GOOD:
            print(f"note: {MOST_GOOD} of {len(targets)} good photos are used, evenly spread", file=sys.stderr)
            targets = [targets[i] for i in np.linspace(0, len(targets) - 1, MOST_GOOD).round().astype(int)]
        for target, photo in read_ahead(targets, Target.read):
            if isinstance(photo, Exception):
                batch.left_out.append((target.item.path, str(photo)))
            else:
                photos.append(photo)
    if not photos:
        raise ValueError(f"none of the good photos in {args.good} can be read")
    return photos


def _check(args: argparse.Namespace, detector: "AnomalyDetector", batch: Batch) -> None:
    """Score each photo and write its map; photos that cannot be read are left out."""
    from ...engine.provenance import made_with_name
    from .export import map_png

    words = made_with_name(detector.backbone_, detector.engine.identity)
    for target, photo in progress(read_ahead(batch.targets, Target.read), len(batch.targets)):
        try:
            if isinstance(photo, Exception):
                raise ValueError(str(photo))
            result = detector.predict(photo)
        except ValueError as error:
            batch.left_out.append((target.item.path, str(error)))
            continue
        path = args.out / "maps" / f"{target.name}.png"
        save(path, map_png(result, words))
        facts = {"score": round(result.score, 6), "verdict": result.verdict_at(args.line), "map": str(path)}
        batch.made.append({"photo": target.item.path, **facts})
