"""Depth probes on frozen tokens: baselines, one layer, four layers, new places, order of points, time saved.

Trained on office_hololens' train split and more_places at 518 px, all places counting the same; tested on the office's
val split (the end of the same walk, which sees some places again) in metres, and on misc_indoor_a after scale and shift
of the inverse depth are fitted to each picture. Metrics are means over pictures at the size of the depth maps. The val
split only measures: it stops nothing.

--data is a folder with office_hololens/, more_places/ and misc_indoor_a/, each with depth.json, rgb/ and depth/.
--save writes the four-layer probe, with its card, to a file.
--probe measures a probe's file instead of training one; with --nearness N its map of near and far is first fitted
again, on every Nth picture of the office walk and all others.
--places leaves one place out at a time: position alone, the probe, and its map of near and far, which is what is shown
of pictures unlike the training's.
depth_order.json holds points of photos (assets/, and gallery/ and coco_classes of --photos) of which the nearer was
chosen by eye; printed is how often a probe agrees, beside "the lower one is nearer".
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _common import ROOT

from dinodemo.io.images import Photo, load_photo
from dinodemo.tasks.depth import DepthProbe, read_pairs
from dinodemo.tasks.depth.metrics import align, depth_metrics, mean_metrics
from dinodemo.tasks.depth.refit import add_nearness
from dinodemo.tasks.depth.tokens import read_tokens
from dinodemo.tasks.depth.upsample import guided_to_pixels

BACKBONE = "dinov2-small-offline"
RESOLUTION = 518
BINS = 160  # with 256 the saved probe would have more than 2 MB
EPOCHS = 4
TRAIN, MORE, CHECK = "office_hololens", "more_places", "misc_indoor_a"
WALK = "office_floor"
COLUMNS = ("rmse", "delta1", "abs_rel", "silog")
CARD = {
    "data": "office_hololens (95 pairs of one office floor, HoloLens, from deep-video-mvs) and more_places (33 pairs: "
    "a lounge of nvblox, a rendered living room of slambook2 and ICL-NUIM, a lab floor of aims-slam)",
    "licence": "MIT (deep-video-mvs, slambook2, aims-slam), Apache-2.0 (nvblox)",
    "warning": "It has seen four places indoors, up to about 8 m.",
}
ORDER = Path(__file__).with_name("depth_order.json")
Predict = Callable[[object], np.ndarray]  # a pair -> depth (H, W)


class Known(NamedTuple):
    """A photo, its depth (H, W), and the place."""

    photo: Photo
    depth: np.ndarray
    place: str


def read_split(data: Path, name: str, split: str) -> list:
    """Read a set's pairs of one split with their photos decoded; exits with what to do when the set is missing."""
    if not (data / name).is_dir():
        sys.exit(f"{data / name} is missing: give the folder that holds {TRAIN} and {CHECK} with --data")
    pairs, problems = read_pairs(data / name)
    if problems:
        sys.exit(f"{data / name}: {problems[:3]}")
    return [Known(load_photo(pair.image), pair.depth, place_of(pair)) for pair in pairs if pair.split == split]


def place_of(pair) -> str:
    """Return the place of a pair; OSD's table tops are one."""
    return "osd" if pair.group.startswith("osd") else pair.group


def median_of(pairs: list) -> Predict:
    median = float(np.median(np.concatenate([depth[depth > 0] for _, depth, _ in pairs])))
    return lambda pair: np.full(pair[1].shape, median, np.float32)


def position(size: tuple[int, int]) -> np.ndarray:
    """Return (H * W, 6): row, column, their squares and product, 1; both from -1 to 1."""
    y, x = (np.linspace(-1, 1, side) for side in size)
    y, x = (part.ravel() for part in np.meshgrid(y, x, indexing="ij"))
    return np.stack([y, x, y * y, x * x, x * y, np.ones_like(x)], axis=1)


def position_ridge(pairs: list) -> Predict:
    """Regress log depth on the place in the picture alone: how much is "floor near, wall far"."""
    gram, moment = 1e-6 * np.eye(6), np.zeros(6)
    for _, depth, _ in pairs:
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


def print_metrics(name: str, predict: Predict, val: list, check: list) -> None:
    office, misc = measure(predict, val, False), measure(predict, check, True)
    print(
        f"{name:28}" + "".join(f"{office[column]:10.3f}" for column in COLUMNS) + f"{misc['abs_rel']:16.3f}", flush=True
    )


def fit(engine, kind: str, train: list[Known], val: list[Known]) -> tuple[DepthProbe, dict[str, float]]:
    """Train a probe; returns it and the seconds that its features and its epochs took."""
    stamps: list[tuple[float, str]] = []
    started = time.perf_counter()
    probe = DepthProbe(kind, EPOCHS, RESOLUTION, BINS, balanced=True, engine=engine).fit(
        [pair[:2] for pair in train],
        val=[pair[:2] for pair in val],
        groups=[pair.place for pair in train],
        stop_early=False,
        progress=lambda *row: stamps.append((time.perf_counter(), row[2])),
        **CARD,
    )
    read = max(when for when, message in stamps if "features" in message)
    trained = sum("features" in message for _, message in stamps) - len(val)
    features = (read - started) * trained / (trained + len(val))
    return probe, {"features": features, "epochs": stamps[-1][0] - read, "total": stamps[-1][0] - started}


def near_and_far(engine, probe: DepthProbe, photo: Photo) -> np.ndarray:
    """Return the probe's map of near and far for a photo, (H, W), whether it knows such photos or not."""
    patches, _ = read_tokens(engine, photo, tuple(probe.card_["layers"]), RESOLUTION)
    return guided_to_pixels(probe.nearness_.depth(patches), photo.rgb)


