"""Depth probes on frozen tokens: baselines, one layer, four layers, and the time that tokens computed once save.

Trained on office_hololens' train split at 518 px, tested on its val split (the end of the same walk, which sees some
places again) in metres, and on misc_indoor_a after scale and shift of the inverse depth are fitted to each picture.
Figures are means over pictures at the size of the depth maps. The val split only measures: it stops nothing.

--data is a folder with office_hololens/ and misc_indoor_a/, each with depth.json, rgb/ and depth/.
--save writes the four-layer probe, with its card, to a file.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _common import ROOT

from dinodemo.io.images import load_photo
from dinodemo.tasks.depth import DepthProbe, read_pairs
from dinodemo.tasks.depth.metrics import align, depth_metrics, mean_metrics

BACKBONE = "dinov2-small-offline"
RESOLUTION = 518
BINS = 192  # with 256 the saved probe would have more than 2 MB; the figures are the same
TRAIN, CHECK = "office_hololens", "misc_indoor_a"
COLUMNS = ("rmse", "delta1", "abs_rel", "silog")
CARD = {
    "data": "office_hololens, train split: 95 pairs of a walk through one office floor with a HoloLens, from the "
    "sample data of deep-video-mvs",
    "licence": "MIT (Arda Duzceker 2020)",
    "warning": "It has seen one office floor, indoors, up to about 7 m; elsewhere trust the order, not the metres.",
}
Predict = Callable[[object], np.ndarray]  # a pair -> depth (H, W)


def read_split(data: Path, name: str, split: str) -> list:
    """Read a set's pairs of one split with their photos decoded; exits with what to do when the set is missing."""
    if not (data / name).is_dir():
        sys.exit(f"{data / name} is missing: give the folder that holds {TRAIN} and {CHECK} with --data")
    pairs, problems = read_pairs(data / name)
    if problems:
        sys.exit(f"{data / name}: {problems[:3]}")
    return [(load_photo(pair.image), pair.depth) for pair in pairs if pair.split == split]


def median_of(pairs: list) -> Predict:
    median = float(np.median(np.concatenate([depth[depth > 0] for _, depth in pairs])))
    return lambda pair: np.full(pair[1].shape, median, np.float32)


def position(size: tuple[int, int]) -> np.ndarray:
    """Return (H * W, 6): row, column, their squares and product, 1; both from -1 to 1."""
    y, x = (np.linspace(-1, 1, side) for side in size)
    y, x = (part.ravel() for part in np.meshgrid(y, x, indexing="ij"))
    return np.stack([y, x, y * y, x * x, x * y, np.ones_like(x)], axis=1)


def position_ridge(pairs: list) -> Predict:
    """Regress log depth on the place in the picture alone: how much is "floor near, wall far"."""
    gram, moment = 1e-6 * np.eye(6), np.zeros(6)
    for _, depth in pairs:
        valid = depth.ravel() > 0
        rows = position(depth.shape)[valid]
        gram, moment = gram + rows.T @ rows, moment + rows.T @ np.log(depth.ravel()[valid])
    weights = np.linalg.solve(gram, moment)
    return lambda pair: np.exp(position(pair[1].shape) @ weights).reshape(pair[1].shape).astype(np.float32)


def measure(predict: Predict, pairs: list, aligned: bool) -> dict[str, float]:
    return mean_metrics(
        depth_metrics(align(depth, pair[1]) if aligned else depth, pair[1])
        for pair in pairs
        for depth in [predict(pair)]
    )


def print_figures(name: str, predict: Predict, val: list, check: list) -> None:
    office, misc = measure(predict, val, False), measure(predict, check, True)
    print(
        f"{name:28}" + "".join(f"{office[column]:10.3f}" for column in COLUMNS) + f"{misc['abs_rel']:16.3f}", flush=True
    )


def fit(engine, kind: str, train: list, val: list) -> tuple[DepthProbe, dict[str, float]]:
    """Train a probe; returns it and the seconds that its features and its epochs took."""
    stamps = []
    started = time.perf_counter()
    probe = DepthProbe(kind=kind, resolution=RESOLUTION, bins=BINS).fit(
        engine,
        train,
        val=val,
        stop_early=False,
        progress=lambda *row: stamps.append((time.perf_counter(), row[2])),
        **CARD,
    )
    read = max(when for when, message in stamps if "features" in message)
    trained = sum("features" in message for _, message in stamps) - len(val)
    features = (read - started) * trained / (trained + len(val))
    return probe, {"features": features, "epochs": stamps[-1][0] - read, "total": stamps[-1][0] - started}


def print_times(probe: DepthProbe, seconds: dict[str, float], pairs: int) -> None:
    """Print what the training took and what it would take with the backbone in every epoch (from one pass of it)."""
    epochs = probe.card_["epochs_run"]
    ours = seconds["features"] + seconds["epochs"]
    every = epochs * seconds["features"] + seconds["epochs"]
    print(
        f"\nlin4 on {pairs} pairs, {epochs} epochs: features once {seconds['features']:.0f} s, start and epochs "
        f"{seconds['epochs']:.0f} s, together {ours:.0f} s"
    )
    print(
        f"with the backbone in every epoch (its one pass x {epochs}): {every:.0f} s, {every / ours:.1f} times as long"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT.parent / "shared" / "data" / "depth"
    parser.add_argument("--data", type=Path, default=default, help="folder of the sets (default: %(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--save", type=Path, help="write the four-layer probe to this file")
    args = parser.parse_args()
    train, val = (read_split(args.data, TRAIN, split) for split in ("train", "val"))
    check = read_split(args.data, CHECK, "test")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from dinodemo import Engine

    engine = Engine(BACKBONE, device=args.device)
    print(f"{'':28}" + f"{TRAIN} val".rjust(40) + f"{CHECK}".rjust(16))
    print(f"{'':28}" + "".join(f"{column:>10}" for column in COLUMNS) + f"{'aligned abs_rel':>16}")
    print_figures("median of the training", median_of(train), val, check)
    print_figures("ridge on position alone", position_ridge(train), val, check)
    one, _ = fit(engine, "lin1", train, val)
    print_figures("lin.1", lambda pair: one.predict(engine, pair[0]), val, check)
    four, seconds = fit(engine, "lin4", train, val)
    print_figures("lin.4, bilinear", lambda pair: four.predict(engine, pair[0], guided=False), val, check)
    print_figures("lin.4", lambda pair: four.predict(engine, pair[0]), val, check)
    print_figures("lin.4 with flip", lambda pair: four.predict(engine, pair[0], flip=True), val, check)
    print_times(four, seconds, len(train))
    if args.save:
        four.save(args.save)
        print(f"\n{args.save}: {args.save.stat().st_size / 1e6:.2f} MB; {four.note_}")


if __name__ == "__main__":
    main()
