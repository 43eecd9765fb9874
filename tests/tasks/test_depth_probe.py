"""DepthProbe: what it learns, on what it is measured, what it says, and its files."""

import json

import numpy as np
import pytest
import torch

from dinodemo.tasks.depth import DepthProbe, start, training
from dinodemo.tasks.depth.dataset import choose_held_out, depth_range, without_scale
from dinodemo.tasks.depth.head import bin_centres
from dinodemo.tasks.depth.metrics import align, depth_metrics, mean_metrics
from dinodemo.tasks.depth.upsample import to_pixels

RESOLUTION = 112  # 8 x 8 patches
CARDBOARD = {"near": (200, 60, 40), "far": (40, 70, 200)}


def room(seed: int, size=(84, 112)) -> tuple[np.ndarray, np.ndarray]:
    """Paint near red boxes before a far blue wall, and a floor that gets nearer downwards: photo, depth."""
    rng = np.random.default_rng(seed)
    depth = np.full(size, 5.0, np.float32)
    rgb = np.full((*size, 3), CARDBOARD["far"], np.uint8)
    floor = size[0] * 2 // 3
    rows = np.arange(floor, size[0])
    depth[floor:] = (5.0 - 3.5 * (rows - floor) / (size[0] - floor))[:, None]
    rgb[floor:] = (90, 160, 90)
    for _ in range(2):
        top, left = rng.integers(8, size[0] // 2), rng.integers(4, size[1] - 44)
        depth[top : top + 36, left : left + 40], rgb[top : top + 36, left : left + 40] = 1.5, CARDBOARD["near"]
    depth[rng.random(size) < 0.1] = 0
    return np.clip(rgb + rng.integers(-8, 9, (*size, 1)), 0, 255).astype(np.uint8), depth


def tiny_probe(**options) -> DepthProbe:
    return DepthProbe(**{"resolution": RESOLUTION, "epochs": 3, "bins": 32, "kind": "lin1"} | options)


@pytest.fixture
def fitted(engine):
    return tiny_probe().fit(engine, [room(i) for i in range(6)])


def slope(size=(84, 112)) -> np.ndarray:
    """Return a plane that recedes to the right and upwards, 1.5 to 5 m."""
    y, x = np.mgrid[: size[0], : size[1]] / np.reshape(size, (2, 1, 1))
    return (5 - 2 * y - 1.5 * (1 - x)).astype(np.float32)


@pytest.mark.parametrize("kind", ["lin1", "lin4"])
def test_one_picture_is_learned_by_heart(offline_engine, make_picture, kind):
    rgb, depth = make_picture(84, 112, seed=3), slope()
    probe = tiny_probe(kind=kind).fit(offline_engine, [(rgb, depth)])
    found = depth_metrics(probe.predict(offline_engine, rgb, guided=False), depth)
    assert found["abs_rel"] < 0.01 and found["delta1"] == 1
    assert probe.metrics_ is None and probe.held_out_ == [] and "No held-out figure" in probe.note_


def test_a_plane_is_recovered_in_pictures_that_were_not_seen(offline_engine, make_picture):
    """Only the place in the picture tells the depth, which tokens carry; what the pictures show is noise."""
    pairs = [(make_picture(84, 112, seed=i), slope()) for i in range(12)]
    probe = tiny_probe(kind="lin4").fit(offline_engine, pairs)
    found = probe.evaluate(offline_engine, [(make_picture(84, 112, seed=99), slope())])
    assert found["abs_rel"] < 0.06 and found["delta1"] > 0.98


def test_rooms_are_learned_and_measured_on_pictures_not_trained_on(engine, monkeypatch):
    seen = []
    original = start.closed_form

    def closed_form(samples, *rest):
        seen.extend(samples)
        return original(samples, *rest)

    monkeypatch.setattr(training, "closed_form", closed_form)
    pairs = [room(i) for i in range(12)]
    probe = tiny_probe(flips=True).fit(engine, pairs)
    median = np.median(np.concatenate([d[d > 0] for _, d in pairs[:9]]))
    flat = mean_metrics(depth_metrics(np.full(d.shape, median), d) for _, d in pairs[10:])
    assert probe.held_out_ == [10, 11] and probe.card_["pairs"] == 9 and probe.card_["held_out_pairs"] == 2
    assert probe.metrics_["rmse"] < 0.7 * flat["rmse"]
    held = [engine.features(pairs[i][0], RESOLUTION).patches for i in (9, 10, 11)]
    assert len(seen) == 18  # nine pictures and their mirror images
    assert not any(np.array_equal(sample.patches.numpy(), patches) for sample in seen for patches in held)
    # the figures are those of predict, without the photo's lead, on exactly these pictures
    slow = mean_metrics(
        depth_metrics(to_pixels(probe.predict(engine, image, guided=False), depth.shape), depth)
        for image, depth in pairs[10:]
    )
    assert probe.metrics_ == pytest.approx(slow, rel=1e-5)
    assert probe.evaluate(engine, pairs[10:], guided=False) == pytest.approx(slow, rel=1e-5)


def test_depth_of_lower_resolution_than_the_photo_is_enough(engine):
    pairs = [(rgb, depth[::4, ::4]) for rgb, depth in map(room, range(5))]
    probe = tiny_probe().fit(engine, pairs)
    assert probe.predict(engine, pairs[0][0]).shape == (84, 112)


@pytest.mark.parametrize("size", [(60, 200), (200, 60), (33, 47)])
def test_any_size_and_aspect_is_predicted_at_its_own_size(engine, fitted, make_picture, size):
    for options in ({}, {"flip": True}, {"guided": False}, {"resolution": 70}):
        depth = fitted.predict(engine, make_picture(*size), **options)
        assert depth.shape == size and depth.dtype == np.float32
        low, high = fitted.card_["range"]
        assert low * 0.99 <= depth.min() and depth.max() <= high * 1.01


def test_flipping_is_the_mean_with_the_mirrored_photo(engine, fitted):
    rgb, _ = room(3)
    one = fitted.predict(engine, rgb, guided=False)
    other = fitted.predict(engine, np.ascontiguousarray(rgb[:, ::-1]), guided=False)[:, ::-1]
    np.testing.assert_allclose(fitted.predict(engine, rgb, flip=True, guided=False), (one + other) / 2, rtol=1e-4)


def test_a_saved_probe_agrees_exactly(engine, fitted, tmp_path):
    fitted.save(tmp_path / "probe.safetensors")
    again = DepthProbe.load(tmp_path / "probe.safetensors")
    rgb, _ = room(9)
    assert np.array_equal(again.predict(engine, rgb), fitted.predict(engine, rgb))
    assert again.card_ == fitted.card_ and again.note_ == fitted.note_ and again.metrics_ == fitted.metrics_
    for name in ("kind", "epochs", "resolution", "bins", "relative", "flips", "seed"):
        assert getattr(again, name) == getattr(fitted, name)
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "probe.safetensors").read_bytes()
    # two bytes a number: training ends on weights that float16 can hold
    assert (tmp_path / "probe.safetensors").stat().st_size < 2 * 32 * 97 + 4000


