"""Is learning real? Trainings on the processor, each from photos to a table and curves in benchmarks/results/.

shapes: a small network from scratch learns generated pictures of eight shapes, whose labels it never sees; k-NN on
photos that were held out, at the start and at the end. collapse: the same without centring; the guard has to say so,
and the curve shows what comes when nobody ends it.
continued: the offline default continues on a folder of yours by self-distillation; k-NN on other photos of yours must
not fall.
photos: the same with each photo as its own class, within a budget of time, for several seeds and numbers of photos;
k-NN and linear probe of the test photos at 224 px. The training sees a flat copy, without labels.

    python benchmarks/learning.py [shapes] [collapse]
    python benchmarks/learning.py continued --train FOLDER --test FOLDER      (folders of class folders)
    python benchmarks/learning.py photos --train FOLDER --test FOLDER --minutes 10 --seeds 0 1 2 [--photos 50 100]
"""

import argparse
import csv
import datetime
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from dinodemo import Engine
from dinodemo.backbones import OFFLINE_DEFAULT
from dinodemo.io.files import PHOTO_SUFFIXES
from dinodemo.io.states import RunState
from dinodemo.tasks.probe import knn_classify, linear_probe
from dinodemo.train import FinetuneConfig, finetune
from dinodemo.train.config import SCRATCH
from dinodemo.train.evaluate import evaluate_knn

RESULTS = Path(__file__).parent / "results"
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "half", "bars")
SIDE, EACH = 64, 120
TINY = {
    "scratch_width": 96,
    "scratch_depth": 4,
    "scratch_heads": 3,
    "scratch_patch": 8,
    "head_hidden": 256,
    "head_bottleneck": 64,
    "global_size": 48,
    "local_size": 24,
    "n_local": 2,
    "eval_size": 48,
    "batch_size": 32,
    "prototypes": 512,
    "global_scale": (0.6, 1.0),
    "local_scale": (0.3, 0.6),
    "lr": 1e-3,
    "momentum_start": 0.98,
    "teacher_temp": 0.02,
    "teacher_temp_start": 0.02,
    "drop_path": 0.0,
    "ibot_weight": 0.0,
    "koleo_weight": 0.0,  # one shape on each picture: DINO's loss alone does best
}
CURVES = ("knn", "rank", "mean_cosine", "entropy", "mean_entropy")


def outline(shape: str) -> list[np.ndarray]:
    """Return polygons, each of (n, 2) points around (0, 0), that are filled by the even-odd rule."""
    if shape in ("circle", "ring", "half"):
        disc = polygon(40)
        return {"circle": [disc], "ring": [disc, 0.55 * disc], "half": [disc[:21]]}[shape]
    if shape == "star":
        return [polygon(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]]
    if shape == "cross":
        return [box(1.0, 0.3), box(0.3, 1.0), box(0.3, 0.3)]
    if shape == "bars":
        return [box(0.9, 0.16) + np.array((0, y)) for y in (-0.62, 0.0, 0.62)]
    return [polygon({"square": 4, "triangle": 3}[shape])]


def polygon(corners: int) -> np.ndarray:
    angles = np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def box(half_width: float, half_height: float) -> np.ndarray:
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (half_width, half_height)


