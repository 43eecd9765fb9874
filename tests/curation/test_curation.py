"""Curation: what is suggested, what stays, and that the edge cases of a folder are no errors."""

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dinodemo.curation import (
    Thresholds,
    balanced,
    clusters,
    examine,
    kept,
    map2d,
    more_like,
    near_copies,
    suggest,
)
from dinodemo.curation.copies import best_overlap
from dinodemo.curation.examine import SIDE, Examination, quality

ASSETS = Path(__file__).resolve().parents[2] / "assets"
PHOTOS = sorted(ASSETS.glob("*.jpg"))


def scene(seed: int, size: int = 256) -> np.ndarray:
    """A picture of soft blobs, different for every seed."""
    noise = np.random.default_rng(seed).uniform(0, 1, (size, size)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), size / 24)
    soft = soft / soft.std() + noise / 2
    return cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def small(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def made_up(vectors: np.ndarray, **changes) -> Examination:
    """An examination of photos that need not exist."""
    n = len(vectors)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = Examination(
        tuple(Path(f"{i}.jpg") for i in range(n)),
        tuple(str(i) for i in range(n)),
        np.full((n, 2), 400),
        vectors.astype(np.float32),
        np.stack([small(scene(i)) for i in range(n)]),
        np.tile(np.float32([0.5, 200, 150, 4]), (n, 1)),
        (),
    )
    return replace(whole, **changes)


def test_examine_lists_unreadable_files_and_keeps_the_order(engine, tmp_path):
    for name in ("b", "a"):
        Image.fromarray(scene(ord(name))).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    told = []
    found = examine(
        engine,
        [tmp_path / "b.png", tmp_path / "bad.jpg", tmp_path / "gone.jpg", tmp_path / "a.png"],
        resolution=56,
        progress=lambda *done: told.append(done),
    )
    assert [p.name for p in found.paths] == ["b.png", "a.png"] and len(found) == 2
    assert [p.name for p, _ in found.problems] == ["bad.jpg", "gone.jpg"] and all(r for _, r in found.problems)
    assert told[-1] == (4, 4)
    assert found.digests[1] == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    expected = engine.features(np.stack([scene(ord("a"))] * 3, axis=-1)[::1], resolution=56)
    assert found.vectors[1] @ expected.cls / np.linalg.norm(expected.cls) > 0.999


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_handful_of_photos_is_no_error(engine, tmp_path, count):
    paths = [tmp_path / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(scene(0)).save(path)  # all the same
    found = examine(engine, paths, resolution=56)
    suggestions = suggest(found)
    assert [s.kind for s in suggestions] == ["copy"] * max(count - 1, 0)
    assert kept(found, [s.path for s in suggestions]) == paths[:1]
    assert len(clusters(found)) == count and map2d(found).shape == (count, 2)


EDITS = {
    "brighter": lambda p: (p * 0.5 + 100).astype(np.uint8),
    "mirrored": lambda p: p[:, ::-1],
    "smaller": lambda p: cv2.resize(p, (40, 40)),
    "framed": lambda p: cv2.copyMakeBorder(p, 40, 40, 60, 60, cv2.BORDER_CONSTANT, value=20),
    "cropped": lambda p: p[40:216, 30:206],
    "turned": lambda p: cv2.warpAffine(p, cv2.getRotationMatrix2D((127.5, 127.5), 15, 1), (256, 256)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_copy_lies_over_its_original_and_another_picture_does_not(edit):
    copy = EDITS[edit](scene(1))
    stretch = 1 / (copy.shape[1] / copy.shape[0])
    assert best_overlap(small(scene(1)), small(copy), stretch) > (0.85 if edit == "turned" else 0.9)
    assert best_overlap(small(scene(2)), small(copy), stretch) < 0.8


def test_near_copies_are_linked_and_the_largest_stays():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(14, 32))
    vectors[5], vectors[9] = vectors[2] + 0.1, vectors[2] - 0.1
    found = made_up(vectors)
    grey, sizes = found.grey.copy(), found.sizes.copy()
    grey[5], grey[9], sizes[9] = grey[2][:, ::-1], grey[2], (800, 800)
    found = replace(found, grey=grey, sizes=sizes)
    assert {pair[:2] for pair in near_copies(found, 0.5, 0.9)} == {(2, 5), (2, 9), (5, 9)}
    told = suggest(found)
    assert {(s.path.name, s.kind, s.instead.name) for s in told} == {
        ("2.jpg", "near copy", "9.jpg"),
        ("5.jpg", "near copy", "9.jpg"),
    }
    assert suggest(found, Thresholds(cosine=None)) == []


def test_close_vectors_alone_are_no_copies():
    vectors = np.random.default_rng(0).normal(size=(12, 32))
    vectors[3] = vectors[2] + 0.01
    assert near_copies(made_up(vectors), 0.5, 0.91) == []


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("blurred", lambda p: cv2.GaussianBlur(p, (0, 0), max(p.shape) / 80)),
        ("dark", lambda p: (p * 0.1).astype(np.uint8)),
        ("washed out", lambda p: (190 + p * 0.12).astype(np.uint8)),
        ("plain", lambda p: np.full_like(p, 128) + np.linspace(0, 60, p.shape[1]).astype(np.uint8)),
    ],
)
def test_bad_quality_has_its_reason_and_good_photos_have_none(kind, spoil):
    photos = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in PHOTOS]
    good = np.array([quality(photo) for photo in photos], np.float32)
    vectors = np.random.default_rng(0).normal(size=(len(photos), 16))
    assert suggest(made_up(vectors, quality=good), Thresholds(outlier=None)) == []
    spoilt = good.copy()
    spoilt[0] = quality(spoil(photos[0]))
    (told,) = suggest(made_up(vectors, quality=spoilt), Thresholds(outlier=None))
    assert told.path.name == "0.jpg" and told.kind == kind and "usual" in told.reason


