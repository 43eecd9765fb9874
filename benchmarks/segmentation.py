"""Reference-mask segmentation: the usual way, ours and every step between, on pictures with true masks.

The usual way is the mean of the masked patches, cosine, and Otsu's or a fixed threshold. Scores are mean IoU at the
pictures' own size: mean over the targets of a group (one thing), then over groups. Settings were chosen on every
second group of a set ("tuned"); "held out" are the groups between. No setting differs between sets. "Pasted objects"
are made by the benchmark: the first set's things on the third set's photos, a background that no reference showed.

--data is a folder of sets, each with pairs.csv (object, ref_image, ref_mask, target_image, target_mask), images/ and
masks/.
"""

import argparse
import csv
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from _common import ROOT
from _insid3 import Insid3
from _pasted import paste_pairs

from dinodemo.io.images import load_image, load_photo
from dinodemo.tasks.pca.basis import otsu_threshold
from dinodemo.tasks.segmentation import ReferenceSegmenter, scores
from dinodemo.tasks.segmentation.reference import MIN_PRESENCE, SURE_PRESENCE, Prediction
from dinodemo.tasks.segmentation.refine import to_pixels
from dinodemo.tasks.tokens import flat_unit, without

BACKBONE = "dinov2-small-offline"
RESOLUTION = 518
FOLDERS = ("dreambooth_objects", "davis2016", "coco_classes")
PASTED = "pasted objects"  # made here: the DreamBooth objects on photos of the COCO set
SETS = (*FOLDERS, PASTED)
ABSENT = 8  # targets from other groups for each group
HALVES = ("tuned", "held out", "all")


@dataclass(frozen=True)
class Pair:
    """Hold the paths of a reference and a target; `half` is 0 for the tuned groups, 1 for those held out."""

    set: str
    group: str
    half: int
    ref_image: Path
    ref_mask: Path
    target_image: Path
    target_mask: Path

    @property
    def truth(self) -> np.ndarray:
        return read_mask(self.target_mask)


def read_mask(path: Path) -> np.ndarray:
    return load_image(path)[..., 0] > 127


def read_pairs(data: Path) -> list[Pair]:
    """Read every set's pairs.csv; exits with what to do when a set is missing."""
    pairs = []
    for name in FOLDERS:
        table = data / name / "pairs.csv"
        if not table.is_file():
            sys.exit(f"{table} is missing: give the folder that holds {', '.join(FOLDERS)} with --data")
        with table.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        half = {group: i % 2 for i, group in enumerate(sorted({row["object"] for row in rows}))}
        for row in rows:
            paths = (data / name / row[key] for key in ("ref_image", "ref_mask", "target_image", "target_mask"))
            pairs.append(Pair(name, row["object"], half[row["object"]], *paths))
    return pairs


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def group_mean(pairs: list[Pair], values: list[float]) -> dict[tuple[str, str], float]:
    """Return the group mean of every set and half."""
    result = {}
    for name in SETS:
        for half, number in zip(HALVES, (0, 1, None), strict=True):
            groups: dict[str, list[float]] = {}
            for pair, value in zip(pairs, values, strict=True):
                if pair.set == name and number in (None, pair.half):
                    groups.setdefault(pair.group, []).append(value)
            result[name, half] = float(np.mean([np.mean(v) for v in groups.values()]))
    return result


class Bench:
    """Hold engine, pairs and what is shared between steps."""

    def __init__(self, engine, pairs: list[Pair]):
        self.engine, self.pairs = engine, pairs
        self._photos: dict[Path, object] = {}
        self._fitted: tuple[tuple, ReferenceSegmenter] | None = None

    def photo(self, path: Path):
        if path not in self._photos:
            self._photos[path] = load_photo(path)
        return self._photos[path]

    def tokens(self, path: Path) -> np.ndarray:
        return self.engine.features(self.photo(path), resolution=RESOLUTION).patches

    def segmenter(self, pair: Pair) -> ReferenceSegmenter:
        key = (pair.ref_image, pair.ref_mask)
        if self._fitted is None or self._fitted[0] != key:
            reference = (self.photo(pair.ref_image), read_mask(pair.ref_mask))
            self._fitted = key, ReferenceSegmenter(self.engine, RESOLUTION).fit([reference])
        return self._fitted[1]

    def prediction(self, pair: Pair) -> Prediction:
        return self.segmenter(pair).score(self.photo(pair.target_image))


