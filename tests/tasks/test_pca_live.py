"""What a browser is given to redraw the PCA tab's pictures: enough for Python's colours, and not too much."""

import base64
import importlib
from dataclasses import replace

import numpy as np
import pytest
from test_pca import scene

from dinodemo.io.images import Photo
from dinodemo.tasks.pca import draw, live
from dinodemo.tasks.pca.live import live_value

LOOK = draw.Look("auto", 0.5, 1, 2, 3, False, True, True)


@pytest.fixture
def view():
    rgb = np.zeros((100, 120, 3), np.uint8)
    features = tuple(scene(seed)[0] for seed in (0, 1))
    return draw.View((Photo(rgb, "a.png"), Photo(rgb, "b.png")), features, ("tiny", 518), "")


def numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def patches_of(value: dict) -> np.ndarray:
    """Return the values of all patches along the axes that were sent, (n, count)."""
    basis = value["basis"]
    return numbers(basis["rows"], "<i2").reshape(-1, len(basis["scales"])) * np.array(basis["scales"])


def test_any_foreground_can_be_fitted_from_what_is_sent(view):
    value = live_value(view, LOOK, draw.fit(view, LOOK))
    rows, first = patches_of(value), numbers(value["basis"]["first"], "<f4")
    axes = numbers(value["basis"]["axes"], "<i2").reshape(16, -1) / 32767
    for look in (LOOK, replace(LOOK, foreground="manual", threshold=0.8), replace(LOOK, foreground="off")):
        pca = draw.fit(view, look)
        limits = {"auto": value["basis"]["automatic"], "manual": look.threshold, "off": -np.inf}
        inside = first > np.float32(limits[look.foreground])
        assert inside.sum() == sum(pca.foreground_mask(f).sum() for f in view.features)
        shares, vectors = np.linalg.eigh(np.cov(rows[inside].T))
        energy = numbers(value["basis"]["energy"], "<f4")[inside]
        total = (energy.sum() - inside.sum() * np.square(rows[inside].mean(0)).sum()) / (inside.sum() - 1)
        assert np.allclose(shares[::-1][:8] / total, pca.explained_variance_ratio_, atol=1e-3)
        tokens = axes @ vectors[:, ::-1][:, :3]
        assert np.allclose(np.abs((tokens * pca.components_[:3].T).sum(0)), 1, atol=1e-3)


def test_a_basis_from_a_file_is_sent_as_it_is(view):
    pca = draw.fit(view, LOOK)
    value = live_value(view, LOOK, pca, loaded=True)
    fixed = value["basis"]["fixed"]
    low, high = np.array(fixed["low"]), np.array(fixed["high"])
    first = numbers(value["basis"]["first"], "<f4")
    for one, f in zip(value["maps"], view.features, strict=True):
        part = slice(one["start"], one["start"] + f.patches[..., 0].size)
        colours = np.clip((patches_of(value)[part] - low) / (high - low), 0, 1)[:, :3]
        colours[first[part] <= np.float32(fixed["threshold"])] = np.nan
        assert np.allclose(colours.reshape(*f.grid, 3), pca.transform(f), atol=1e-3, equal_nan=True)
    assert value["words"]["basis"].startswith("Basis loaded from a file")


def test_the_server_draws_where_a_browser_would_be_given_too_much(view):
    pca = draw.fit(view, LOOK)
    whole = live_value(view, LOOK, pca)
    sent = sum(map(len, whole["photos"])) + sum(len(v) for v in whole["basis"].values() if isinstance(v, str))
    assert live_value(view, LOOK, pca, most_bytes=sent)["maps"] and not whole["server"]
    value = live_value(view, LOOK, pca, captions=("a", "b"), most_bytes=int(sent * 0.9))
    assert value["server"] and value["maps"] == [] and value["captions"] == ["a", "b"]
    assert live_value(None, LOOK)["maps"] == [] and not live_value(None, LOOK)["server"]
    assert live.undrawn(LOOK)["server"] and live.undrawn(LOOK)["maps"] == []


def test_a_server_that_was_restarted_gives_no_version_anew():
    before = importlib.reload(live).live_value(None, LOOK)["version"]
    assert importlib.reload(live).live_value(None, LOOK)["version"] != before
