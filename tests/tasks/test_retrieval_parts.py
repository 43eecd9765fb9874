"""Ranking, places, duplicates, clusters against slow references; the approximate index against exact search."""

import numpy as np
import pytest

from dinodemo.engine.features import Features
from dinodemo.tasks.retrieval import Filter, ImageIndex, analysis, approximate, localize, reader, snapshot
from dinodemo.tasks.retrieval.ranking import FLOOR, RIDGE, Whitening, score, top
from dinodemo.tasks.retrieval.results import Hit
from dinodemo.tasks.retrieval.store import Recipe, Row, Store

WIDTH = 16


def unit_rows(count, seed=0, centres=None):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, WIDTH)) if centres is None else centres[rng.integers(len(centres), size=count)]
    rows = rows + 0.1 * rng.normal(size=(count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_whitening_is_the_inverse_root_of_the_covariance_and_a_ridge():
    rows = unit_rows(50) * np.linspace(0.2, 2, WIDTH)
    ours = Whitening.fit(rows)
    mean = rows.sum(axis=0) / (50 + 10)
    covariance = np.zeros((WIDTH, WIDTH))
    for row in rows:
        covariance += np.outer(row - mean, row - mean) / 50
    ridge = (RIDGE * WIDTH / 50 + FLOOR) * np.trace(covariance) / WIDTH
    inverse = np.linalg.inv(covariance + ridge * np.eye(WIDTH))
    a, b = rows[3] - mean, rows[7] - mean
    expected = a @ inverse @ b / np.sqrt((a @ inverse @ a) * (b @ inverse @ b))
    assert ours.apply(rows[3]) @ ours.apply(rows[7]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_index_of_few_photos_is_hardly_whitened(count):
    rows = unit_rows(count)
    ours = Whitening.fit(rows).apply(rows)
    assert np.isfinite(ours).all()
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert np.allclose(ours @ ours.T, rows @ rows.T, atol=0.35)


def test_photos_that_are_all_the_same_can_be_whitened():
    ours = Whitening.fit(np.repeat(unit_rows(1), 30, axis=0))
    assert np.isfinite(ours.apply(unit_rows(1))).all()


def test_expansion_adds_the_nearest_by_their_cosine():
    rows, query = unit_rows(30), unit_rows(1, seed=9)[0]
    keep = np.arange(30) % 3 > 0
    cosines = [float(row @ query) if k else -np.inf for row, k in zip(rows, keep, strict=True)]
    first, second = sorted(range(30), key=lambda i: -cosines[i])[:2]
    wider = query + max(cosines[first], 0) * rows[first] + max(cosines[second], 0) * rows[second]
    wider /= np.linalg.norm(wider)
    expected = [float(row @ wider) if k else -np.inf for row, k in zip(rows, keep, strict=True)]
    assert np.allclose(score(query, rows, keep, expand=2), expected, atol=1e-5)


def test_top_leaves_out_what_is_masked_and_keeps_the_order_of_equals():
    scores = np.array([0.5, -np.inf, 0.9, 0.5, 0.1])
    assert top(scores, 3).tolist() == [2, 0, 3]
    assert top(scores, 99).tolist() == [2, 0, 3, 4]
    assert top(scores[:0], 3).tolist() == []


def make_features(patches):
    patches = np.array(patches, np.float32)
    h, w, d = patches.shape
    return Features(np.ones(d, np.float32), patches, np.zeros((0, d), np.float32), (h, w), (h, w), "made up")


@pytest.fixture
def scene():
    """A thing of 4 x 4 patches, and a grid of 12 x 16 of other patches that holds it at row 6, column 9."""
    rng = np.random.default_rng(0)
    kind = rng.normal(size=WIDTH)
    thing = kind + 0.3 * rng.normal(size=(4, 4, WIDTH))
    grid = rng.normal(size=(12, 16, WIDTH))
    grid[6:10, 9:13] = thing + 0.1 * rng.normal(size=thing.shape)
    return make_features(thing), make_features(grid), kind


def test_the_place_of_a_thing_is_outlined_in_the_photos_pixels(scene):
    thing, grid, kind = scene
    x0, y0, x1, y1 = localize.best_location(localize.similarity_map(thing, kind, grid), (240, 480))
    expected = (9 * 30, 6 * 20, 13 * 30, 10 * 20)
    assert np.abs(np.subtract((x0, y0, x1, y1), expected)).max() <= 30  # a patch at most
    assert localize.similarity_map(thing, kind, grid).mean() == pytest.approx(0, abs=1e-5)


def test_a_map_without_any_difference_outlines_something_inside():
    x0, y0, x1, y1 = localize.best_location(np.zeros((3, 5)), (30, 50))
    assert (x0, y0, x1, y1) == (0, 0, 50, 30)


def test_mutual_similarity_is_that_of_a_double_loop(scene):
    thing, grid, _ = scene
    a, b = (localize.centred(f.patches) for f in (thing, grid))
    nearest = [max(range(len(b)), key=lambda j: a[i] @ b[j]) for i in range(len(a))]
    back = [max(range(len(a)), key=lambda i: a[i] @ b[j]) for j in range(len(b))]
    pairs = [a[i] @ b[j] for i, j in enumerate(nearest) if back[j] == i]
    assert localize.mutual_similarity(thing, grid) == pytest.approx(np.mean(pairs), abs=1e-5)


def test_reranking_prefers_the_photo_with_the_same_patches(scene):
    thing, grid, _ = scene
    rng = np.random.default_rng(1)
    other = make_features(rng.normal(size=(12, 16, WIDTH)))
    hits = [Hit(name, 0.5, 0.5, None, name, (1, 1), 1, b"") for name in ("other", "same", "gone")]
    found = {"other": other, "same": grid, "gone": None}
    ordered = localize.rerank(thing, hits, lambda hit: found[hit.path])
    assert [hit.path for hit in ordered] == ["same", "other", "gone"]


def test_near_duplicates_are_linked_in_chains(monkeypatch):
    monkeypatch.setattr(analysis, "CHUNK", 7)  # pairs across chunks too
    rows = np.repeat(unit_rows(12), 3, axis=0) + 0.02 * np.random.default_rng(2).normal(size=(36, WIDTH))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)[
        np.random.default_rng(3).permutation(36)
    ]
    group = list(range(36))
    for i in range(36):
        for j in range(36):
            if rows[i] @ rows[j] >= 0.98 and group[i] != group[j]:
                group = [group[i] if g == group[j] else g for g in group]
    expected = [[i for i in range(36) if group[i] == g] for g in set(group)]
    ours = analysis.near_duplicates(rows, 0.98)
    assert sorted(ours) == sorted(g for g in expected if len(g) > 1)
    assert [len(g) for g in ours] == sorted((len(g) for g in ours), reverse=True)
    with pytest.raises(ValueError, match="threshold must lie above 0"):
        analysis.near_duplicates(rows, 1.5)


def test_clusters_find_what_was_put_in_and_start_at_the_centre():
    centres = unit_rows(3)
    sizes = [5, 20, 10]
    rows = np.repeat(centres, sizes, axis=0) + 0.05 * np.random.default_rng(4).normal(size=(35, WIDTH))
    ours = analysis.clusters(rows.astype(np.float32), 3)
    truth = np.repeat(range(3), sizes)
    assert [len(cluster) for cluster in ours] == [20, 10, 5]
    assert all(len(set(truth[cluster])) == 1 for cluster in ours)
    distances = np.linalg.norm(rows[ours[0]] - rows[ours[0]].mean(axis=0), axis=1)
    assert (np.diff(distances) >= -1e-3).all()
    with pytest.raises(ValueError, match="must lie between 2 and the 35 photos"):
        analysis.clusters(rows, 36)


def test_the_map_is_the_first_two_principal_components():
    rows = unit_rows(40)
    u, s, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    assert np.allclose(np.abs(analysis.map2d(rows)), np.abs(u[:, :2] * s[:2]), atol=1e-4)
    assert analysis.map2d(rows[:2]).shape == (2, 2)


def fill(path, vectors, start=0):
    store = Store(path)
    recipe = Recipe("made up", 224, "cls", WIDTH)
    rows = [
        Row(f"{i:064x}", f"/photos/{i}.jpg", f"class {i % 2}", 1, None, 1, 1, b"", None, "made up", 224, vector)
        for i, vector in enumerate(vectors, start)
    ]
    store.append(store.open_or_create(recipe), rows)


@pytest.mark.parametrize("ranking", ["whitened", "cosine"])
def test_a_large_index_is_searched_approximately_and_its_recall_is_measured(tmp_path, monkeypatch, ranking):
    monkeypatch.setattr(reader, "EXACT_ROWS", 500)
    vectors = unit_rows(900, centres=unit_rows(30, seed=5))
    fill(tmp_path / "index", vectors)
    large = ImageIndex(tmp_path / "index", ranking=ranking)
    assert large.statistics().search == "exact, from disk" and large.recall() is None
    large.remove("nothing of this name")  # any change looks whether an index is due
    large.wait()
    statistics = large.statistics()
    assert statistics.search == "approximate" and statistics.note == ""
    assert statistics.recall_at_10 == large.recall() > 0.95
    assert large.search_vector(vectors[17], k=1)[0].path == "/photos/17.jpg"
    assert {h.label for h in large.search_vector(vectors[17], where=Filter(("class 1",)))} == {"class 1"}
    fresh = unit_rows(5, seed=77)
    fill(tmp_path / "index", fresh, start=900)  # not in the index yet, found all the same
    assert large.search_vector(fresh[2], k=1)[0].path == "/photos/902.jpg"


def test_recall_is_what_a_slow_search_says(tmp_path, monkeypatch):
    vectors = unit_rows(300)
    fill(tmp_path / "index", vectors)
    store = Store(tmp_path / "index")
    read = snapshot.Snapshot(store, store.open().version, "cosine", exact_rows=0)
    assert approximate.measure_recall(read) == 1  # without an index every row is compared
    ask = read.candidates
    monkeypatch.setattr(read, "candidates", lambda query, count: tuple(part[:6] for part in ask(query, count)))
    assert approximate.measure_recall(read) == pytest.approx(0.5)  # itself and 5 of 10
