"""Retrieval: descriptors and rankings on three sets, choices made on half of the groups and reported on the others.

dreambooth_objects: each photo asks for the others of its object, among 250 distractors (mAP; R@1 of all). copies: 8
edits of each of 28 photos ask for the original among 250 distractors (R@1). grocery_iconic: photos from a shop ask for
the product's picture (R@1, strict, and lenient: its coarse class). Whitening is learned from each gallery alone, as an
index does. "A" are the objects that settings were chosen on, every second one by name; "B" are the others.

places: photos of objects, each with three distractors in a collage of 2 x 2; another photo of the object asks where it
is (share of outlined regions whose centre lies in the right quarter; by chance 0.25).

Figures of dinov2-small-offline at 224 px, squashed (mAP of all, of A, of B; then R@1 of dreambooth and copies):
cls                        0.943  0.934  0.952   0.987  0.996
cls whitened               0.932  0.918  0.948   0.987  1.000
cls whitened, expanded     0.953  0.939  0.970   0.987  1.000   the default; grocery 0.347 strict, 0.393 lenient
gem                        0.553  0.601  0.499
With the offline default of version 0.1: 0.880, 0.914 and 0.944, gem 0.483; grocery 0.160 strict, 0.187 lenient; places
0.78 in the right quarter; re-ranking 0.943, 100 ms a query more: not worth it, off by default.
Whitening (ridge, floor, expansion) was chosen again on A: (4, 0.1, 2) gave mAP 0.939 and grocery 0.333 on A, 0.970 and
0.307 on B; (1, 4, 2) gives 0.939 and 0.400 on A, 0.970 and 0.293 (one photo less) on B.
Tried and left out: whitening without a ridge (0.75), keeping the aspect ratio (0.941), the mean with the flipped
photo (0.88 before whitening, as without), patches pooled in windows as a region's vector (mAP 0.08 where the class
token of the region has 0.27, on collages).

--data is a folder with dreambooth_objects/, copies/, grocery_iconic/ and distractors_imagenet/.
"""

import argparse
import csv
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _common import ROOT

from dinodemo.io.images import load_image
from dinodemo.tasks.retrieval.descriptor import DESCRIPTORS, describe_one, squash
from dinodemo.tasks.retrieval.localize import (
    RERANK_FIRST,
    RERANK_WEIGHT,
    best_location,
    mutual_similarity,
    similarity_map,
)
from dinodemo.tasks.retrieval.ranking import EXPAND, Whitening, score, top

BACKBONE, RESOLUTION = "dinov2-small-offline", 224
SETS = ("dreambooth_objects", "copies", "grocery_iconic", "distractors_imagenet")


@dataclass(frozen=True)
class Task:
    """Hold queries and a gallery as places in the list of photos, and which answers are right."""

    queries: np.ndarray  # (q,)
    gallery: np.ndarray  # (g,)
    right: np.ndarray  # (q, g) bool
    group: np.ndarray  # (q,) bool: settings may be chosen on it


class Photos:
    """Keep every photo's features once."""

    def __init__(self, engine, data: Path):
        self.engine, self.data = engine, data
        self.paths: list[Path] = []

    def places(self, paths: list[Path]) -> np.ndarray:
        start = len(self.paths)
        self.paths += paths
        return np.arange(start, start + len(paths))

    def squashed(self, place: int):
        return squash(load_image(self.paths[place]), RESOLUTION)

    def features(self, place: int):
        return self.engine.features(self.squashed(place), resolution=RESOLUTION)

    def vectors(self, descriptor: str) -> np.ndarray:
        every = [describe_one(self.engine, self.squashed(i), RESOLUTION, descriptor) for i in range(len(self.paths))]
        return np.stack(every)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def find(folder: Path, name: str) -> Path:
    """Find a file that a table names, from the set's folder or from the one above."""
    return folder / name if (folder / name).is_file() else folder.parent / name


def read_tasks(photos: Photos) -> dict[str, Task]:
    data = photos.data
    if missing := [name for name in SETS if not (data / name).is_dir()]:
        sys.exit(f"{data} lacks {', '.join(missing)}: give the folder that holds them with --data")
    distractors = photos.places(sorted((data / "distractors_imagenet").glob("*.jpg")))
    rows = read_csv(data / "dreambooth_objects" / "labels.csv")
    objects = np.array([row["object"] for row in rows])
    shown = photos.places([find(data / "dreambooth_objects", row["path"]) for row in rows])
    first_half = np.isin(objects, sorted(set(objects))[::2])
    none = np.zeros((len(shown), len(distractors)), bool)
    dreambooth = Task(shown, np.r_[shown, distractors], np.c_[objects[:, None] == objects[None], none], first_half)
    rows = read_csv(data / "copies" / "queries.csv")
    originals = sorted({row["original"] for row in rows})
    gallery = photos.places([data / "copies" / name for name in originals])
    asked = photos.places([data / "copies" / row["query"] for row in rows])
    same = np.array([[row["original"] == name for name in originals] for row in rows])
    none = np.zeros((len(rows), len(distractors)), bool)
    copies = Task(asked, np.r_[gallery, distractors], np.c_[same, none], np.ones(len(rows), bool))
    return {"dreambooth": dreambooth, "copies": copies, **read_grocery(photos)}


