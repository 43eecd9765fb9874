"""Classify beside scikit-learn's logistic regression on the same features: accuracy on test photos, and seconds.

Class folders train/ and test/ of two public sets (fruit and vegetables in a shop; solar cells). Nothing of the test
photos is seen before the end; "expected" is what the classifier said of itself. --rows times a fit of made-up features.

Figures of dinov2-small-offline at 224 px: see docs/classify.md.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from _common import ROOT
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dinodemo import Engine
from dinodemo.tasks.classify import PhotoClassifier, read_labelled
from dinodemo.tasks.classify.gathered import gather

SETS = ("grocery_store", "elpv_solar_cells")


def tokens(classifier: PhotoClassifier, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens (N, 2, D) and labels (N,) of class folders."""
    with read_labelled(folder) as found:
        photos = gather(classifier, found.items, found.labels)
    return photos.tokens(), np.array(photos.labels)


def compare(name: str, train: tuple, test: tuple) -> None:
    """Print a row for each way."""
    (pairs, labels), (asked, truth) = train, test
    for what, x, y in (
        ("class token", pairs[:, 0], asked[:, 0]),
        ("both", pairs.reshape(len(pairs), -1), asked.reshape(len(asked), -1)),
    ):
        for words, peer in (
            ("", LogisticRegression(max_iter=1000)),
            (", standardised", make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))),
        ):
            print(f"{name:18} scikit-learn, {what + words:28} {peer.fit(x, labels).score(y, truth):.3f}", flush=True)
    started = time.perf_counter()
    classifier = PhotoClassifier().fit_tokens(pairs, labels)
    seconds = time.perf_counter() - started
    found = classifier.predict_tokens(asked)
    right = np.mean([one.label == label for one, label in zip(found, truth, strict=True)])
    report = classifier.report_
    print(
        f"{name:18} Classify, {report.plan.words:32} {right:.3f}  mean probability "
        f"{np.mean([one.probability for one in found]):.3f}, {seconds:.1f} s"
    )
    print(f"{'':18} expected: {report.sentence()}", flush=True)


def time_rows(rows: int) -> None:
    """Print the seconds that a fit of made-up features takes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 50, rows)
    pairs = (rng.normal(size=(50, 2, 384))[labels] + 2 * rng.normal(size=(rows, 2, 384))).astype(np.float32)
    started = time.perf_counter()
    PhotoClassifier().fit_tokens(pairs, labels.astype(str))
    print(f"{rows} photos of 50 classes, width 384: fitted and measured in {time.perf_counter() - started:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "classification")
    parser.add_argument("--backbone", default="dinov2-small-offline")
    parser.add_argument("--rows", type=int, default=10_000)
    args = parser.parse_args()
    time_rows(args.rows)
    if missing := [name for name in SETS if not (args.data / name).is_dir()]:
        sys.exit(f"{args.data} lacks {', '.join(missing)}: give the folder that holds them with --data")
    classifier = PhotoClassifier(Engine(args.backbone))
    for name in SETS:
        compare(name, *(tokens(classifier, args.data / name / part) for part in ("train", "test")))


if __name__ == "__main__":
    main()
