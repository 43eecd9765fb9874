"""Whether a photo is like a probe's training pictures, what is said then, and which network a probe belongs to."""

import json
from pathlib import Path

import numpy as np
import pytest

from dinodemo.backbones.identity import Identity
from dinodemo.tasks.depth import DepthProbe
from dinodemo.tasks.depth.dataset import scene_weights
from dinodemo.tasks.depth.world import LEAST_PICTURES, describe_picture, fit_world


def room(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a red wall above a green floor, with a blue box, and its depth."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(6, 1, 84)[:, None] + np.zeros((84, 112))
    rgb = np.full((84, 112, 3), (180, 60, 50), np.uint8)
    rgb[50:] = (60, 150, 70)
    left = rng.integers(5, 70)
    rgb[30:60, left : left + 30], depth[30:60, left : left + 30] = (40, 60, 200), 2.0
    return np.clip(rgb + rng.integers(-8, 9, (84, 112, 1)), 0, 255).astype(np.uint8), depth


STRANGE = np.random.default_rng(0).integers(0, 255, (84, 112, 3), dtype=np.uint8)


@pytest.fixture
def probe(engine):
    pairs = [room(i) for i in range(12)]
    return DepthProbe("lin1", epochs=1, resolution=112, bins=32, engine=engine).fit(pairs)


def test_a_picture_like_the_trainings_keeps_its_metres(probe):
    found = probe.estimate(room(77)[0])
    assert found.inside is True and found.unit == "metres" and found.message == "" and found.distance <= 1
    assert np.array_equal(found.depth, probe.predict(room(77)[0]))


def test_a_strange_picture_has_near_and_far_only_unless_asked(probe):
    found = probe.estimate(STRANGE)
    assert found.inside is False and found.unit == "relative" and found.distance > 1 and "no metres" in found.message
    assert found.depth.max() == 1 and found.depth.min() > 0
    asked = probe.estimate(STRANGE, metres=True)
    assert asked.unit == "metres" and asked.inside is False and asked.message
    assert np.array_equal(asked.depth, probe.predict(STRANGE))


def test_a_saved_probe_knows_its_world(probe, tmp_path, engine):
    probe.save(tmp_path / "probe.safetensors")
    again = DepthProbe.load(tmp_path / "probe.safetensors", engine)
    for picture in (STRANGE, room(77)[0]):
        assert again.estimate(picture).distance == probe.estimate(picture).distance


def test_few_pictures_make_no_world(engine):
    probe = DepthProbe("lin1", epochs=0, resolution=112, bins=32).fit(engine, [room(i) for i in range(4)])
    found = probe.estimate(engine, STRANGE)
    assert probe.world_ is None and found.inside is None and found.unit == "metres" and "not recorded" in found.message


def test_a_world_is_the_nearest_of_its_pictures():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 6)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True) / np.sqrt(2)
    held = points[:5] + 0.01 * rng.normal(size=(5, 6)).astype(np.float32)
    world = fit_world(points, held)
    slow = [min(np.linalg.norm(world.coreset[j] - one) for j in range(len(world.coreset))) for one in held]
    assert world.threshold == pytest.approx(1.1 * np.quantile(slow, 0.95), rel=1e-4)
    assert all(world.holds(one) for one in held) and not world.holds(-3 * points[0])
    assert fit_world(points[: LEAST_PICTURES - 1]) is None


def test_without_held_out_pictures_neighbours_do_not_set_the_distance():
    walk = np.stack([np.cos(np.linspace(0, 3, 60)), np.sin(np.linspace(0, 3, 60))], 1).astype(np.float32) * np.sqrt(2)
    step = float(np.linalg.norm(walk[1] - walk[0]))
    assert fit_world(walk).threshold > 3 * step


def test_a_large_world_is_kept_as_points_spread_over_all():
    points = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    world = fit_world(points, points[::40])
    assert len(world.coreset) == 128
    covered = [world.distance(one) for one in points]
    assert max(covered) < np.median([np.linalg.norm(points[0] - one) for one in points[1:]])


def test_a_descriptor_is_of_the_last_layer_alone():
    rng = np.random.default_rng(0)
    patches, cls = rng.normal(size=(3, 4, 20)).astype(np.float32), rng.normal(size=20).astype(np.float32)
    found = describe_picture(patches, cls, 2)
    assert np.linalg.norm(found[:10]) == pytest.approx(1) and np.linalg.norm(found[10:]) == pytest.approx(1)
    assert np.allclose(found[:10], cls[10:] / np.linalg.norm(cls[10:]))
    patches[..., :10], cls[:10] = 9, 9
    assert np.array_equal(found, describe_picture(patches, cls, 2))