def refit(engine, probe: DepthProbe, train: list[Known], val: list[Known], step: int) -> None:
    """Fit a probe's map of near and far on every step-th picture of the walk and all others."""
    walk = [pair for pair in train if pair.place == WALK][::step]
    chosen = walk + [pair for pair in train if pair.place != WALK]
    pairs, measured = ([pair[:2] for pair in part] for part in (chosen, val))
    add_nearness(probe, engine, pairs, measured, [pair.place for pair in chosen])


def print_places(engine, pairs: list[Known]) -> None:
    """Print the aligned AbsRel in each place of probes that have seen all others, beside the place in the picture."""
    print(f"\nleft out: {'place':32}{'position':>10}{'probe':>10}{'near, far':>10}")
    rows = []
    for place in sorted({pair.place for pair in pairs}):
        train = [pair for pair in pairs if pair.place != place]
        test = [pair for pair in pairs if pair.place == place]
        probe, _ = fit(engine, "lin4", train, test[:1])
        each = [
            measure(predict, test, True)["abs_rel"]
            for predict in (
                position_ridge(train),
                lambda pair, probe=probe: probe.predict(engine, pair[0]),
                lambda pair, probe=probe: near_and_far(engine, probe, pair[0]),
            )
        ]
        rows.append(each)
        print(f"{'':10}{place[:32]:32}" + "".join(f"{value:10.3f}" for value in each), flush=True)
    print(f"{'':10}{'mean of places':32}" + "".join(f"{value:10.3f}" for value in np.mean(rows, axis=0)))


def find_photo(photos: Path, row: dict) -> Path:
    folders = {"assets": ROOT / "assets", "gallery": photos / "gallery"}
    return folders.get(row["set"], photos / "segmentation" / "coco_classes" / "images") / row["photo"]


def print_order(engine, probe: DepthProbe, photos: Path) -> None:
    """Print how often the nearer of two points is nearer by the probe, and how often it is the lower one."""
    right, lower, inside, seen = [], [], [], 0
    for row in json.loads(ORDER.read_text())["photos"]:
        if not (path := find_photo(photos, row)).is_file():
            continue
        seen += 1
        found = probe.estimate(engine, path)
        inside.append(found.inside is not False)
        height, width = found.depth.shape
        for x, y, other_x, other_y in row["pairs"]:
            at = [found.depth[int(v * height), int(u * width)] for u, v in ((x, y), (other_x, other_y))]
            right.append(at[0] < at[1])
            lower.append(y > other_y)
    agree, position = np.array(right), np.array(lower)
    print(
        f"\norder of {len(right)} pairs of points in {seen} photos: probe {agree.mean():.3f}, the lower one is nearer "
        f"{position.mean():.3f}; where it is not: probe {agree[~position].mean():.3f}; "
        f"{np.mean(inside):.2f} of the photos keep their metres"
    )


def print_world(engine, probe: DepthProbe, val: list[Known], check: list[Known]) -> None:
    """Print which share of pictures count as being like the training's."""
    shares = [np.mean([probe.estimate(engine, pair.photo).inside for pair in part]) for part in (val, check)]
    print(f"keep their metres: {shares[0]:.2f} of {TRAIN} val, {shares[1]:.2f} of {CHECK}")


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
    parser.add_argument("--photos", type=Path, default=default.parent, help="folder with gallery/ and segmentation/")
    parser.add_argument("--save", type=Path, help="write the four-layer probe to this file")
    parser.add_argument("--probe", type=Path, help="measure this probe instead of training one")
    parser.add_argument("--nearness", type=int, metavar="N", help="with --probe: fit its map of near and far again")
    parser.add_argument("--places", action="store_true", help="also leave one place out at a time")
    args = parser.parse_args()
    train, val = (read_split(args.data, TRAIN, split) for split in ("train", "val"))
    train, check = train + read_split(args.data, MORE, "train"), read_split(args.data, CHECK, "test")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from dinodemo import Engine

    engine = Engine(BACKBONE, device=args.device)
    print(f"{'':28}" + f"{TRAIN} val".rjust(40) + f"{CHECK}".rjust(16))
    print(f"{'':28}" + "".join(f"{column:>10}" for column in COLUMNS) + f"{'aligned abs_rel':>16}")
    print_metrics("median of the training", median_of(train), val, check)
    print_metrics("ridge on position alone", position_ridge(train), val, check)
    if args.probe:
        four = DepthProbe.load(args.probe)
        if args.nearness:
            refit(engine, four, train, val, args.nearness)
    else:
        one, _ = fit(engine, "lin1", train, val)
        print_metrics("lin.1", lambda pair: one.predict(engine, pair[0]), val, check)
        four, seconds = fit(engine, "lin4", train, val)
    print_metrics("lin.4, bilinear", lambda pair: four.predict(engine, pair[0], guided=False), val, check)
    print_metrics("lin.4", lambda pair: four.predict(engine, pair[0]), val, check)
    print_metrics("lin.4 with flip", lambda pair: four.predict(engine, pair[0], flip=True), val, check)
    print_world(engine, four, val, check)
    print_order(engine, four, args.photos)
    if not args.probe:
        print_times(four, seconds, len(train))
    if args.places:
        print_places(engine, [*train, *check])
    if args.save:
        four.save(args.save)
        print(f"\n{args.save}: {args.save.stat().st_size / 1e6:.2f} MB; {four.note_}")


if __name__ == "__main__":
    main()