def test_training_repeats_exactly(engine, make_engine, fitted):
    state = torch.random.get_rng_state()
    torch.manual_seed(123)
    again = tiny_probe().fit(make_engine(), [room(i) for i in range(6)])
    torch.random.set_rng_state(state)
    rgb, _ = room(9)
    assert np.array_equal(again.predict(engine, rgb), fitted.predict(engine, rgb))


def test_the_card_tells_all_and_a_warning_reaches_the_note(engine):
    words = {"data": "two rooms", "licence": "MIT", "warning": "It has seen two rooms."}
    probe = tiny_probe(min_depth=1.0, max_depth=6.0).fit(engine, [room(i) for i in range(6)], **words)
    card = json.loads(json.dumps(probe.card_, allow_nan=False))
    assert {key: card[key] for key in words} == words and card["range"] == [1.0, 6.0]
    assert card["backbone"] == engine.backbone.name and card["layers"] == [2] and card["relative"] is False
    assert probe.note_.endswith("It has seen two rooms.") and f"RMSE {probe.metrics_['rmse']:.2f} m" in probe.note_
    assert probe.unit_ == "metres"


def test_the_curve_grows_and_the_best_epoch_is_kept(engine):
    probe = tiny_probe(epochs=4).fit(engine, [room(i) for i in range(6)])
    assert [row["epoch"] for row in probe.curve_] == list(range(1, probe.card_["epochs_run"] + 1))
    assert all({"loss", "rmse", "delta1", "silog"} <= row.keys() for row in probe.curve_)
    kept = probe.card_["epoch_kept"]
    if kept:
        assert probe.metrics_ == {k: v for k, v in probe.curve_[kept - 1].items() if k in probe.metrics_}


def test_held_out_pairs_that_only_measure_do_not_choose_the_epoch(engine):
    pairs = [room(i) for i in range(8)]
    probe = tiny_probe(epochs=2).fit(engine, pairs[:6], val=pairs[6:], stop_early=False)
    assert probe.card_["epoch_kept"] == probe.card_["epochs_run"] == 2 and not probe.card_["chosen_on_held_out"]
    assert probe.held_out_ == [0, 1] and probe.card_["pairs"] == 6 and "chose the epoch" not in probe.note_
    other = tiny_probe(epochs=2).fit(engine, pairs[:6], val=[room(77)], stop_early=False)
    rgb, _ = room(9)
    assert np.array_equal(probe.predict(engine, rgb), other.predict(engine, rgb))


