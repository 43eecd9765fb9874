"""Reference-mask segmentation: the usual way, ours and every step between, on pictures with true masks.

The usual way is the mean of the masked patches, cosine, and Otsu's or a fixed threshold. Scores are mean IoU at the
pictures' own size: mean over the targets of a group (one object), then over groups. Settings were chosen on every
second group of a set ("tuned"); "held out" are the groups between. No setting differs between sets. "Pasted objects"
are made by the benchmark: the first set's objects on the third set's photos, a background that no reference showed.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import _strokes
import cv2
import numpy as np
from _common import ROOT
from _insid3 import Insid3
from _pasted import paste_pairs

from dinodemo.io.images import load_image, load_photo
from dinodemo.tasks.pca.basis import otsu_threshold
from dinodemo.tasks.segmentation import ReferenceSegmenter, scores
from dinodemo.tasks.segmentation import reference as module
from dinodemo.tasks.segmentation.grow import Paint
from dinodemo.tasks.segmentation.match import BOUNDS, KIND, OBJECT, bound_at, calibrated
from dinodemo.tasks.segmentation.reference import Prediction
from dinodemo.tasks.segmentation.refine import to_pixels
from dinodemo.tasks.tokens import flat_unit, without

BACKBONE = "dinov2-small-offline"
RESOLUTION = 518
FOLDERS = ("dreambooth_objects", "davis2016", "coco_classes")
PASTED = "pasted objects"  # made here: the DreamBooth objects on photos of the COCO set
SETS = (*FOLDERS, PASTED)
REMOVED = (10, 20, 50, 188)  # directions that INSID3 takes out; 188 is its large model's share
ABSENT = 8  # targets from other groups for each group
HALVES = ("tuned", "held out", "all")


@dataclass(frozen=True)
class Pair:
    """Name the paths of a reference and a target; `half` is 0 for the tuned groups, 1 for those held out."""

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
    """Keep engine, pairs and what is shared between steps."""

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

    def segmenter(self, pair: Pair, target: str = OBJECT, near: bool = True) -> ReferenceSegmenter:
        """Fit on a pair's reference. near: also on its part around a small object."""
        key = (pair.ref_image, pair.ref_mask, target, near)
        if self._fitted is None or self._fitted[0] != key:
            usual, module.CROP_BELOW = module.CROP_BELOW, module.CROP_BELOW if near else 0.0
            try:
                self._fitted = key, self.fit(pair, read_mask(pair.ref_mask), target)
            finally:
                module.CROP_BELOW = usual
        return self._fitted[1]

    def fit(self, pair: Pair, mask: np.ndarray, target: str = OBJECT) -> ReferenceSegmenter:
        return ReferenceSegmenter(self.engine, RESOLUTION, target=target).fit([(self.photo(pair.ref_image), mask)])

    def prediction(self, pair: Pair, target: str = OBJECT, near: bool = True) -> Prediction:
        return self.segmenter(pair, target, near).score(self.photo(pair.target_image))

    def painted(self, pair: Pair, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the object grown from simulated paint on a pair's reference, and the paint itself."""
        truth, rng = read_mask(pair.ref_mask), random.Random(pair.group)
        nothing = np.zeros_like(truth)
        paint = {
            "scribbles": lambda: Paint(_strokes.scribbles(truth, rng), nothing),
            "click": lambda: Paint(_strokes.click(truth), nothing),
            "box": lambda: Paint(nothing, nothing, _strokes.box(truth, rng)),
        }[kind]()
        photo = self.photo(pair.ref_image)
        raw = paint.include
        if paint.box is not None:
            x0, y0, x1, y1 = (round(v) for v in paint.box)
            raw = nothing.copy()
            raw[y0:y1, x0:x1] = True
        return ReferenceSegmenter(self.engine, RESOLUTION).grow(photo, paint).mask, raw

    def searched(self, masks: Sequence[np.ndarray], firsts: list[Pair], pairs: list[Pair]) -> float:
        """Return the mean IoU of a search with other masks on the references; match not asked."""
        values = []
        for mask, first in zip(masks, firsts, strict=True):
            segmenter = self.fit(first, mask)
            for pair in pairs:
                if (pair.group, pair.ref_image) == (first.group, first.ref_image):
                    found = segmenter.score(self.photo(pair.target_image)).mask(min_presence=0)
                    values.append(iou(found, pair.truth))
        return float(np.mean(values))


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


def spread(bench: Bench, pair: Pair) -> np.ndarray:
    """Segment by the votes of the nearest patches alone: no gates, edges or match."""
    segmenter = bench.segmenter(pair)
    reference, target = (without(bench.tokens(path), segmenter.basis_) for path in (pair.ref_image, pair.target_image))
    labels, foreground = scores.foreground_labels(
        scores.reduce_by_area(read_mask(pair.ref_mask), reference.shape[:2]).ravel()
    )
    memory = scores.Memory(flat_unit(reference), labels, np.zeros(len(labels), int), foreground)
    score = scores.spread_labels(flat_unit(target) @ memory.tokens.T, labels, memory.neighbours)
    return to_pixels(score.reshape(target.shape[:2]), pair.truth.shape) > 0.5


def ways(bench: Bench, peers: dict[str, Insid3]) -> dict[str, Callable[[Pair], np.ndarray]]:
    """Name every way to make a mask, from the usual one to ours."""
    table: dict[str, Callable[[Pair], np.ndarray]] = {
        "mean prototype, cosine, Otsu": lambda p: prototype_mask(bench, p, None),
        "mean prototype, cosine, 0.6": lambda p: prototype_mask(bench, p, 0.6),
        "votes of the nearest patches": lambda p: spread(bench, p),
        "+ gates": lambda p: bench.prediction(p, near=False).mask(refine=False, min_presence=0),
        "+ small references twice": lambda p: bench.prediction(p).mask(refine=False, min_presence=0),
        "+ edges, specks (match not asked)": lambda p: bench.prediction(p).mask(min_presence=0),
        "ours, this very object": lambda p: bench.prediction(p).mask(),
        "kind, match not asked": lambda p: bench.prediction(p, KIND).mask(min_presence=0),
        "ours, this kind of thing": lambda p: bench.prediction(p, KIND).mask(),
    }
    for name, peer in peers.items():
        table[name] = lambda p, peer=peer: peer.mask(p.ref_image, read_mask(p.ref_mask), p.target_image)
    return table


def print_scores(bench: Bench, peers: dict[str, Insid3]) -> None:
    print("mean IoU in percent: tuned half / held-out half / all groups")
    print(f"{'':50}" + "".join(f"{name:>22}" for name in SETS))
    for name, way in ways(bench, peers).items():
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


def print_match(bench: Bench) -> None:
    """Print which share of the present objects is missed, and which share of the absent ones painted."""
    from sklearn.metrics import roc_auc_score

    absent = absent_pairs(bench.pairs)
    print("\nmatch: AUROC, percent missed / painted though absent, after 0, 1, 3, 5 answers 'it is not here'")
    for target in BOUNDS:
        here = [bench.prediction(pair, target).patches.cosine for pair in bench.pairs]
        gone = [bench.prediction(pair, target).patches.cosine for pair in absent]
        for name in SETS:
            for half, number in zip(HALVES, (0, 1, None), strict=True):
                inside = lambda p, name=name, number=number: p.set == name and number in (None, p.half)  # noqa: E731
                x = [(p.group, v) for v, p in zip(here, bench.pairs, strict=True) if inside(p)]
                y = [(p.group, v) for v, p in zip(gone, absent, strict=True) if inside(p)]
                area = roc_auc_score([1] * len(x) + [0] * len(y), [v for _, v in x + y])
                rates = (answered(x, y, bound_at(target, RESOLUTION), n) for n in (0, 1, 3, 5))
                cells = "".join(f"   {100 * missed:3.0f} / {100 * painted:3.0f}" for missed, painted in rates)
                print(f"{target:8} {name:20} {half:9} {area:.3f}{cells}")


def answered(
    here: list[tuple[str, float]], gone: list[tuple[str, float]], bound: float, answers: int
) -> tuple[float, float]:
    """Return the shares missed and painted when the best `answers` absent photos of each group were said to be so."""
    missed, painted = [], []
    for group in {g for g, _ in here}:
        absent = sorted((v for g, v in gone if g == group), reverse=True)
        limit = calibrated(bound, absent[:answers], [])
        missed += [v < limit for g, v in here if g == group]
        painted += [v >= limit for v in absent[answers:]]
    return float(np.mean(missed)), float(np.mean(painted)) if painted else 0.0


def print_strokes(bench: Bench) -> None:
    """Print what is made of simulated paint on the references, and what the search then loses."""
    print("\npaint on the reference: IoU with its true mask, grown / the paint itself; then IoU of the search")
    kinds = ("scribbles", "click", "box")
    for name in FOLDERS[:2]:
        for half, number in zip(HALVES[:2], (0, 1), strict=True):
            pairs = [p for p in bench.pairs if p.set == name and p.half == number]
            firsts = list({(p.group, p.ref_image): p for p in pairs}.values())
            full = np.mean([iou(bench.prediction(p).mask(min_presence=0), p.truth) for p in pairs])
            for kind in kinds:
                grown, raw = zip(*(bench.painted(p, kind) for p in firsts), strict=True)
                quality = [
                    np.mean([iou(m, read_mask(p.ref_mask)) for m, p in zip(some, firsts, strict=True)])
                    for some in (grown, raw)
                ]
                found = [bench.searched(masks, firsts, pairs) for masks in (grown, raw)]
                print(
                    f"{name:20} {half:9} {kind:10} {quality[0]:.3f} / {quality[1]:.3f}   search: full mask {full:.3f}, "
                    f"grown {found[0]:.3f}, paint itself {found[1]:.3f}",
                    flush=True,
                )


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
    for name, times in (("scores and match", score), ("mask at a threshold", mask)):
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
        peers = {
            f"INSID3, its own code, no CRF, {removed} directions removed": Insid3(
                args.insid3, bench.engine, RESOLUTION, removed
            )
            for removed in (REMOVED if args.insid3 else ())
        }
        print_scores(bench, peers)
        print_match(bench)
        print_strokes(bench)
        print_times(bench)


if __name__ == "__main__":
    main()
