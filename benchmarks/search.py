"""Search in 100,000 and 1,000,000 vectors of width 384: ours against scikit-learn, faiss flat and faiss HNSW.

Vectors are generated: clusters of about 100, along directions of falling weight, as class tokens of photos are;
queries are new draws from the clusters. Each way runs in a process of its own: latency of one query (p50, p99),
recall@10 against exact cosine, resident memory, seconds to build. "ours" gives row ids as the others do; "ours, hits"
is the whole `ImageIndex.search_vector`, with path, label and thumbnail of each hit read from the disk.

Needs `pip install faiss-cpu`; without it, faiss is left out.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _common import in_fresh_process, reset_peak

WIDTH, K, QUERIES, WARM = 384, 10, 200, 20
WAYS = ("scikit-learn", "faiss flat", "faiss HNSW", "ours", "ours, hits")
BATCH = 10_000
Search = Callable[[np.ndarray], list[int]]  # a query -> places of the nearest


def make_vectors(count: int, seed: int, centres: np.ndarray) -> np.ndarray:
    """Return unit vectors (count, WIDTH) around random ones of the centres."""
    rng = np.random.default_rng(seed)
    out = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, BATCH):
        part = centres[rng.integers(len(centres), size=min(BATCH, count - start))]
        part = part + 0.5 * spectrum() * rng.standard_normal(part.shape, np.float32)
        out[start : start + BATCH] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return out


def spectrum() -> np.ndarray:
    return (np.arange(1, WIDTH + 1, dtype=np.float32) ** -0.5)[None]


def prepare(folder: Path, count: int) -> None:
    """Write vectors, queries and the exact answers into a folder."""
    rng = np.random.default_rng(0)
    centres = spectrum() * rng.standard_normal((count // 100, WIDTH), np.float32)
    vectors, queries = make_vectors(count, 1, centres), make_vectors(QUERIES, 2, centres)
    exact = np.stack([np.argpartition(-(vectors @ q), K)[:K] for q in queries])
    for name, array in (("vectors", vectors), ("queries", queries), ("exact", exact)):
        np.save(folder / f"{name}.npy", array)


def scikit_learn(vectors: np.ndarray) -> Search:
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=K, metric="cosine").fit(vectors)
    return lambda q: found.kneighbors(q[None], return_distance=False)[0].tolist()


def faiss_way(vectors: np.ndarray, kind: str) -> Search:
    import faiss

    faiss.omp_set_num_threads(1)
    inner = faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexFlatIP(WIDTH) if kind == "flat" else faiss.IndexHNSWFlat(WIDTH, 32, inner)
    if kind == "HNSW":
        index.hnsw.efConstruction, index.hnsw.efSearch = 100, 128
    index.add(vectors)
    return lambda q: index.search(q[None], K)[1][0].tolist()


def build_ours(vectors: np.ndarray, folder: Path) -> None:
    from dinodemo.tasks.retrieval.approximate import build
    from dinodemo.tasks.retrieval.store import Recipe, Row, Store

    store = Store(folder / "index")
    recipe = Recipe("generated", 224, "cls", WIDTH)
    table = store.open_or_create(recipe)
    for start in range(0, len(vectors), BATCH):
        rows = [
            Row(
                f"{i:064x}",
                f"/photos/{i}.jpg",
                None,
                1,
                None,
                1,
                1,
                b"x" * 6000 if i % 100 == 0 else b"x",
                None,
                "generated",
                224,
                vectors[i],
            )
            for i in range(start, min(start + BATCH, len(vectors)))
        ]
        store.append(table, rows)
    build(store.open())


def ours(vectors: np.ndarray, folder: Path, hits: bool) -> Search:
    from dinodemo.tasks.retrieval import ImageIndex
    from dinodemo.tasks.retrieval.snapshot import Snapshot
    from dinodemo.tasks.retrieval.store import Store

    if not (folder / "index").exists():
        build_ours(vectors, folder)
    if hits:
        index = ImageIndex(folder / "index", ranking="cosine")
        return lambda q: [int(hit.sha256, 16) for hit in index.search_vector(q, K)]
    store = Store(folder / "index")
    snapshot = Snapshot(store, store.open().version, "cosine", exact_rows=0)
    columns = snapshot.table.search().with_row_id(True).select(["sha256"]).limit(None).to_arrow()
    place = dict(zip(columns["_rowid"].to_pylist(), (int(d, 16) for d in columns["sha256"].to_pylist()), strict=True))

    def search(query: np.ndarray) -> list[int]:
        store.latest()  # as the index does, to see what others wrote
        return [place[i] for i in snapshot.nearest_ids(query, K)[0].tolist()]

    return search


def measure(way: str, folder: Path) -> dict[str, float]:
    """Build one way and time its queries one by one."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r" if way.startswith("ours") else None)
    queries, exact = np.load(folder / "queries.npy"), np.load(folder / "exact.npy")
    started = time.perf_counter()
    search = {
        "scikit-learn": lambda: scikit_learn(vectors),
        "faiss flat": lambda: faiss_way(vectors, "flat"),
        "faiss HNSW": lambda: faiss_way(vectors, "HNSW"),
        "ours": lambda: ours(vectors, folder, hits=False),
        "ours, hits": lambda: ours(vectors, folder, hits=True),
    }[way]()
    built = time.perf_counter() - started
    for query in queries[:WARM]:
        search(query)
    times, found = [], 0
    memory = reset_peak()
    for query, expected in zip(queries, exact, strict=True):
        started = time.perf_counter()
        answer = search(query)
        times.append(time.perf_counter() - started)
        found += len(set(answer) & set(expected.tolist()))
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return {"p50": p50, "p99": p99, "recall": found / exact.size, "mb": memory / 1e6, "build": built}


def compare(count: int) -> None:
    print(f"\n{count:,} vectors of width {WIDTH}")
    print(f"{'':14}{'p50 ms':>9}{'p99 ms':>9}{'recall@10':>11}{'memory MB':>11}{'build s':>9}")
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), count)
        for way in WAYS:
            try:
                row = rows[way] = in_fresh_process(__file__, way, name)
            except RuntimeError as error:
                print(f"{way:14}left out: {str(error).splitlines()[-1]}")
                continue
            print(
                f"{way:14}{row['p50']:9.2f}{row['p99']:9.2f}{row['recall']:11.3f}{row['mb']:11.0f}{row['build']:9.1f}",
                flush=True,
            )
    print(f"ours is {rows['scikit-learn']['p50'] / rows['ours']['p50']:.1f} times as fast as scikit-learn (p50)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        way, folder = args.measure
        print(json.dumps(measure(way, Path(folder))))
        return
    for count in args.counts:
        compare(count)


if __name__ == "__main__":
    sys.exit(main())