def draw(shape: str, chance: np.random.Generator) -> np.ndarray:
    """Draw a shape of random grey, place, size and turn on mottled grey; (SIDE, SIDE) uint8.

    Grey, since by colour photos would be told apart first.
    """
    picture = cv2.resize(chance.normal(128, 20, (8, 8)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    turn, size = chance.uniform(0, 2 * np.pi), chance.uniform(0.3, 0.45) * SIDE
    rotation = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = SIDE / 2 + chance.uniform(-0.1, 0.1, 2) * SIDE
    points = [np.round(16 * (part @ rotation.T + middle)).astype(np.int32) for part in outline(shape)]
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, points, 255, cv2.LINE_AA, shift=4)
    grey = 128 + chance.choice((-1, 1)) * chance.uniform(50, 120)
    picture += (grey - picture) * mask / 255 + chance.normal(0, 6, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_shapes(folder: Path) -> Path:
    """Write EACH pictures of every shape into class folders; the labels judge the result and train nothing."""
    chance = np.random.default_rng(0)
    for shape in SHAPES:
        (folder / shape).mkdir(parents=True)
        for i in range(EACH):
            cv2.imwrite(str(folder / shape / f"{i}.png"), draw(shape, chance))
    return folder


def learn(photos: Path, out: Path, backbone: str, settings: dict) -> tuple[dict, list[dict], float]:
    """Train; returns the report, the evaluations and the seconds it took."""
    count = sum(1 for path in photos.rglob("*") if path.is_file())
    start = time.perf_counter()
    report = finetune(photos, out, FinetuneConfig.for_dataset(count, backbone, "cpu", **settings), device="cpu")
    if report["state"] == RunState.STOPPED:
        raise SystemExit("stopped; the results of before are kept")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return report, [line for line in lines if line["kind"] == "eval"], time.perf_counter() - start


def shapes(work: Path, args: argparse.Namespace) -> tuple[list[dict], list[str]]:
    steps = args.steps or 3000
    photos = write_shapes(work / "photos")
    settings = {**TINY, "steps": steps, "eval_every": max(1, steps // 20), "on_fall": "continue"}
    report, curve, took = learn(photos, work / "run", SCRATCH, settings)
    first, last = curve[0]["knn"], curve[-1]["knn"]
    message = (
        f"k-NN on held-out pictures {first:.1%} -> {last:.1%} ({last / first:.2f} times; chance {1 / len(SHAPES):.1%})"
    )
    return curve, ["shapes, from scratch", f"{steps} steps, {took / 60:.1f} min", message, report["sentence"]]


def collapse(work: Path, args: argparse.Namespace) -> tuple[list[dict], list[str]]:
    steps = args.steps or 600
    photos = write_shapes(work / "photos")
    settings = {**TINY, "steps": steps, "centering": "off"}
    report, seen, _ = learn(photos, work / "guarded", SCRATCH, {**settings, "eval_every": 5})
    loose = {**settings, "eval_every": max(1, steps // 20), "on_fall": "continue"}
    _, curve, took = learn(photos, work / "run", SCRATCH, loose)
    first, last = curve[0], curve[-1]
    message = (
        f"{report['state']}, says the monitor at step {seen[-1]['step']}; let run on: k-NN {first['knn']:.1%} -> "
        f"{last['knn']:.1%}, rank {first['rank']:.0f} -> {last['rank']:.0f}, cosine between photos "
        f"{first['mean_cosine']:.2f} -> {last['mean_cosine']:.2f}"
    )
    return curve, ["shapes, no centring", f"{steps} steps, {took / 60:.1f} min", message, report["sentence"]]


def flat_copy(source: Path, folder: Path, photos: int = 0, seed: int = 0) -> Path:
    """Copy photos (all, or some drawn by the seed) into one folder: nothing can see their labels."""
    folder.mkdir(parents=True)
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
    kept = np.random.default_rng(seed).permutation(len(paths))[: photos or None]
    for number, i in enumerate(kept):
        shutil.copyfile(paths[i], folder / f"{number:05}{paths[i].suffix}")
    return folder


def scores(backbone: str, train: Path, test: Path) -> tuple[float, float]:
    """Return k-NN and linear-probe accuracy on the test photos, centres of 224 px."""
    engine = Engine(backbone, device="cpu")
    rows, labels = [], []
    for folder in (train, test):
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
        found = engine.features_batch(paths, resolution=224, crop="center")
        rows.append(np.stack([f.cls for f in found]))
        labels.append(np.array([p.relative_to(folder).parts[0] for p in paths]))
    near = knn_classify(rows[0], labels[0], rows[1], k=10)
    line = linear_probe(rows[0], labels[0]).predict(rows[1])
    return float((near == labels[1]).mean()), float((line == labels[1]).mean())


def photos(work: Path, args: argparse.Namespace) -> tuple[list[dict], list[str]]:
    if not (args.train and args.test):
        raise SystemExit("photos needs --train FOLDER and --test FOLDER, both of class folders")
    start, lines, curve, report = scores(args.backbone, args.train, args.test), [], [], {}
    for count in args.photos or [0]:
        found = []
        for seed in args.seeds:
            run = work / f"run-{count}-{seed}"
            flat = flat_copy(args.train, work / f"photos-{count}-{seed}", count, seed)
            report, curve, _ = learn(flat, run, args.backbone, {"minutes": args.minutes, "seed": seed})
            found.append(scores(str(run / "export"), args.train, args.test))
            print(f"{count or 'all'} photos, seed {seed}:", found[-1], report["sentence"], flush=True)
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
        lines.append(
            f"{count or 'all'} photos: k-NN {start[0]:.1%} -> {mean[0]:.1%} (spread {spread[0]:.1%}), "
            f"linear {start[1]:.1%} -> {mean[1]:.1%} (spread {spread[1]:.1%})"
        )
    length = f"{args.minutes:g} min, {len(args.seeds)} seeds"
    return curve, [f"{args.train.parent.name}, {args.backbone}", length, "; ".join(lines), report["sentence"]]


def continued(work: Path, args: argparse.Namespace) -> tuple[list[dict], list[str]]:
    if not (args.train and args.test):
        raise SystemExit("continued needs --train FOLDER and --test FOLDER, both of class folders")
    steps, flat = args.steps or 100, flat_copy(args.train, work / "photos")
    settings = {"objective": "dino", "steps": steps, "eval_every": max(1, steps // 4)}
    report, curve, took = learn(flat, work / "run", OFFLINE_DEFAULT, settings)
    messages = []
    for size in (112, 224):
        start, end = (
            evaluate_knn(str(b), args.test, args.train, device="cpu", size=size)
            for b in (OFFLINE_DEFAULT, work / "run" / "export")
        )
        messages.append(f"at {size} px {start['knn']:.2%} -> {end['knn']:.2%}")
    row = [
        f"{args.train.parent.name}, continued",
        f"{steps} steps, {took / 60:.1f} min",
        f"k-NN on {start['photos']} test photos {', '.join(messages)}",
        report["sentence"],
    ]
    return curve, row


PARTS: dict[str, Callable] = {"shapes": shapes, "collapse": collapse, "continued": continued, "photos": photos}


def write_curves(name: str, curve: list[dict]) -> None:
    """Write the evaluations of a run as a table and as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    kept = [key for key in (*CURVES, "crop_recall") if key in curve[0]]
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *kept])
        writer.writerows([line["step"], *(f"{line[key]:.5f}" for key in kept)] for line in curve)
    figure, axes = plt.subplots(1, len(kept), figsize=(2.6 * len(kept), 2.2), layout="constrained")
    for axis, key in zip(axes, kept, strict=True):
        axis.plot([line["step"] for line in curve], [line[key] for line in curve])
        axis.set(title=key.replace("_", " "), xlabel="step")
    figure.savefig(RESULTS / f"{name}.png", dpi=80)
    plt.close(figure)


def write_row(name: str, row: list[str]) -> None:
    """Put a part's row into the table, in the place of the one before."""
    table = RESULTS / "learning.json"
    rows = json.loads(table.read_text()) if table.exists() else {}
    made = f"{datetime.date.today()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    rows[name] = [*row, made]
    table.write_text(json.dumps(rows, indent=1) + "\n")
    lines = [
        "# Learning, measured",
        "",
        "Made by `python benchmarks/learning.py`; curves in the files beside it.",
        "",
        "| run | length | result | the report's sentence | made |",
        "|---|---|---|---|---|",
    ]
    lines += [
        "| " + " | ".join(rows[part]) + " |" for part in sorted(rows, key=lambda row: [*PARTS].index(row.split()[0]))
    ]
    (RESULTS / "learning.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: shapes and collapse")
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--backbone", default=OFFLINE_DEFAULT)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--photos", type=int, nargs="+", help="numbers of photos; default: all")
    parser.add_argument("--steps", type=int, help="instead of a part's own number")
    parser.add_argument("--keep", type=Path, help="an empty folder for the runs, which are deleted otherwise")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for name in args.parts or ("shapes", "collapse"):
        with tempfile.TemporaryDirectory() as work:
            curve, row = PARTS[name](args.keep or Path(work), args)
        title = f"{name} {row[0]}" if name == "photos" else name  # a row for each folder
        write_curves(title.replace(", ", "_").replace(" ", "_"), curve)
        write_row(title, row)
        print(": ".join(row[:3]), row[3], sep="\n", flush=True)


if __name__ == "__main__":
    main()