@pytest.mark.parametrize("world", [None, -1, 1e999, "near"])
def test_a_damaged_world_is_refused(probe, tmp_path, world):
    from safetensors.torch import load, save

    path = tmp_path / "probe.safetensors"
    probe.save(path)
    card = probe.card_ | ({} if world is None else {"world": world})
    path.write_bytes(save(load(path.read_bytes()), {"card": json.dumps(card)}))
    with pytest.raises(ValueError, match="not a depth probe saved by this app"):
        DepthProbe.load(path)


def test_other_weights_of_the_same_name_are_refused(probe, engine):
    probe.card_["identity"] = Identity(engine.backbone.name, "0" * 64).to_json()
    with pytest.raises(ValueError, match=r"made with .*0000.* now .* train it again"):
        probe.predict(room(0)[0])


def test_a_probe_of_version_01_opens_and_says_what_it_does_not_know(probe, engine, tmp_path):
    from safetensors.torch import load, save

    from dinodemo.tasks.depth.card import check_engine

    path = tmp_path / "old.safetensors"
    probe.save(path)
    card = {k: v for k, v in probe.card_.items() if k not in ("identity", "inverse", "balanced", "metrics", "nearness")}
    card |= {"format": "dinodemo depth probe 1", "figures": probe.metrics_}
    tensors = {k: v for k, v in load(path.read_bytes()).items() if not k.startswith(("world", "nearness"))}
    path.write_bytes(save(tensors, {"card": json.dumps(card)}))
    old, probe.nearness_ = DepthProbe.load(path), None
    assert np.array_equal(old.predict(engine, room(3)[0]), probe.predict(room(3)[0]))
    assert "version 0.1" in check_engine(old, engine) and check_engine(probe, engine) == ""
    assert old.metrics_ == probe.metrics_ and old.world_ is None


def test_the_engine_comes_from_the_constructor_or_the_call(engine):
    pairs = [room(i) for i in range(5)]
    options = {"kind": "lin1", "epochs": 1, "resolution": 112, "bins": 16}
    one, other = DepthProbe(**options, engine=engine).fit(pairs), DepthProbe(**options).fit(engine, pairs)
    picture = room(9)[0]
    assert np.array_equal(one.predict(picture), other.predict(engine, picture))
    assert one.evaluate(pairs) == other.evaluate(engine, pairs)
    for call in (
        lambda: other.predict(picture),
        lambda: other.evaluate(pairs),
        lambda: DepthProbe(**options).fit(pairs),
    ):
        with pytest.raises(ValueError, match=r"DepthProbe\(engine=\.\.\.\)"):
            call()
    with pytest.raises(ValueError, match="no image"):
        other.predict(engine)


def test_scenes_count_the_same_however_many_pairs_they_have(engine):
    assert scene_weights(["a", "a", "a", "b"]) == [2 / 3] * 3 + [2.0] and scene_weights(None) == []
    (photo, depth), groups = room(0), ["many"] * 6 + ["few"]
    pairs = [(photo, depth)] * 6 + [(photo, 2 * depth)]  # a contradiction, for the weights to settle
    options = {"kind": "lin1", "epochs": 0, "resolution": 112, "bins": 32}
    held = [room(50)]
    plain = DepthProbe(**options).fit(engine, pairs, val=held, groups=groups)
    even = DepthProbe(**options, balanced=True).fit(engine, pairs, val=held, groups=groups)
    assert even.predict(engine, photo).mean() > 1.1 * plain.predict(engine, photo).mean()
    assert even.card_["balanced"] is True


WEIGHTS = Path(__file__).resolve().parents[2] / "weights" / "depth_rooms_lin4-2_dinov2-small-offline.safetensors"


def test_the_ready_probe_is_of_these_weights_and_knows_its_world(offline_engine, make_picture):
    probe = DepthProbe.load(WEIGHTS, offline_engine)
    assert WEIGHTS.stat().st_size < 2_000_000 and probe.unit_ == "metres" and probe.world_ is not None
    assert probe.nearness_ is not None and probe.card_["nearness"]["share"] == 0.5
    found = probe.estimate(make_picture(84, 112, seed=1))  # of another backbone, or of other weights, it would raise
    assert found.inside is False and found.unit == "relative" and found.metres.max() < 12
