"""The match: whitening, bounds from a person's answers, three states."""

import numpy as np
import pytest

from dinodemo.tasks.segmentation.match import (
    BOUNDS,
    SAFETY,
    calibrated,
    found_again,
    state_of,
    to_match,
    whiten,
)


def test_whitening_makes_ordinary_tokens_round():
    rng = np.random.default_rng(0)
    tokens = (rng.normal(size=(5000, 6)) * [5, 3, 1, 1, 0.5, 0.2] + 3).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    mapping = whiten(tokens, shrinkage=0)
    covariance = np.cov(((tokens - mapping.mean) @ mapping.map).T)
    np.testing.assert_allclose(covariance, np.eye(6), atol=0.02)
    np.testing.assert_allclose(np.linalg.norm(mapping(tokens), axis=1), 1, atol=1e-5)


def test_the_best_reference_counts():
    white = np.eye(4, dtype=np.float32)[:2]
    wanted = np.eye(4, dtype=np.float32)
    assert found_again(white, wanted, np.array([0, 0, 1, 1])) == 1.0
    assert found_again(white, wanted, np.array([0, 1, 0, 1])) == 0.5
    assert found_again(white[:0], wanted, np.zeros(4, int)) == -1


def test_the_match_is_a_half_at_the_bound():
    assert to_match(0.4, 0.4) == pytest.approx(0.5)
    assert to_match(0.6, 0.4) > 0.95 and to_match(0.2, 0.4) < 0.05


@pytest.mark.parametrize(
    ("absent", "present", "expected"),
    [
        ([], [], 0.45),
        ([0.2], [], 0.45),
        ([0.5, 0.3], [], 0.5 + SAFETY),
        ([], [0.3], 0.3 - SAFETY / 2),
        ([], [0.8], 0.45),
        ([0.5], [0.7], 0.5 + SAFETY),
        ([0.2], [0.35], 0.35 - SAFETY / 2),
        ([0.6], [0.4], 0.6 + SAFETY),
    ],
)
def test_answers_move_the_bound(absent, present, expected):
    assert calibrated(0.45, absent, present) == pytest.approx(expected)


@pytest.mark.parametrize(("match", "state"), [(0.9, "found"), (0.5, "found"), (0.3, "unsure"), (0.05, "not here")])
def test_states(match, state):
    assert state_of(match) == state


def test_everything_is_found_when_the_least_match_is_zero():
    assert state_of(0.0, 0.0) == "found"


def test_a_kind_has_the_lower_bound():
    assert BOUNDS["kind"] < BOUNDS["object"]
