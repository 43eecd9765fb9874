"""What the fine-tuning tab shows of a run's folder: curves, log, film strip, verdict. No Gradio, no torch."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...backbones import Backbone
from ...engine.features import Features
from ...io.files import read_json, read_json_lines
from ...io.images import fit_within, load_image
from ...io.render import colourise, enlarge, normalise, pca_picture
from ...io.states import RunState
from ...io.zips import DAMAGE

if TYPE_CHECKING:
    from ...jobs.runs import RunInfo


MOST_POINTS = 600  # of a curve: the browser draws no more in good time
LOG_LINES = 14
LOSSES = ("loss", "classes", "dino", "ibot", "koleo", "gram")
HEALTH = {
    "rank": "effective rank",
    "entropy": "teacher entropy",
    "mean_cosine": "cosine between photos",
    "drift": "patch drift",
}
MEASURES = {"knn": "k-NN accuracy", "crop_recall": "a photo found by a small crop of it"}
RATES = {"lr": "backbone", "head_lr": "heads"}
STATES: dict[str, str] = {
    RunState.QUEUED: "waits in the queue",
    RunState.STARTING: "is starting",
    RunState.RUNNING: "is running",
    RunState.PAUSED: "is paused",
    RunState.STOPPED: "was stopped",
    RunState.INTERRUPTED: "was interrupted",
    RunState.FAILED: "failed",
    RunState.COLLAPSED: "collapsed",
    RunState.FINISHED: "is finished",
}
SNAPSHOT_SIDE, MOST_FRAMES = 224, 11


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl that tell their step, with their numbers alone; a half-written one is left out.

    The file may be damaged, by a full disk or a person.
    """
    lines = read_json_lines(folder / "metrics.jsonl")
    numbers = ({name: value for name, value in line.items() if name == "kind" or _is_number(value)} for line in lines)
    return [line for line in numbers if "step" in line]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def curves(lines: list[dict[str, Any]], kind: str, names: dict[str, str]) -> pd.DataFrame:
    """Return a long table of step, curve, value; thinned evenly."""
    rows = [line for line in lines if line.get("kind") == kind]
    rows = rows[:: max(1, len(rows) * len(names) // MOST_POINTS)]
    points = [
        (row["step"], label, float(row[name]))
        for row in rows
        for name, label in names.items()
        if row.get(name) is not None
    ]
    return pd.DataFrame(points, columns=["step", "curve", "value"])


def loss_curves(lines: list[dict]) -> pd.DataFrame:
    """Return the losses of every step."""
    return curves(lines, "train", {name: name for name in LOSSES})


def rate_curves(lines: list[dict]) -> pd.DataFrame:
    """Return the learning rates of every step."""
    return curves(lines, "train", RATES)


def health_curves(lines: list[dict]) -> pd.DataFrame:
    """Return the health metrics, each as a share of its first value (drift as it is)."""
    rows = [line for line in lines if line.get("kind") == "eval"]
    points = []
    for name, label in HEALTH.items():
        first = next((row[name] for row in rows if row.get(name)), None)
        scale = 1.0 if name in ("drift", "mean_cosine") or not first else first
        points += [(row["step"], label, row[name] / scale) for row in rows if row.get(name) is not None]
    return pd.DataFrame(points, columns=["step", "curve", "value"])


def measure_curves(lines: list[dict]) -> pd.DataFrame:
    """Return the measure that decides whether the result is better."""
    return curves(lines, "eval", MEASURES)


def status(info: "RunInfo", lines: list[dict]) -> str:
    """Return in a line or two how a run stands."""
    message = f"**{info.name}** {STATES.get(info.state, info.state)}"
    if info.state == RunState.QUEUED:
        return message + f", at place {info.queue_position}. One run uses the device at a time."
    if info.total:
        message += f" · step {info.step} of {info.total}"
    speed = next((line["images_per_second"] for line in reversed(lines) if line.get("images_per_second")), None)
    if info.state == RunState.RUNNING and speed:
        message += f" · {speed:.1f} photos/s"
    if info.eta_s:
        message += f" · {duration(info.eta_s)} to go"
    return message + (f"\n\n{info.message}" if info.message else "")


def expected_seconds(forward: Callable[[int], float], values: dict[str, Any], row: Backbone, photos: int) -> float:
    """Estimate the seconds of a run without a time budget, on all cores.

    Each photo goes through the teacher (global crops) and the student (all crops); a trained block's way back costs
    twice its way there.

    Args:
        forward: Gives the measured seconds of one picture of so many patches through the backbone.
        values: Settings of the run.
        row: The backbone.
        photos: Their number.
    """
    seen, small, judged = (
        forward((values[name] // row.patch_size) ** 2) for name in ("global_size", "local_size", "eval_size")
    )
    trained = min(values["max_blocks"] or row.depth, row.depth) / row.depth
    per_photo = 2 * seen + (2 * seen + values["n_local"] * small) * (1 + 2 * trained)
    batch = values["batch_size"] * values["accumulate"]
    steps = values["steps"] or values["epochs"] * photos / batch
    evaluations = 1 + (steps / values["eval_every"] if values["eval_every"] else 10)
    return steps * batch * per_photo + evaluations * 2 * min(photos, values["eval_images"]) * judged


def expected_bytes(row: Backbone) -> float:
    """Estimate a run's memory: 1.1 GB, and 28 bytes a parameter (student, teacher, start, gradient, two moments).

    Measured on a CPU with ViT-S/14 at the default crops, batches of 8 and 16: 1.75 to 1.80 GB, of which this gives 1.7.
    """
    return 1.1e9 + 28 * 12 * row.depth * row.width**2


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def log_tail(folder: Path) -> str:
    """Return the last lines of the log."""
    for name in ("log.txt", "output.txt"):
        try:
            lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        if lines:
            return "\n".join(lines[-LOG_LINES:])
    return ""


def snapshots(folder: Path) -> list[list[tuple[np.ndarray, str]]]:
    """Return strips of pictures of what the teacher saw in three photos at its evaluations, with captions.

    Two strips a photo: patches coloured by one PCA, and the CLS token's attention.
    """
    frames: list[tuple[int, np.ndarray, np.ndarray]] = []
    for path in sorted((folder / "film").glob("step-*.npz")):
        try:
            with np.load(path) as content:
                seen = content["patches"].astype(np.float32), content["attention"].astype(np.float32)
                step = int(path.stem.split("-")[1])
        except (*DAMAGE, KeyError, TypeError):  # it is being written
            continue
        if (
            seen[0].ndim == 4
            and seen[1].shape == seen[0].shape[:3]
            and (not frames or len(frames[0][1]) == len(seen[0]))
        ):
            frames.append((step, *seen))
    kept = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MOST_FRAMES)).round().astype(int))
    frames, strips = [frames[i] for i in kept], []
    for photo in range(len(frames[0][1]) if frames else 0):
        colours = _jointly([_as_features(patches[photo]) for _, patches, _ in frames])
        captions = [f"photo {photo + 1}, step {step}" for step, _, _ in frames]
        strips.append(
            [(pca_picture(c, (SNAPSHOT_SIDE,) * 2), caption) for c, caption in zip(colours, captions, strict=True)]
        )
        strips.append(
            [
                (_heat(attention[photo]), f"{caption}: attention")
                for (_, _, attention), caption in zip(frames, captions, strict=True)
            ]
        )
    return strips


def _heat(attention: np.ndarray) -> np.ndarray:
    return colourise(np.clip(enlarge(normalise(attention), (SNAPSHOT_SIDE,) * 2), 0, 1))


def _jointly(features: list[Features]) -> list[np.ndarray]:
    from ..pca.basis import PatchPCA

    pca = PatchPCA(foreground=None).fit([features[0]])
    return [pca.transform(f) for f in features]


def _as_features(patches: np.ndarray) -> Features:
    h, w, width = patches.shape
    none = np.zeros((0, width), np.float32)
    return Features(patches.mean(axis=(0, 1)), patches, none, (h * 14, w * 14), (h * 14, w * 14), "the run's teacher")


def verdict(folder: Path) -> str:
    """Return the verdict in a sentence and the table of before and after, as Markdown."""
    report = read_json(folder / "report.json")
    if not report:
        return "There is no result yet."
    lines = [
        f"### {'Better than the start' if report.get('better') else 'Not better than the start'}",
        str(report.get("sentence", "")),
        "",
        "| | start | result |",
        "|---|---|---|",
    ]
    before, after = (part if isinstance(part, dict) else {} for part in map(report.get, ("before", "after")))
    names = {**MEASURES, **HEALTH, "centre_norm": "centre norm", "mean_entropy": "entropy of the mean answer"}
    lines += [
        f"| {label} | {_number(name, before.get(name))} | {_number(name, after.get(name))} |"
        for name, label in names.items()
        if name in before
    ]
    return "\n".join(lines)


def _number(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value:.1%}" if name in MEASURES else f"{value:.3g}"


def export_zip(folder: Path) -> bytes:
    """Pack the exported model folder."""
    export = folder / "export"
    if not (export / "config.json").is_file():
        raise ValueError("this run has no result yet")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(export.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(export).as_posix())
    return buffer.getvalue()


def thumbnails(paths: list[Path], most: int = 20) -> list[np.ndarray]:
    """Return small pictures of some of the photos."""
    shown = []
    for path in paths[:: max(1, len(paths) // most)][:most]:
        try:
            shown.append(fit_within(load_image(path), 160))
        except ValueError:
            continue
    return shown
