"""Attention maps against slow references."""

import base64
import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dinodemo.engine.features import Features
from dinodemo.io.images import Photo
from dinodemo.tasks.attention import live
from dinodemo.tasks.attention.draw import Look, View
from dinodemo.tasks.attention.live import live_value
from dinodemo.tasks.attention.maps import attention_map, attention_sinks, cosine_to_patch, keep_mass, prefix_mass
from dinodemo.tasks.tokens import patch_at

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@pytest.fixture
def f() -> Features:
    rng = np.random.default_rng(0)
    rows = rng.random((3, 4, 1 + 2 + 30)).astype(np.float32)  # 3 layers, 4 heads, CLS, 2 registers, 5 x 6 patches
    rows /= rows.sum(-1, keepdims=True)
    return Features(
        cls=rng.random(8).astype(np.float32),
        patches=rng.standard_normal((5, 6, 8)).astype(np.float32),
        registers=rng.random((2, 8)).astype(np.float32),
        image_size=(50, 60),
        input_size=(70, 84),
        backbone="tiny",
        layer_attention=rows[..., 3:].reshape(3, 4, 5, 6),
        prefix_attention=rows[..., :3],
        patch_norms=np.full((5, 6), 10.0, np.float32),
    )


def test_mean_max_and_single_heads_of_any_layer(f):
    assert np.allclose(attention_map(f), sum(f.attention) / 4)
    assert np.array_equal(attention_map(f, "max", layer=0), np.maximum.reduce(list(f.layer_attention[0])))
    assert np.array_equal(attention_map(f, 2), f.attention[2])


@pytest.mark.parametrize("head", [4, -1, "median", True])
def test_a_head_that_does_not_exist_is_refused(f, head):
    with pytest.raises(ValueError, match="from 0 to 3"):
        attention_map(f, head)


def test_missing_layer_or_attention_is_refused(f):
    with pytest.raises(ValueError, match="from 0 to 2"):
        attention_map(f, layer=3)
    with pytest.raises(ValueError, match="attention=True"):
        attention_map(replace(f, layer_attention=None))


def slow_mass(attention, mass):
    """Drop the weakest patches one by one as long as enough is left, as DINO's script does."""
    kept = attention.copy()
    for i in np.argsort(attention.ravel()):
        without = kept.copy()
        without.ravel()[i] = 0
        if without.sum(dtype=np.float64) < mass * attention.sum(dtype=np.float64):
            break
        kept = without
    return kept


@pytest.mark.parametrize("mass", [0.05, 0.3, 0.6, 0.95, 1.0])
def test_mass_keeps_the_fewest_patches_that_hold_it(f, mass):
    attention = attention_map(f)
    assert np.array_equal(keep_mass(attention, mass), slow_mass(attention, mass))


@pytest.mark.parametrize("mass", [0, -0.1, 1.1, float("nan")])
def test_mass_out_of_range_is_refused(f, mass):
    with pytest.raises(ValueError, match="mass"):
        keep_mass(attention_map(f), mass)


def test_cosine_to_a_patch(f):
    similarity = cosine_to_patch(f, (1, 2))
    a, b = f.patches[1, 2], f.patches[4, 0]
    assert similarity[4, 0] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    assert similarity[1, 2] == pytest.approx(1, abs=1e-6)


def test_points_map_to_patches_also_on_the_edge(f):
    assert patch_at(f, 0, 0) == (0, 0)
    assert patch_at(f, 1, 1) == (4, 5)
    assert patch_at(f, 0.5, 0.39) == (1, 3)


def test_prefix_mass_and_patches_make_one(f):
    cls, registers = prefix_mass(f)
    assert cls + registers + attention_map(f).sum() == pytest.approx(1, abs=1e-5)


def test_sinks_are_patches_of_outlier_norm_and_dominate_by_their_share(f):
    assert not attention_sinks(f).patches.any() and not attention_sinks(f).dominate
    norms, rows = f.patch_norms.copy(), f.layer_attention.copy()
    norms[2, 3], rows[-1, :, 2, 3] = 100, 0.9
    sinks = attention_sinks(replace(f, patch_norms=norms, layer_attention=rows))
    assert sinks.patches.sum() == 1 and sinks.patches[2, 3] and sinks.dominate


def test_the_cls_attention_of_a_real_backbone_finds_the_dogs(offline_engine):
    f = offline_engine.features(ASSETS / "two_dogs_balcony.jpg", 224, attention=True)
    kept = attention_map(f, mass=0.4) > 0
    h, w = f.grid
    rows, columns = np.nonzero(kept)
    inside = (rows > 0.25 * h) & (rows < 0.65 * h) & (columns > 0.2 * w) & (columns < 0.7 * w)
    assert inside.mean() > 0.6  # the dogs' quarter of the picture


@pytest.fixture
def view(f) -> View:
    photo = Photo(np.zeros((50, 60, 3), np.uint8), "black.png")
    return View(photo, f, ("tiny", 70), "", (2, 3), f.layer_attention)


def test_a_browser_is_given_the_rows_of_the_chosen_layer(view, f):
    look = Look(2, "mean", 100, 0.6, "inferno", True)
    maps = {one["target"]: one for one in live_value(view, look)["maps"]}
    for target in ("#attention-overlay", "#attention-heads", "#point-attention"):
        rows = np.frombuffer(base64.b64decode(maps[target]["rows"]), "<f4").reshape(maps[target]["grid"])
        assert np.array_equal(rows, f.layer_attention[1])
    assert maps["#attention-overlay"]["patch"] == (2, 3) and maps["#point-cosine"]["grid"] == [1, 5, 6]
    assert not [one for one in live_value(replace(view, patch=None), look)["maps"] if "point" in one["target"]]


def test_the_server_draws_where_a_browser_would_be_given_too_much(view):
    look = Look(2, "mean", 100, 0.6, "inferno", True)
    value = live_value(view, look, most_bytes=2000)
    assert value["server"] and value["maps"] == []
    assert live_value(None, look)["maps"] == [] and not live_value(None, look)["server"]


def test_a_server_that_was_restarted_gives_no_version_anew():
    look = Look(1, "mean", 100, 0.6, "inferno", True)
    before = importlib.reload(live).live_value(None, look)["version"]
    assert importlib.reload(live).live_value(None, look)["version"] != before