def test_tiny_files_outliers_and_one_suggestion_a_photo():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 16)) * 0.2 + 1
    vectors[7] = -1
    sizes = np.full((30, 2), 400)
    sizes[3] = (20, 400)
    found = made_up(vectors, sizes=sizes, problems=((Path("x.jpg"), "damaged"),))
    told = suggest(found, Thresholds(cosine=None))
    assert [(s.path.name, s.kind) for s in told] == [("x.jpg", "unreadable"), ("3.jpg", "tiny"), ("7.jpg", "outlier")]
    assert len({s.path for s in told}) == len(told)


def test_balanced_takes_evenly_from_unequal_clusters():
    rng = np.random.default_rng(0)
    centres = np.eye(3, 16)
    vectors = np.concatenate([centres[i] + 0.05 * rng.normal(size=(n, 16)) for i, n in enumerate((80, 15, 5))])
    found = made_up(vectors, grey=np.zeros((100, SIDE, SIDE), np.uint8))
    label = clusters(found, 3)
    assert np.bincount(label).tolist() == [80, 15, 5]  # the largest first
    taken = [int(path.stem) for path in balanced(found, 15, label)]
    assert np.bincount(label[taken]).tolist() == [5, 5, 5]
    with pytest.raises(ValueError, match="between 1 and the 100"):
        balanced(found, 101, label)


def test_more_like_ranks_by_the_nearest_seed():
    rng = np.random.default_rng(0)
    found = made_up(rng.normal(size=(20, 8)))
    seeds = [found.paths[0], found.paths[1]]
    best = (found.vectors @ found.vectors[:2].T).max(axis=1)
    expected = [found.paths[i] for i in sorted(range(2, 20), key=lambda i: -best[i])]
    assert more_like(found, seeds, 5) == expected[:5]
    assert more_like(found, seeds, 100) == expected
    with pytest.raises(ValueError, match=r"none\.jpg"):
        more_like(found, [Path("none.jpg")], 3)