def test_training_stops_when_nothing_gets_better(engine, monkeypatch):
    monkeypatch.setattr(training, "LEARNING_RATE", 0.0)
    monkeypatch.setattr(training, "PATIENCE", 2)
    probe = tiny_probe(epochs=30).fit(engine, [room(i) for i in range(6)])
    assert probe.card_["epochs_run"] == 2 and probe.card_["epoch_kept"] == 0


def test_gradient_steps_lower_the_loss(engine):
    probe = tiny_probe(epochs=8).fit(engine, [room(i) for i in range(3)])
    losses = [row["loss"] for row in probe.curve_]
    assert losses[-1] < losses[0]


def test_progress_is_told_and_can_cancel(engine):
    told = []
    tiny_probe().fit(engine, [room(i) for i in range(6)], progress=lambda *row: told.append(row))
    done, total, messages = zip(*told, strict=True)
    assert list(done) == sorted(done) and done[-1] == total[-1] and len(set(total)) == 1
    assert any("features" in message for message in messages) and any("RMSE" in message for message in messages)

    class Stop(Exception):
        pass

    def cancel(done, total, message):
        if "epoch" in message:
            raise Stop

    probe = tiny_probe()
    with pytest.raises(Stop):
        probe.fit(engine, [room(i) for i in range(6)], progress=cancel)
    with pytest.raises(ValueError, match="nothing is fitted"):
        probe.predict(engine, room(0)[0])


def test_relative_depth_does_not_see_the_scale_of_each_picture(engine):
    rng = np.random.default_rng(0)
    pairs = [(rgb, depth * rng.uniform(0.1, 10)) for rgb, depth in map(room, range(12))]
    probe = tiny_probe(relative=True).fit(engine, pairs)
    assert probe.unit_ == "relative" and "RMSE" not in probe.note_ and "scale and shift" in probe.note_
    flat = mean_metrics(depth_metrics(align(np.ones_like(d), d), d) for _, d in pairs[10:])
    assert probe.metrics_["abs_rel"] < 0.6 * flat["abs_rel"]
    rgb, depth = room(50)
    found = probe.predict(engine, rgb)
    assert np.corrcoef(found[depth > 0], depth[depth > 0])[0, 1] > 0.8  # larger is farther
    one, seven = (probe.evaluate(engine, [(rgb, depth * scale)]) for scale in (1, 7))
    assert seven == pytest.approx(one, rel=1e-3)  # each map's median is 1


def test_groups_are_held_out_as_a_whole_and_walks_at_their_end():
    assert choose_held_out(3) == ([0, 1, 2], [])
    train, held = choose_held_out(100)
    assert held == list(range(80, 100)) and train == list(range(76))  # a gap of four
    groups = ["a"] * 5 + ["b"] * 3 + ["c"] * 2
    assert choose_held_out(10, groups) == (list(range(8)), [8, 9])
    assert choose_held_out(10, ["a", "b"] * 5) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])
    assert choose_held_out(10, ["a"] * 10) == choose_held_out(10)
    assert choose_held_out(10, ["a"] * 4 + ["b"] * 6) == (list(range(4, 10)), [0, 1, 2, 3])
    with pytest.raises(ValueError, match="each of the 3 pairs"):
        choose_held_out(3, ["a"])


def test_maps_that_differ_by_scale_and_shift_of_inverse_depth_become_the_same():
    depth = np.random.default_rng(0).uniform(1, 5, (20, 30)).astype(np.float32)
    depth[0, :5] = 0
    other = np.where(depth > 0, 1 / (0.2 / np.maximum(depth, 0.1) + 0.4), 0)
    one, two = without_scale(depth), without_scale(other)
    np.testing.assert_allclose(one, two, rtol=1e-4)
    assert (one[0, :5] == 0).all() and one[depth > 0].min() == pytest.approx(0.1) and one.max() == pytest.approx(1)
    assert set(np.unique(without_scale(np.ones((3, 4))))) == {np.float32(1 / 5.5)}


def test_the_range_comes_from_the_readings():
    depth = np.linspace(1, 4, 10_000).reshape(100, 100)
    depth[0, 0] = 900  # one wild reading
    low, high = depth_range([depth], None, None)
    assert 0.6 < low < 1 and 4 < high < 5
    assert depth_range([depth], 0.5, None)[0] == 0.5 and depth_range([depth], None, 8.0)[1] == 8.0
    with pytest.raises(ValueError, match="below max_depth"):
        depth_range([depth], 5.0, 4.0)
    with pytest.raises(ValueError, match="max_depth must be"):
        depth_range([depth], None, 1e6)


