"""Matching against pictures whose true correspondence is known, and against plain loops."""

import numpy as np
import pytest

from dinodemo.engine.features import Features
from dinodemo.tasks.compare.matches import consistent, heat_map, match, similarity, spread
from dinodemo.tasks.tokens import positional_basis


def features(patches: np.ndarray, backbone: str = "made-up") -> Features:
    h, w, width = patches.shape
    tokens = patches.astype(np.float32)
    return Features(
        tokens.mean(axis=(0, 1)), tokens, np.zeros((0, width), np.float32), (h * 14, w * 14), (h * 14, w * 14), backbone
    )


@pytest.fixture
def scene() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(12, 14, 16))


def test_a_shifted_picture_matches_where_it_overlaps(scene):
    found = match(features(scene[:9, :10]), features(scene[2:, 3:]))
    right = (found.a - found.b == (2, 3)).all(axis=1)
    assert right.sum() == 7 * 7
    assert found.scores[right] == pytest.approx(1, abs=1e-5)
    assert right[:49].all(), "the best come first"


def test_matches_are_mutual_nearest_as_a_loop_finds_them(scene):
    other = np.random.default_rng(1).normal(size=(5, 6, 16)) + scene[:5, :6]
    found = match(features(scene), features(other))
    a = [p / np.linalg.norm(p) for row in scene for p in row]
    b = [p / np.linalg.norm(p) for row in other for p in row]
    forth = [max(range(len(b)), key=lambda j: p @ b[j]) for p in a]
    back = [max(range(len(a)), key=lambda i: p @ a[i]) for p in b]
    expected = {(i, j) for i, j in enumerate(forth) if back[j] == i}
    assert {(r * 14 + c, s * 6 + d) for (r, c), (s, d) in zip(found.a, found.b, strict=True)} == expected


def test_a_least_score_drops_weak_pairs(scene):
    other = features(scene + np.random.default_rng(1).normal(size=scene.shape))
    every, strong = match(features(scene), other), match(features(scene), other, min_score=0.7)
    assert len(strong) == (every.scores >= 0.7).sum() < len(every)


def test_taking_out_place_finds_the_thing_where_it_went(scene):
    rng = np.random.default_rng(3)
    place = (rng.normal(size=(12, 14, 3)) @ rng.normal(size=(3, 16))) * 4  # of each position, in every picture
    turned = scene[::-1, ::-1]
    pair = features(scene + place), features(turned + place)
    truth = np.array([11, 13])

    def right(found):
        return (found.b == truth - found.a).all(axis=1).sum()

    basis = positional_basis(place)[:, :3]
    assert right(match(*pair)) < 20
    assert right(match(*pair, basis)) > 100
    assert np.unravel_index(heat_map(pair[0], (2, 5), pair[1], basis).argmax(), (12, 14)) == (9, 8)


def test_heat_map_is_the_cosine_to_one_patch(scene):
    other = np.random.default_rng(1).normal(size=(5, 6, 16))
    heat = heat_map(features(scene), (3, 7), features(other))
    one = scene[3, 7] / np.linalg.norm(scene[3, 7])
    assert heat[4, 2] == pytest.approx(other[4, 2] @ one / np.linalg.norm(other[4, 2]), abs=1e-5)
    with pytest.raises(ValueError, match="12 x 14 grid"):
        heat_map(features(scene), (12, 0), features(other))


def test_points_are_patch_centres():
    found = match(features(np.eye(4).reshape(2, 2, 4)), features(np.eye(4).reshape(1, 4, 4)))
    a, b = found.points()
    pairs = {tuple(np.concatenate(p).tolist()) for p in zip(a, b, strict=True)}
    assert pairs == {
        (0.25, 0.25, 0.125, 0.5),
        (0.75, 0.25, 0.375, 0.5),
        (0.25, 0.75, 0.625, 0.5),
        (0.75, 0.75, 0.875, 0.5),
    }


@pytest.mark.parametrize("model", ["homography", "affine"])
def test_a_common_shift_is_found_among_wrong_pairs(scene, model):
    noisy = scene[2:, 3:].copy()
    noisy[:3] = np.random.default_rng(5).normal(size=noisy[:3].shape)
    found = match(features(scene), features(noisy))
    kept, transform = consistent(found, model)
    right = (found.a - found.b == (2, 3)).all(axis=1)
    assert (kept[right]).all() and kept.sum() < right.sum() + 0.2 * (~right).sum()
    sent = transform @ [8, 9, 1]
    assert sent[:2] / sent[2] == pytest.approx([5, 7], abs=0.2)


def test_too_few_pairs_agree_on_nothing(scene):
    few = match(features(scene), features(scene)).take(np.arange(2))
    kept, transform = consistent(few)
    assert not kept.any() and (transform == np.eye(3)).all()
    with pytest.raises(ValueError, match="homography, affine"):
        consistent(few, "magic")


def test_spread_takes_pairs_from_all_over(scene):
    found = match(features(scene), features(scene))
    drawn = spread(found, 4)
    assert len(drawn) == 4 and np.ptp(drawn.a, axis=0).min() >= 9
    assert len(spread(found, 1000)) == len(found)


def test_similarity_is_one_for_itself_and_refuses_another_backbone(scene):
    f = features(scene)
    assert similarity(f, f) == pytest.approx(1, abs=1e-6)
    assert similarity(f, features(-scene)) == pytest.approx(-1, abs=1e-6)
    with pytest.raises(ValueError, match="made-up and other"):
        match(f, features(scene, "other"))
