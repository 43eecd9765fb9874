"""Outputs that stay on disk: the same as computed ones, only inside of `keeping`, and never of other weights."""

import numpy as np
import pytest

from dinodemo.engine import kept
from dinodemo.engine.kept import keeping


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (56, 70, 3), dtype=np.uint8)


def ask(engine, photo, folder):
    with keeping(folder):
        return engine.features_timed(photo, 56, attention=True)[0], engine.layers(photo, (0, 2), 56)


def refuse(*_):
    raise AssertionError("the network ran")


def test_what_is_kept_is_what_was_computed_and_the_network_rests(make_engine, photo, tmp_path, monkeypatch):
    features, layers = ask(make_engine(), photo, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    other = make_engine()
    monkeypatch.setattr(other._scheduler, "ask", refuse)
    again, layers_again = ask(other, photo, tmp_path)
    for name in ("cls", "patches", "registers", "layer_attention", "prefix_attention", "patch_norms"):
        np.testing.assert_array_equal(getattr(again, name), getattr(features, name))
    np.testing.assert_array_equal(layers_again[1][1], layers[1][1])
    with pytest.raises(AssertionError, match="the network ran"):
        ask(other, photo[::-1], tmp_path)


def test_nothing_is_kept_outside(engine, photo, tmp_path):
    with keeping(tmp_path):
        pass
    engine.features(photo, 56)
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_files_are_made_again(make_engine, photo, tmp_path, monkeypatch):
    features, _ = ask(make_engine(), photo, tmp_path)
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:200])
    again, _ = ask(make_engine(), photo, tmp_path)
    np.testing.assert_array_equal(again.patches, features.patches)
    other = make_engine("dinov2-registers")
    monkeypatch.setattr(other._scheduler, "ask", refuse)
    with pytest.raises(AssertionError, match="the network ran"):
        ask(other, photo, tmp_path)


def test_the_folder_stays_small(engine, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 1)
    ask(engine, photo, tmp_path)
    assert list(tmp_path.glob("*.npz")) == []