def read_grocery(photos: Photos) -> dict[str, Task]:
    folder = photos.data / "grocery_iconic"
    products, shots = read_csv(folder / "gallery.csv"), read_csv(folder / "queries.csv")
    gallery = photos.places([find(folder, row["path"]) for row in products])
    asked = photos.places([find(folder, row["path"]) for row in shots])
    return {
        f"grocery {column}": Task(
            asked,
            gallery,
            np.array([[s[column] == p[column] for p in products] for s in shots]),
            np.ones(len(shots), bool),
        )
        for column in ("product", "coarse_class")
    }


def answers(task: Task, vectors: np.ndarray, whiten: bool, expand: int) -> np.ndarray:
    """Return the score of each gallery photo for each query (q, g); a query is no answer to itself."""
    if whiten:
        vectors = Whitening.fit(vectors[task.gallery]).apply(vectors)
    others = task.gallery[None] != task.queries[:, None]
    return np.stack(
        [score(vectors[q], vectors[task.gallery], keep, expand) for q, keep in zip(task.queries, others, strict=True)]
    )


def average_precision(scores: np.ndarray, right: np.ndarray) -> float:
    found = np.flatnonzero(right[np.argsort(-scores, kind="stable")] & np.isfinite(np.sort(scores)[::-1]))
    return float(np.mean((np.arange(len(found)) + 1) / (found + 1)))


def first_is_right(scores: np.ndarray, right: np.ndarray) -> float:
    return float(right[np.arange(len(right)), scores.argmax(axis=1)].mean())


def print_row(name: str, tasks: dict[str, Task], results: dict[str, np.ndarray]) -> None:
    dreambooth, scores = tasks["dreambooth"], results["dreambooth"]
    precision = np.array([average_precision(s, r) for s, r in zip(scores, dreambooth.right, strict=True)])
    half = dreambooth.group
    hits = [first_is_right(results[task], tasks[task].right) for task in tasks]
    print(
        f"{name:30}{precision.mean():8.3f}{precision[half].mean():8.3f}{precision[~half].mean():8.3f}"
        + "".join(f"{hit:10.3f}" for hit in hits),
        flush=True,
    )


def reranked(photos: Photos, task: Task, scores: np.ndarray) -> np.ndarray:
    """Add the similarity of mutually nearest patches to the first 50 of each query."""
    scores = scores.copy()
    for i, query in enumerate(task.queries):
        asked, first = photos.features(query), top(scores[i], RERANK_FIRST)
        extra = [mutual_similarity(asked, photos.features(task.gallery[place])) for place in first]
        scores[i] -= 10  # behind the first
        scores[i, first] += 10 + RERANK_WEIGHT * np.array(extra)
    return scores


def measure_places(photos: Photos, task: Task, mean: np.ndarray) -> float:
    """Return the share of outlined regions whose centre lies in the quarter of a collage that holds the object."""
    rng = np.random.default_rng(0)
    distractors = task.gallery[len(task.queries) :]
    found = []
    for j, place in enumerate(task.queries):
        quarter = int(rng.integers(4))
        tiles = [photos.squashed(p).rgb for p in rng.choice(distractors, 3, replace=False)]
        tiles.insert(quarter, photos.squashed(place).rgb)
        collage = np.concatenate([np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:], axis=1)])
        features = photos.engine.features(squash(collage, RESOLUTION), resolution=RESOLUTION)
        for i in np.flatnonzero(task.right[:, j] & (task.queries != place)):
            asked = photos.features(task.queries[i])
            token = describe_one(photos.engine, photos.squashed(task.queries[i]), RESOLUTION, "cls") - mean
            x0, y0, x1, y1 = best_location(similarity_map(asked, token, features), collage.shape[:2])
            found.append(((y0 + y1) / 2 >= RESOLUTION) * 2 + ((x0 + x1) / 2 >= RESOLUTION) == quarter)
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT.parent / "shared" / "data" / "retrieval"
    parser.add_argument("--data", type=Path, default=default, help="folder of the sets (default: %(default)s)")
    parser.add_argument("--backbone", default=BACKBONE)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from dinodemo import Engine

    photos = Photos(Engine(args.backbone, device=args.device), args.data)
    tasks = read_tasks(photos)
    print(f"{'':30}{'dreambooth mAP':>24}{'R@1 of:':>10}")
    print(f"{'':30}{'all':>8}{'A':>8}{'B':>8}" + "".join(f"{name.split()[-1][:9]:>10}" for name in tasks))
    for descriptor in DESCRIPTORS:
        vectors = photos.vectors(descriptor)
        for name, whiten, expand in (("", False, 0), (" whitened", True, 0), (" whitened, expanded", True, EXPAND)):
            results = {task: answers(tasks[task], vectors, whiten, expand) for task in tasks}
            print_row(descriptor + name, tasks, results)
    vectors = photos.vectors("cls")
    started = time.perf_counter()
    results = {name: reranked(photos, task, answers(task, vectors, True, EXPAND)) for name, task in tasks.items()}
    queries = sum(len(task.queries) for task in tasks.values())
    print_row("cls ... and re-ranked", tasks, results)
    print(f"re-ranking with tokens at hand: {(time.perf_counter() - started) / queries * 1000:.0f} ms a query")
    mean = vectors[tasks["dreambooth"].gallery].mean(axis=0)
    print(f"places: {measure_places(photos, tasks['dreambooth'], mean):.3f} in the right quarter")


if __name__ == "__main__":
    main()