def prototype_mask(bench: Bench, pair: Pair, threshold: float | None) -> np.ndarray:
    """Segment the usual way; threshold None is Otsu's."""
    reference, target = bench.tokens(pair.ref_image), bench.tokens(pair.target_image)
    height, width = reference.shape[:2]
    inside = cv2.resize(read_mask(pair.ref_mask).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    if not inside.any():
        return np.zeros(pair.truth.shape, bool)
    mean = flat_unit(flat_unit(reference)[inside.ravel() > 0].mean(axis=0)[None])[0]
    cosine = (flat_unit(target) @ mean).reshape(target.shape[:2])
    if threshold is None:
        low, high = cosine.min(), cosine.max()
        threshold = low + (high - low) * otsu_threshold((cosine - low) / (high - low))
    return to_pixels(cosine, pair.truth.shape) > threshold


def built_up(bench: Bench, pair: Pair, step: int) -> np.ndarray:
    """Segment with the steps up to `step`, without refined edges or presence."""
    reference, target = bench.tokens(pair.ref_image), bench.tokens(pair.target_image)
    (height, width), grid = reference.shape[:2], target.shape[:2]
    segmenter = bench.segmenter(pair)
    if step >= 3:
        reference, target = (without(t, segmenter.basis_) for t in (reference, target))
    memory = replace(segmenter.memory_, tokens=flat_unit(reference))
    labels = memory.labels
    if step == 0:
        mask = read_mask(pair.ref_mask).astype(np.float32)
        labels = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST).ravel()
    similarity = flat_unit(target) @ memory.tokens.T
    neighbours, temperature = (memory.neighbours, scores.TEMPERATURE) if step >= 2 else (10, 0.1)
    score = scores.spread_labels(similarity, labels, neighbours, temperature)
    centred = scores.centred_similarity(flat_unit(target), memory)
    if step >= 4:
        score = score * scores.similarity_gate(centred)
    if step >= 5:
        score = scores.lift_faint(score)
    score = score.reshape(grid)
    if step >= 6:
        score = scores.fade_weak_groups(score, centred.reshape(grid))
    return to_pixels(score, pair.truth.shape) > 0.5


def ways(bench: Bench, peer: Insid3 | None) -> dict[str, Callable[[Pair], np.ndarray]]:
    """Name every way to make a mask, from the usual one to ours."""
    steps = (
        "10 nearest patches, temperature 0.1, nearest mask",
        "+ mask reduced by area",
        "+ up to 200 nearest, temperature 0.05",
        "+ place taken out of the tokens",
        "+ gate on centred",
        "+ faint maps lifted",
        "+ groups of patches",
    )
    table = {
        "mean prototype, cosine, Otsu": lambda p: prototype_mask(bench, p, None),
        "mean prototype, cosine, 0.6": lambda p: prototype_mask(bench, p, 0.6),
        **{name: lambda p, i=i: built_up(bench, p, i) for i, name in enumerate(steps)},
        "+ edges (presence not asked)": lambda p: bench.prediction(p).mask(min_presence=0),
        "ours: + empty where absent": lambda p: bench.prediction(p).mask(),
    }
    if peer is not None:
        table["INSID3, its own code, no CRF"] = lambda p: peer.mask(p.ref_image, read_mask(p.ref_mask), p.target_image)
    return table


