"""Near and far within a picture: the regression, what it adds to a head, and its place in a probe's file."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dinodemo.tasks.depth import DepthProbe
from dinodemo.tasks.depth.nearness import PLACE_RIDGE, RIDGE, Nearness, fit_nearness, places

WIDTH = 6


def sample(seed: int, level: float = 0.0, weight: float = 1.0, size: tuple[int, int] = (7, 9)) -> SimpleNamespace:
    """Return a picture whose log depth is a token channel of the last layer, less the row, and a level of its own."""
    rng = np.random.default_rng(seed)
    patches = rng.normal(size=(*size, 2 * WIDTH)).astype(np.float32)
    patches[..., WIDTH + 2] += level  # the channel tells pictures apart the wrong way round
    logs = 0.5 * patches[..., WIDTH + 2] - 0.4 * np.linspace(-1, 1, size[0])[:, None] - 3 * level
    truth = np.exp(logs).repeat(2, 0).repeat(2, 1).astype(np.float32)
    return SimpleNamespace(patches=torch.from_numpy(patches), truth=torch.from_numpy(truth), weight=weight)


def test_the_fit_is_a_ridge_on_what_varies_within_pictures():
    samples = [sample(0), sample(1, 0.7, weight=3.0), sample(2, -0.2)]
    samples[2].truth[:5] = 0  # no readings there
    gram, moment, spread, total = 0, 0, 0, 0
    for one in samples:
        last, h, w = one.patches.numpy()[..., WIDTH:].astype(np.float64), 7, 9
        rows, logs = [], []
        for y in range(h):
            for x in range(w):
                cell = one.truth.numpy()[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                if (cell > 0).mean() >= 0.5:
                    v, u = (y + 0.5) / h * 2 - 1, (x + 0.5) / w * 2 - 1
                    rows.append([*last[y, x], v, v * v, u * u])
                    logs.append(np.log(cell[cell > 0].mean()))
        rows, logs = np.array(rows) - np.mean(rows, 0), np.array(logs) - np.mean(logs)
        gram, moment = gram + one.weight * rows.T @ rows / len(rows), moment + one.weight * rows.T @ logs / len(rows)
        spread, total = spread + one.weight * last.reshape(-1, WIDTH).var(0), total + one.weight
    ridge = np.concatenate([RIDGE * spread / total, [PLACE_RIDGE] * 3])
    expected = np.linalg.solve(gram / total + np.diag(ridge), moment / total)
    found = fit_nearness(samples, WIDTH)
    assert found is not None
    assert np.allclose(np.concatenate([found.weight, found.place]), expected, atol=1e-4)


def test_a_pictures_own_level_neither_teaches_nor_shows():
    level = fit_nearness([sample(0, -1.0), sample(1, 0.0), sample(2, 1.0)], WIDTH)
    assert level is not None and level.weight[2] > 0.05, "a fit that sees levels has it below zero"
    patches = sample(5).patches.numpy()
    assert np.allclose(level.depth(patches), level.depth(patches + 4), rtol=1e-3)


def test_the_lower_is_nearer_where_tokens_say_nothing_and_mirrors_agree():
    found = fit_nearness([sample(i) for i in range(4)], WIDTH)
    assert found is not None
    flat = found.depth(np.zeros((7, 9, 2 * WIDTH), np.float32))
    assert flat.shape == (28, 36) and (np.diff(flat.mean(1)) <= 1e-6).all() and flat[0].mean() > flat[-1].mean()
    patches = sample(9).patches.numpy()
    assert np.allclose(found.depth(patches[:, ::-1]), found.depth(patches)[:, ::-1], rtol=1e-4)


def test_the_map_is_averaged_over_a_window():
    patches = np.zeros((20, 20, 1), np.float32)
    patches[10, 10] = 1.0
    point, spread = (Nearness(np.ones(1, np.float32), np.zeros(3, np.float32), w) for w in (0.0, 0.2))
    assert point.depth(patches).max() > 2.0 and spread.depth(patches).max() < 1.1
    assert (spread.depth(patches) > 1.01).sum() > (point.depth(patches) > 1.01).sum()


def test_refining_keeps_the_heads_level_and_averages_the_shapes():
    patches, depth = sample(3).patches.numpy(), np.exp(np.random.default_rng(0).normal(size=(28, 36)))
    weight, place = np.ones(WIDTH, np.float32), np.array([-1.0, 0, 0], np.float32)
    none, half, whole = (Nearness(weight, place, share=s).refine(depth, patches) for s in (0.0, 0.5, 1.0))
    assert np.allclose(none, depth, rtol=1e-5)
    for found in (half, whole):
        assert np.isclose(np.log(found).mean(), np.log(depth).mean(), atol=1e-5)
    assert np.allclose(np.log(half), (np.log(none) + np.log(whole)) / 2, atol=1e-5)
    assert np.corrcoef(np.log(whole).ravel(), np.log(Nearness(weight, place).depth(patches)).ravel())[0, 1] > 0.9999


def test_without_readings_there_is_no_map():
    empty = sample(0)
    empty.truth[:] = 0
    assert fit_nearness([empty], WIDTH) is None
    one, both = fit_nearness([sample(1)], WIDTH), fit_nearness([sample(1), empty], WIDTH)
    assert one is not None and both is not None and np.array_equal(one.weight, both.weight)


def test_places_are_the_same_for_mirrored_pictures():
    found = places((4, 6)).reshape(4, 6, 3)
    assert np.allclose(found, found[:, ::-1]) and np.allclose(found[:, 0, 0], [-0.75, -0.25, 0.25, 0.75])


@pytest.fixture
def probe(engine):
    rng, pairs = np.random.default_rng(0), []
    for i in range(12):
        depth = np.linspace(6, 1, 84)[:, None] + np.zeros((84, 112))
        rgb = np.full((84, 112, 3), (180, 60, 50), np.uint8)
        rgb[50:], depth[20:60, 10 + i : 50 + i] = (60, 150, 70), 2.0
        rgb[20:60, 10 + i : 50 + i] = (40, 60, 200)
        pairs.append((np.clip(rgb + rng.integers(-8, 9, (84, 112, 1)), 0, 255).astype(np.uint8), depth))
    return DepthProbe("lin1", epochs=1, resolution=112, bins=32, engine=engine).fit(pairs), pairs


STRANGE = np.random.default_rng(0).integers(0, 255, (84, 112, 3), dtype=np.uint8)


def test_outside_near_and_far_are_the_maps_and_metres_the_heads(probe):
    from dinodemo.io.images import load_photo
    from dinodemo.tasks.depth.tokens import read_tokens
    from dinodemo.tasks.depth.upsample import to_pixels

    fitted, _ = probe
    found = fitted.estimate(STRANGE, guided=False)
    patches, _ = read_tokens(fitted.engine, load_photo(STRANGE), (2,), 112)
    expected = to_pixels(fitted.nearness_.depth(patches), (84, 112))
    assert found.unit == "relative" and np.allclose(found.depth, expected / expected.max(), rtol=1e-5)
    assert np.array_equal(found.metres, fitted.predict(STRANGE, guided=False))
    mirrored = fitted.estimate(STRANGE[:, ::-1], flip=True, guided=False).depth
    assert np.allclose(fitted.estimate(STRANGE, flip=True, guided=False).depth, mirrored[:, ::-1], rtol=1e-4)


def test_the_cards_figures_are_those_of_what_is_predicted(probe):
    fitted, pairs = probe
    held = [pairs[i] for i in fitted.held_out_]
    measured = fitted.evaluate(held, guided=False)
    assert fitted.metrics_ == pytest.approx(measured, rel=1e-3)
    assert fitted.card_["nearness"] == {"layer": 2, "ridge": RIDGE, "window": 0.2, "share": 0.5}


def test_a_file_keeps_the_map_and_one_without_it_predicts_by_its_head(probe, tmp_path, engine):
    from safetensors.torch import load, save

    fitted, pairs = probe
    path = tmp_path / "probe.safetensors"
    fitted.save(path)
    again = DepthProbe.load(path, engine)
    for picture in (STRANGE, pairs[0][0]):
        assert np.array_equal(again.estimate(picture).depth, fitted.estimate(picture).depth)
    tensors = {name: value for name, value in load(path.read_bytes()).items() if not name.startswith("nearness")}
    card = {key: value for key, value in fitted.card_.items() if key != "nearness"} | {"world": fitted.world_.threshold}
    path.write_bytes(save(tensors, {"card": json.dumps(card)}))
    former, fitted.nearness_ = DepthProbe.load(path, engine), None
    assert former.nearness_ is None
    assert np.array_equal(former.estimate(STRANGE).depth, fitted.estimate(STRANGE).depth)


@pytest.mark.parametrize("part", ["nearness.weight", "nearness.place", "card"])
def test_half_a_map_is_refused(probe, tmp_path, part):
    from safetensors.torch import load, save

    fitted, _ = probe
    path = tmp_path / "probe.safetensors"
    fitted.save(path)
    tensors, card = load(path.read_bytes()), fitted.card_ | {"world": fitted.world_.threshold}
    if part == "card":
        card = card | {"nearness": None}
    else:
        tensors.pop(part)
    path.write_bytes(save(tensors, {"card": json.dumps(card)}))
    with pytest.raises(ValueError, match="near and far is missing"):
        DepthProbe.load(path)


def test_relative_probes_and_those_of_few_pictures_have_none(engine):
    pairs = [(STRANGE, np.linspace(6, 1, 84)[:, None] + np.zeros((84, 112)))] * 12
    for relative, count in ((True, 12), (False, 9)):
        probe = DepthProbe("lin1", epochs=0, resolution=112, bins=16, relative=relative, engine=engine)
        assert probe.fit(pairs[:count]).nearness_ is None and probe.card_["nearness"] is None


def test_held_out_pictures_leave_the_map_out_of_metres_where_it_makes_them_worse(probe, engine, monkeypatch):
    from dinodemo.tasks.depth import nearness

    _, pairs = probe
    options = {"kind": "lin1", "epochs": 1, "resolution": 112, "bins": 32, "engine": engine}

    def upside_down(self, patches):
        h, w = patches.shape[:2]
        return np.geomspace(1, 50, 16 * h * w).reshape(4 * h, 4 * w)

    monkeypatch.setattr(nearness.Nearness, "depth", upside_down)
    spoilt = DepthProbe(**options).fit(pairs)
    assert spoilt.nearness_.share == 0 and spoilt.card_["nearness"]["share"] == 0
    only_measured = DepthProbe(**options).fit(pairs, stop_early=False)
    assert only_measured.nearness_.share == 0.5 and only_measured.metrics_["abs_rel"] > spoilt.metrics_["abs_rel"]


def test_a_probe_of_a_former_version_is_given_the_map(probe, engine):
    from dinodemo.tasks.depth.refit import add_nearness

    fitted, pairs = probe
    before, fitted.nearness_ = fitted.nearness_, None
    fitted.set_card(fitted.card_ | {"nearness": None, "metrics": None})
    chosen = [pair for i, pair in enumerate(pairs) if i < len(pairs) - 3]
    add_nearness(fitted, engine, chosen, pairs[-2:])
    assert np.allclose(fitted.nearness_.weight, before.weight, atol=1e-5)
    assert fitted.card_["nearness"]["pairs"] == 9 and fitted.metrics_ == fitted.evaluate(pairs[-2:], guided=False)
    fitted.relative = True
    with pytest.raises(ValueError, match="only probes in metres"):
        add_nearness(fitted, engine, chosen, pairs[-2:])
