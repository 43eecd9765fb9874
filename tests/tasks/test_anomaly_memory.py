"""The arithmetic of the anomaly memory, each against a slow and simple reference."""

import numpy as np
import pytest

from dinodemo.tasks.anomaly.calibration import line_of, warnings
from dinodemo.tasks.anomaly.foreground import Foreground, split
from dinodemo.tasks.anomaly.learning import gaps, layers_of, leave_one_out
from dinodemo.tasks.anomaly.memory import Space, coreset, describe, nearest, top_mean
from dinodemo.tasks.anomaly.views import VIEWS, centres


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_descriptors_give_each_layer_the_same_weight(rng):
    small, large = rng.normal(size=(2, 3, 5)), 100 * rng.normal(size=(2, 3, 5))
    found = describe([small, large])
    assert found.shape == (2, 3, 10) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found[..., :5], axis=-1), 0.5**0.5, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-5)


def test_the_nearest_is_that_of_a_loop(rng):
    queries, memory = (rng.normal(size=(n, 6)).astype(np.float32) for n in (3000, 50))  # more than one block
    distances, indices = nearest(queries, memory)
    for i in range(0, 3000, 97):
        slow = [float(np.sqrt(((queries[i] - row) ** 2).sum())) for row in memory]
        assert indices[i] == int(np.argmin(slow)) and distances[i] == pytest.approx(min(slow), rel=1e-4)
    excluded = np.zeros(50, bool)
    excluded[indices[0]] = True
    assert nearest(queries[:1], memory, excluded)[1][0] != indices[0]


def test_equal_vectors_are_at_distance_zero(rng):
    vectors = (1000 + rng.normal(size=(20, 8))).astype(np.float32)
    assert nearest(vectors, vectors)[0].max() == 0


def test_a_space_scales_directions_by_their_spread(rng):
    patches = (rng.normal(size=(4000, 3)) * [10, 1, 0.5] + 5).astype(np.float32)
    found = Space.fit(patches, 3)(patches)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    covariance = np.cov(patches.T.astype(np.float64))
    values = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    expected = values / (0.9 * values + 0.1 * values.mean())
    np.testing.assert_allclose(found.var(axis=0, ddof=1), expected, rtol=1e-3)
    assert Space.fit(patches, 2)(patches).shape == (4000, 2)


def test_a_coreset_covers_better_than_chance(rng):
    crowd, few = rng.normal(size=(9000, 4)) * 0.1, rng.normal(size=(300, 4)) * 5
    vectors = np.concatenate([crowd, few]).astype(np.float32)
    chosen = coreset(vectors, 900)
    assert len(chosen) == len(set(chosen.tolist())) == 900 and (np.diff(chosen) > 0).all()
    random = rng.choice(len(vectors), 900, replace=False)
    assert nearest(vectors, vectors[chosen])[0].max() < 0.5 * nearest(vectors, vectors[random])[0].max()
    assert coreset(vectors[:5], 900).tolist() == [0, 1, 2, 3, 4]
    assert len(set(coreset(np.zeros((50, 4), np.float32), 20).tolist())) == 20  # equal ones are not chosen twice


def test_the_score_is_the_mean_of_the_highest(rng):
    values = rng.permutation(1000).reshape(20, 50).astype(np.float32)
    assert top_mean(values) == pytest.approx(np.mean([997, 998, 999]))  # three at most
    assert top_mean(values, most=None) == pytest.approx(np.mean(range(990, 1000)))
    assert top_mean(values.ravel()[:200]) == pytest.approx(np.sort(values.ravel()[:200])[-2:].mean())
    assert top_mean(np.array([3.0, 1.0])) == 3


def test_leave_one_out_does_not_see_the_photo_itself(rng):
    photos = [rng.normal(size=(40, 5)).astype(np.float32) + i for i in range(4)]
    owner = np.repeat(np.arange(4), 40)
    found = leave_one_out(photos, np.concatenate(photos), owner)
    for i, patches in enumerate(photos):
        others = np.concatenate([p for j, p in enumerate(photos) if j != i])
        slow = [min(float(np.linalg.norm(p - q)) for q in others) for p in patches]
        assert found[i] == pytest.approx(max(slow), rel=1e-4)  # 1 % of 40 is one patch


def test_gaps_tell_photos_that_belong_together_from_those_that_do_not():
    alike, apart = [np.eye(8, dtype=np.float32)] * 3, [np.eye(8, dtype=np.float32)[i : i + 2] for i in (0, 2, 4)]
    assert gaps(alike).tolist() == [0, 0, 0]
    np.testing.assert_allclose(gaps(apart), 2**0.5, rtol=1e-5)


def test_the_line_is_above_the_scores_of_good_photos():
    scores = np.array([1.0, 1.1, 0.9, 1.2, 0.8])
    assert line_of(scores) > 1.2
    assert line_of(2 * scores) == pytest.approx(2 * line_of(scores))
    assert line_of(np.array([1.0, 1.0, 1.0])) > 1  # photos that agree by chance leave room for the next one


def test_a_strange_good_photo_and_a_mixed_set_are_named():
    even = np.ones(5)
    names = [f"{i}.png" for i in range(5)]
    assert warnings(even, 0.2 * even, names) == []
    assert "2.png" in warnings(np.array([1, 1, 9, 1, 1.0]), 0.2 * even, names)[0]
    assert "differ too much" in warnings(even, 0.99 * even, names)[0]
    assert "guess" in warnings(even[:1], even[:1], names[:1])[0]


@pytest.mark.parametrize("name", VIEWS)
def test_a_point_of_a_view_is_the_same_point_of_the_photo(name):
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = np.indices((100, 200))  # each pixel holds its row and column
    for view in VIEWS[name]:
        seen = view.pixels(rgb)
        h, w = seen.shape[0] // 10, seen.shape[1] // 10
        for (x, y), (back_x, back_y) in zip(centres((h, w)), view.back(centres((h, w))), strict=True):
            row, column = seen[int(y * seen.shape[0]), int(x * seen.shape[1])][:2]
            assert abs(row - back_y * 100) <= 2.5 and abs(column - back_x * 200) <= 2.5


def test_an_object_is_found_where_there_is_one(rng):
    def photo(left: int) -> np.ndarray:
        tokens = np.tile(np.array([1.0, 0, 0, 0], np.float32), (12, 12, 1))
        tokens[3:9, left : left + 5] = [0, 1, 0, 0]
        tokens[5, left + 2] = [1, 0, 0, 0]  # a hole, which stays part of the object
        return (tokens + 0.05 * rng.normal(size=tokens.shape)).astype(np.float32)

    found = Foreground.fit([photo(3), photo(4)])
    mask = found.mask(photo(5))
    assert mask[2:10, 4:11].all() and not mask[:, :4].any() and not mask[0].any()
    texture = [rng.normal(size=(12, 12, 4)).astype(np.float32) for _ in range(2)]
    assert Foreground.fit(texture) is None


def test_otsu_finds_the_gap(rng):
    values = np.concatenate([rng.normal(0, 0.1, 300), rng.normal(3, 0.1, 100)])
    threshold, explained = split(values)
    assert 0.3 < threshold < 2.7 and explained > 0.95


def test_layers_are_those_of_the_network():
    assert all(0 <= i < 12 for i in layers_of(12, None)) and layers_of(12, None) == (11,)
    assert layers_of(3, None) and layers_of(24, (3, 5)) == (3, 5)
    for bad in ((), (12,), (-1,), (1.5,)):
        with pytest.raises(ValueError, match="layers must be whole numbers from 0 to 11"):
            layers_of(12, bad)