def test_a_depth_is_spread_over_the_bins_around_its_mean():
    centres = bin_centres(0.5, 8, 64)
    depth = torch.tensor([0.7, 1.0, 2.5, 4.25, 7.5])
    spread = start.spread_over_bins(depth, centres)
    torch.testing.assert_close(spread.sum(1), torch.ones(5))
    torch.testing.assert_close(spread @ centres, depth, rtol=1e-3, atol=1e-3)
    # of maximum entropy: logarithms are linear in the centre
    bends = spread[2].log().diff().diff().abs().max()
    assert bends < 1e-4


def test_the_start_agrees_with_a_dense_ridge_regression():
    generator = torch.Generator().manual_seed(0)
    centres, layers, width = bin_centres(0.5, 6, 8), 2, 3
    samples = [
        training.Sample(
            torch.randn(4, 5, layers * width, generator=generator),
            torch.randn(layers * 2 * width, generator=generator),
            torch.rand(16, 20, generator=generator) * 4 + 1,
        )
        for _ in range(6)
    ]
    standard = start.standardise(samples, layers)
    weight, bias = start.closed_form(samples, centres, standard, layers)
    rows, targets = [], []
    for sample in samples:
        for y in range(4):
            for x in range(5):
                parts = [slice(k * width, (k + 1) * width) for k in range(layers)]
                shared = sample.shared.reshape(layers, 2 * width)
                raw = torch.cat([torch.cat([sample.patches[y, x, parts[k]], shared[k]]) for k in range(layers)])
                rows.append(torch.cat([(raw - standard.mean) * standard.scale, torch.ones(1)]))
                depth = sample.truth[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean()
                targets.append(start.spread_over_bins(depth[None], centres)[0] / depth.sqrt())
    a, b = torch.stack(rows).double(), torch.stack(targets).double()
    of_patch = ([start.RIDGE] * width + [start.SHARED_RIDGE] * 2 * width) * layers
    ridge = torch.diag(torch.tensor([*of_patch, 1e-6], dtype=torch.float64)) * len(a)
    slow = torch.linalg.solve(a.T @ a + ridge, a.T @ b)
    torch.testing.assert_close(weight.double(), start.GAIN * slow[:-1].T, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(bias.double(), start.GAIN * slow[-1] - 0.1, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "no pairs"),
        ([(room(0)[0], np.zeros((84, 112)))], "pair 1 holds no reading"),
        ([room(0), (room(1)[0], room(1)[1].T)], r"pair 2: the depth map is 84 x 112 but picture is 112 x 84"),
        ([(room(0)[0], np.ones((84, 112, 3)))], r"numbers \(H, W\)"),
        ([(room(0)[0], (room(0)[1] * 1000).astype(np.uint16))], "as millimetres do"),
    ],
)
def test_pairs_that_cannot_be_used_are_refused(engine, pairs, message):
    with pytest.raises(ValueError, match=message):
        tiny_probe().fit(engine, pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "lin2"}, '"lin1" or "lin4"'),
        ({"epochs": -1}, "epochs must be"),
        ({"bins": 1}, "bins must be"),
        ({"resolution": "high"}, "resolution must be"),
        ({"relative": 1}, "relative must be True or False"),
        ({"relative": True, "max_depth": 5.0}, "no metres"),
        ({"kind": "lin4"}, "1 or 4 layers"),
    ],
)
def test_options_that_do_not_exist_are_refused(engine, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_probe(**options).fit(engine, [room(0)])


def test_another_backbone_is_refused(make_engine, fitted):
    with pytest.raises(ValueError, match="this probe was trained on"):
        fitted.predict(make_engine("dinov2-registers"), room(0)[0])


def test_too_many_features_are_refused_before_they_fill_the_memory(engine, monkeypatch):
    monkeypatch.setattr(training, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="lower the resolution"):
        tiny_probe().fit(engine, [room(0)])


def test_features_in_half_precision_train_as_well(engine, fitted, monkeypatch):
    monkeypatch.setattr(training, "FLOAT32_BYTES", 1000)
    half = tiny_probe().fit(engine, [room(i) for i in range(6)])
    assert half.metrics_["rmse"] == pytest.approx(fitted.metrics_["rmse"], rel=0.03)


def test_nothing_works_before_it_is_fitted(engine, tmp_path):
    for action in (lambda p: p.predict(engine, room(0)[0]), lambda p: p.save(tmp_path / "x")):
        with pytest.raises(ValueError, match="call fit, load or from_meta first"):
            action(DepthProbe())
