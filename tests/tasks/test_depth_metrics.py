"""Figures of depth maps, against loops."""

import math

import numpy as np
import pytest

from dinodemo.tasks.depth.metrics import NAMES, align, depth_metrics, mean_metrics, valid_pixels


@pytest.fixture
def maps():
    rng = np.random.default_rng(1)
    depth, truth = rng.uniform(0.5, 6, (2, 9, 7)).astype(np.float32)
    truth[0, :4] = 0, np.nan, np.inf, -1
    return depth, truth


def test_figures_agree_with_loops(maps):
    pairs = [
        (float(d), float(t)) for d, t in zip(maps[0].flat, maps[1].flat, strict=True) if math.isfinite(t) and t > 0
    ]
    assert len(pairs) == 59
    n, logs = len(pairs), [math.log(d) - math.log(t) for d, t in pairs]
    mean = sum(logs) / n
    slow = {f"delta{k}": sum(max(d / t, t / d) < 1.25**k for d, t in pairs) / n for k in (1, 2, 3)}
    slow["abs_rel"] = sum(abs(d - t) / t for d, t in pairs) / n
    slow["rmse"] = math.sqrt(sum((d - t) ** 2 for d, t in pairs) / n)
    slow["log10"] = sum(abs(math.log10(d) - math.log10(t)) for d, t in pairs) / n
    slow["silog"] = 100 * math.sqrt(sum((value - mean) ** 2 for value in logs) / n)
    found = depth_metrics(*maps)
    assert found.keys() == slow.keys() == set(NAMES)
    for name in NAMES:
        assert math.isclose(found[name], slow[name], rel_tol=1e-9), name


def test_a_perfect_map_has_perfect_figures(maps):
    truth = maps[1]
    found = depth_metrics(np.where(valid_pixels(truth), truth, 1), truth)
    assert found == {"delta1": 1, "delta2": 1, "delta3": 1, "abs_rel": 0, "rmse": 0, "log10": 0, "silog": 0}


def test_a_depth_of_zero_gives_finite_figures(maps):
    assert all(math.isfinite(value) for value in depth_metrics(np.zeros_like(maps[0]), maps[1]).values())


def test_silog_does_not_see_a_scale_and_the_others_do(maps):
    depth, truth = maps
    one, two = depth_metrics(depth, truth), depth_metrics(3 * depth, truth)
    assert math.isclose(one["silog"], two["silog"], rel_tol=1e-5)
    assert two["rmse"] > one["rmse"]


def test_the_mean_counts_every_picture_the_same():
    one, two = (dict.fromkeys(NAMES, value) for value in (1.0, 4.0))
    assert mean_metrics([one, two, two]) == dict.fromkeys(NAMES, 3.0)
    with pytest.raises(ValueError, match="at least one"):
        mean_metrics([])


def test_alignment_finds_scale_and_shift_of_inverse_depth(maps):
    truth = np.where(valid_pixels(maps[1]), maps[1], 2).astype(np.float64)
    relative = 1 / (0.4 / truth + 0.9)
    np.testing.assert_allclose(align(relative, truth), truth, rtol=1e-5)


def test_alignment_agrees_with_the_normal_equations(maps):
    depth, truth = maps
    x, y = zip(
        *(
            (1 / float(d), 1 / float(t))
            for d, t in zip(depth.flat, truth.flat, strict=True)
            if math.isfinite(t) and t > 0
        ),
        strict=True,
    )
    n, sx, sy, sxx, sxy = len(x), sum(x), sum(y), sum(v * v for v in x), sum(a * b for a, b in zip(x, y, strict=True))
    scale = (n * sxy - sx * sy) / (n * sxx - sx * sx)
    shift = (sy - scale * sx) / n
    np.testing.assert_allclose(align(depth, truth), 1 / (scale / depth + shift), rtol=1e-4)


def test_alignment_of_a_constant_map_is_finite(maps):
    assert np.isfinite(align(np.full_like(maps[0], 2), maps[1])).all()


@pytest.mark.parametrize("function", [depth_metrics, align])
def test_maps_that_cannot_be_compared_are_refused(function):
    with pytest.raises(ValueError, match="one size"):
        function(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="no reading"):
        function(np.ones((2, 3)), np.zeros((2, 3)))


def test_readings_can_be_limited():
    assert valid_pixels(np.array([[0.5, 1, 2, 3, 0]]), 1, 2).tolist() == [[False, True, True, False, False]]
