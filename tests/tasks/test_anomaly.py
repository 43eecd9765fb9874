"""The anomaly detector: good photos in, scores on a fixed scale out; saved and loaded."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.base import clone

from dinodemo.tasks.anomaly import Anomaly, AnomalyDetector

RESOLUTION = 112


@pytest.fixture
def make_good(make_picture):
    """Make a photo of the good kind: the same smooth picture with a little noise of its own."""

    def make(seed: int, spot: bool = False, size: tuple[int, int] = (96, 128)) -> np.ndarray:
        rgb = make_picture(*size, seed=0).astype(int) + np.random.default_rng(seed).integers(-6, 7, (*size, 3))
        if spot:
            rgb[size[0] // 4 : size[0] // 2, size[1] // 2 : 3 * size[1] // 4] = (0, 255, 0)
        return np.clip(rgb, 0, 255).astype(np.uint8)

    return make


@pytest.fixture
def fitted(engine, make_good):
    return AnomalyDetector(engine, RESOLUTION).fit([make_good(seed) for seed in range(1, 6)])


def test_a_spot_is_found_and_another_good_photo_is_good(fitted, make_good):
    good, bad = fitted.predict(make_good(20)), fitted.predict(make_good(21, spot=True))
    assert good.verdict == "good" and bad.verdict == "anomaly" and bad.score > 2 * good.score
    assert bad.map.shape == (96, 128) and bad.map.dtype == np.float32 and bad.map.min() >= 0
    inside = np.zeros((96, 128), bool)
    inside[24:48, 64:96] = True
    assert bad.map[inside].mean() > 2 * bad.map[~inside].mean()
    assert bad.mask.any() and not good.mask.any() and (bad.mask == bad.at()).all()
    assert bad.verdict_at(bad.score + 1) == "good"
    assert bad.at(size=(48, 64)).shape == (48, 64) and not bad.at(line=bad.score + 1).any()


def test_the_scale_is_that_of_the_good_photos_whatever_is_checked(fitted, make_good):
    alone = fitted.predict(make_good(20))
    fitted.predict(make_good(21, spot=True))
    again = fitted.predict(make_good(20))
    assert alone.score == again.score and (alone.patches == again.patches).all()
    assert (fitted.good_scores_ < 1).all() and len(fitted.good_scores_) == 5


def test_a_photo_of_another_size_is_scored_too(fitted, make_good):
    found = fitted.predict(make_good(20, size=(160, 96)))
    assert found.map.shape == (160, 96) and np.isfinite(found.score)


def test_a_learned_good_photo_is_at_distance_zero(fitted, make_good):
    assert fitted.predict(make_good(1)).score == pytest.approx(0, abs=1e-4)


def test_this_is_fine_too(fitted, make_good):
    odd = make_good(21, spot=True)
    before, other = fitted.predict(odd), fitted.predict(make_good(20)).score
    line = fitted.line_
    assert fitted.add(odd) is fitted and fitted.line_ == line
    assert before.score > 1 > fitted.predict(make_good(22, spot=True)).score
    assert fitted.predict(make_good(20)).score <= other
    assert len(fitted.names_) == len(fitted.thumbs_) == 6 and fitted.owner_.max() == 5


def test_the_nearest_good_patch_is_at_the_same_place(fitted, make_good):
    result = fitted.predict(make_good(3))  # one that was learned: its own patches are nearest
    for x, y in ((0.1, 0.2), (0.9, 0.8), (1.0, 1.0)):
        found = fitted.nearest(result, x, y)
        h, w = result.patches.shape
        assert found.photo == 2 and found.distance == pytest.approx(0, abs=1e-4)
        assert found.patch == (min(int(y * h), h - 1), min(int(x * w), w - 1))
        assert found.location == pytest.approx(((found.patch[1] + 0.5) / w, (found.patch[0] + 0.5) / h))


@pytest.mark.parametrize("augment", ["flips", "rotations", "crops"])
def test_augmented_views_are_remembered(engine, make_good, augment):
    photos = [make_good(seed) for seed in range(1, 4)]
    plain = AnomalyDetector(engine, RESOLUTION).fit(photos)
    more = AnomalyDetector(engine, RESOLUTION, augment=augment).fit(photos)
    assert len(more.memory_) >= 4 * len(plain.memory_) and (more.location_ >= 0).all() and (more.location_ <= 1).all()
    if augment == "flips":
        mirrored = np.ascontiguousarray(make_good(1)[:, ::-1])
        assert more.predict(mirrored).score < 0.01 < plain.predict(mirrored).score


def test_one_good_photo_is_enough_and_says_that_the_line_is_a_guess(engine, make_good):
    detector = AnomalyDetector(engine, RESOLUTION).fit([make_good(1)])
    assert "guess" in detector.warnings_[0]
    good, bad = detector.predict(make_good(2)), detector.predict(make_good(3, spot=True))
    assert bad.score > good.score and detector.line_ > 0
    assert detector.memory_.shape[0] == np.prod(good.patches.shape)  # the mirrored views serve the line only


def test_a_large_memory_becomes_a_coreset(engine, make_good):
    photos = [make_good(seed) for seed in range(1, 4)]
    small = AnomalyDetector(engine, RESOLUTION, max_patches=60).fit(photos)
    assert len(small.memory_) == len(small.owner_) == len(small.location_) == 60
    assert small.add(make_good(9, spot=True)).memory_.shape[0] == 60
    assert small.predict(make_good(21)).score < 3


def test_a_set_that_does_not_belong_together_is_named(engine, make_good, make_picture):
    photos = [make_good(seed) for seed in range(1, 6)]
    odd = Image.fromarray(255 - make_picture(96, 128, seed=9))
    detector = AnomalyDetector(engine, RESOLUTION).fit([*photos, odd])
    assert any("unlike the other good photos" in text for text in detector.warnings_)
    assert not AnomalyDetector(engine, RESOLUTION).fit(photos).warnings_


def test_a_folder_of_good_photos_will_do(engine, make_good, tmp_path):
    for seed in (1, 2):
        Image.fromarray(make_good(seed)).save(tmp_path / f"{seed}.png")
    (tmp_path / "notes.txt").write_text("no photo")
    assert AnomalyDetector(engine, RESOLUTION).fit(tmp_path).names_ == ["1.png", "2.png"]


def test_progress_is_told(engine, make_good):
    steps = []
    AnomalyDetector(engine, RESOLUTION).fit([make_good(1), make_good(2)], progress=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]


def test_what_cannot_be_used_is_refused(engine, make_good, tmp_path):
    with pytest.raises(ValueError, match="nothing was learned yet"):
        AnomalyDetector(engine).predict(make_good(1))
    with pytest.raises(ValueError, match="give 1 to 100 good photos, got 0"):
        AnomalyDetector(engine).fit([])
    with pytest.raises(ValueError, match="gone: cannot be read"):
        AnomalyDetector(engine).fit(tmp_path / "gone")
    with pytest.raises(ValueError, match="augment must be one of"):
        AnomalyDetector(engine, augment="yes").fit([make_good(1)])
    with pytest.raises(ValueError, match="layers must be whole numbers from 0 to 2"):
        AnomalyDetector(engine, layers=(3,)).fit([make_good(1)])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"bad\.png is not a picture"):
        AnomalyDetector(engine).fit([tmp_path / "bad.png"])


def test_it_is_an_estimator(engine):
    detector = AnomalyDetector(engine, augment="flips")
    assert detector.get_params()["augment"] == "flips" and detector.set_params(resolution=70).resolution == 70
    assert isinstance(clone(AnomalyDetector(None, augment="flips")), AnomalyDetector)


def test_a_saved_set_says_the_same(fitted, engine, make_good, tmp_path):
    fitted.save(tmp_path / "set.safetensors")
    loaded = AnomalyDetector.load(tmp_path / "set.safetensors", engine)
    bad = make_good(21, spot=True)
    before, after = fitted.predict(bad), loaded.predict(bad)
    assert isinstance(after, Anomaly) and after.score == pytest.approx(before.score, rel=1e-2)
    np.testing.assert_allclose(after.patches, before.patches, atol=0.02)
    assert loaded.get_params() == fitted.get_params() and loaded.names_ == fitted.names_
    assert loaded.thumbs_[0].shape == fitted.thumbs_[0].shape
    with safe_open(tmp_path / "set.safetensors", "numpy") as file:
        card = json.loads(file.metadata()["card"])
    assert card == loaded.card() == {**fitted.card()} and engine.identity.sha256 in card["identity"]
    assert loaded.add(bad).predict(bad).score < 1


def test_a_set_of_other_weights_is_refused(fitted, make_engine, tmp_path):
    fitted.save(tmp_path / "set.safetensors")
    with pytest.raises(ValueError, match="this set was made with dinov2"):
        AnomalyDetector.load(tmp_path / "set.safetensors", make_engine("dino-v1"))


def _damaged(path, change):
    with safe_open(path, "numpy") as file:
        card = json.loads(file.metadata()["card"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(card, arrays)
    save_file(arrays, path, {"card": json.dumps(card)})


DAMAGE = {
    "format": lambda card, arrays: card.update(format="other"),
    "missing": lambda card, arrays: arrays.pop("place"),
    "shape": lambda card, arrays: arrays.update(owner=arrays["owner"][1:].copy()),
    "nan": lambda card, arrays: arrays["memory"].fill(np.nan),
    "line": lambda card, arrays: card.update(line=-1),
    "owner": lambda card, arrays: arrays["owner"].fill(99),
    "thumbs": lambda card, arrays: arrays["thumbs"].fill(0),
    "names": lambda card, arrays: card.update(names=[1, 2]),
    "no card": lambda card, arrays: card.clear(),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_set_is_refused(fitted, engine, tmp_path, change):
    path = tmp_path / "set.safetensors"
    fitted.save(path)
    _damaged(path, change)
    with pytest.raises(ValueError, match=r"set\.safetensors is not a set of good photos"):
        AnomalyDetector.load(path, engine)


def test_other_files_are_no_sets(engine, tmp_path):
    for name, content in {"a.safetensors": b"", "b.safetensors": b"nothing of the kind" * 9}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="is not a set of good photos"):
            AnomalyDetector.load(tmp_path / name, engine)
    with pytest.raises(ValueError, match="is not a set of good photos"):
        AnomalyDetector.load(tmp_path / "gone.safetensors", engine)