def print_scores(bench: Bench, peer: Insid3 | None) -> None:
    print("mean IoU in percent: tuned half / held-out half / all groups")
    print(f"{'':50}" + "".join(f"{name:>22}" for name in SETS))
    for name, way in ways(bench, peer).items():
        result = group_mean(bench.pairs, [iou(way(pair), pair.truth) for pair in bench.pairs])
        cells = (" / ".join(f"{100 * result[s, half]:.1f}" for half in HALVES) for s in SETS)
        print(f"{name:50}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


def absent_pairs(pairs: list[Pair]) -> list[Pair]:
    """Pair every group's reference with targets of other groups of the same half that do not show its class."""
    rng = random.Random(0)
    result = []

    def same(pair: Pair) -> list[Pair]:
        return [p for p in pairs if (p.set, p.half) == (pair.set, pair.half)]

    for first in {(p.set, p.group): p for p in pairs}.values():
        shows = {path for p in same(first) if p.group == first.group for path in (p.ref_image, p.target_image)}
        others = [p for p in same(first) if p.group != first.group and p.target_image not in shows]
        for other in rng.sample(others, min(ABSENT, len(others))):
            result.append(
                Pair(
                    first.set,
                    first.group,
                    first.half,
                    first.ref_image,
                    first.ref_mask,
                    other.target_image,
                    other.target_mask,
                )
            )
    return result


def print_presence(bench: Bench) -> None:
    from sklearn.metrics import roc_auc_score

    absent = absent_pairs(bench.pairs)
    present = [bench.prediction(pair).presence for pair in bench.pairs]
    missing = [bench.prediction(pair).presence for pair in absent]
    print(
        f"\npresence, {len(present)} targets with the thing, {len(missing)} without (of other groups); "
        f"errors at the default of {MIN_PRESENCE} and where the page calls it sure"
    )
    for name in SETS:
        for half, number in zip(HALVES, (0, 1, None), strict=True):
            here = [v for v, p in zip(present, bench.pairs, strict=True) if p.set == name and number in (None, p.half)]
            gone = [v for v, p in zip(missing, absent, strict=True) if p.set == name and number in (None, p.half)]
            area = roc_auc_score([1] * len(here) + [0] * len(gone), here + gone)
            print(f"{name:20} {half:9} AUROC {area:.3f}", end="")
            for least in (MIN_PRESENCE, SURE_PRESENCE):
                missed, painted = np.mean(np.less(here, least)), np.mean(np.greater_equal(gone, least))
                print(f"   at {least}: missed {missed:.2f}, painted though absent {painted:.2f}", end="")
            print()


def print_times(bench: Bench, count: int = 40) -> None:
    """Print milliseconds after the features, which the engine's cache holds by now."""
    picked = bench.pairs[:: max(1, len(bench.pairs) // count)]
    score, mask = [], []
    for pair in picked:
        bench.prediction(pair)
        start = time.perf_counter()
        prediction = bench.prediction(pair)
        middle = time.perf_counter()
        prediction.mask(min_presence=0)
        score.append(middle - start)
        mask.append(time.perf_counter() - middle)
    print("\nmilliseconds after the features:   median    95 %")
    for name, times in (("scores and presence", score), ("mask at a threshold", mask)):
        print(f"{name:33} {1e3 * np.median(times):8.0f} {1e3 * np.quantile(times, 0.95):7.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT.parent / "shared" / "data" / "segmentation"
    parser.add_argument("--data", type=Path, default=default, help="folder of the sets (default: %(default)s)")
    parser.add_argument("--insid3", type=Path, help="a checkout of INSID3 to compare with, see _insid3.py")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    pairs = read_pairs(args.data)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from dinodemo import Engine

    with tempfile.TemporaryDirectory() as folder:
        objects, classes = ([p for p in pairs if p.set == name] for name in (FOLDERS[0], FOLDERS[2]))
        pairs += paste_pairs(objects, classes, Path(folder), PASTED)
        bench = Bench(Engine(BACKBONE, device=args.device), pairs)
        print_scores(bench, Insid3(args.insid3, bench.engine, RESOLUTION) if args.insid3 else None)
        print_presence(bench)
        print_times(bench)


if __name__ == "__main__":
    main()
