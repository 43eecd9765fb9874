"""Is training worth it: uniformity against a slow loop, and what is said of it."""

import math

import numpy as np
import pytest

from dinodemo.train.planning import DULL, ORDINARY, Worth, ordinary_photos, weigh


def test_uniformity_and_cosine_are_those_of_all_pairs():
    rows = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    unit = [row / math.sqrt(sum(x * x for x in row)) for row in rows]
    pairs = [(unit[i], unit[j]) for i in range(7) for j in range(i)]
    expected = math.log(sum(math.exp(-2 * sum((a - b) ** 2)) for a, b in pairs) / len(pairs))
    found = weigh(5 * rows, "unheard of", -2.0)
    assert found.uniformity == pytest.approx(expected, rel=1e-6)
    assert found.cosine == pytest.approx(np.mean([a @ b for a, b in pairs]), abs=1e-6)
    assert found.ordinary == -2.0


def test_many_photos_are_thinned():
    rows = np.random.default_rng(0).normal(size=(3000, 8))
    assert weigh(rows, "unheard of").uniformity == pytest.approx(weigh(rows[::3], "unheard of").uniformity, abs=0.02)


@pytest.mark.parametrize(
    ("uniformity", "ordinary", "likely", "says"),
    [
        (-0.8, -2.6, True, "look alike to this network"),
        (-1.9, -2.6, False, "unlikely to help"),
        (-1.0, -1.06, True, "Even ordinary photos look alike"),  # a network that was damaged
        (-1.0, None, True, "likely to help"),
        (-2.5, None, False, "unlikely"),
    ],
)
def test_the_verdict_compares_with_ordinary_photos_of_the_same_network(uniformity, ordinary, likely, says):
    found = Worth(uniformity, 0.5, ordinary)
    assert found.likely == likely and says in found.sentence and f"{uniformity:.2f}" in found.sentence


def test_a_single_photo_is_refused():
    with pytest.raises(ValueError, match="2 or more, got 1"):
        weigh(np.ones((1, 4)), "unheard of")


def test_ordinary_photos_ship_with_the_package_and_stored_values_make_sense():
    assert len(ordinary_photos()) >= 8
    assert ORDINARY["dinov2-small-offline"] < DULL < ORDINARY["dinov2-small-saliency"]
