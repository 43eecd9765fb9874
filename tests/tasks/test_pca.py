"""Patch PCA against scikit-learn, and its contract."""

import io

import numpy as np
import pytest
from sklearn.decomposition import PCA

from dinodemo.backbones.identity import Identity
from dinodemo.engine.features import Features
from dinodemo.tasks.pca import draw
from dinodemo.tasks.pca.basis import PatchPCA, otsu_threshold

FIRST, OTHER = Identity("tiny", "a" * 64), Identity("tiny", "b" * 64)


def make(patches, backbone="tiny", identity=None) -> Features:
    patches = np.asarray(patches, np.float32).copy()
    return Features(
        cls=patches[0, 0].copy(),
        patches=patches,
        registers=np.empty((0, patches.shape[-1]), np.float32),
        image_size=(10, 10),
        input_size=(10, 10),
        backbone=backbone,
        identity=identity,
    )


def scene(seed=0, top=2, flip=1.0):
    """Make 10 x 12 patches: a subject of its own direction in the middle, noise everywhere."""
    rng = np.random.default_rng(seed)
    patches = 0.3 * rng.standard_normal((10, 12, 16))
    subject = np.zeros((10, 12), bool)
    subject[top : top + 5, 3:9] = True
    patches[subject] += flip * 4 * np.eye(16)[0]
    patches[subject] += 2 * rng.standard_normal((subject.sum(), 1)) * np.eye(16)[1]
    return make(patches), subject


def test_without_foreground_it_agrees_with_scikit_learn():
    f, _ = scene()
    ours = PatchPCA(4, foreground=None).fit([f])
    flat = f.patches.reshape(-1, 16).astype(np.float64)
    theirs = PCA(4, svd_solver="full").fit(flat)
    assert np.allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, atol=1e-5)
    agreement = np.abs(np.sum(ours.components_ * theirs.components_, axis=1))
    assert np.allclose(agreement, 1, atol=1e-4)
    scores = flat @ ours.components_[:3].T.astype(np.float64)
    low, high = np.percentile(scores, (1, 99), axis=0)
    expected = np.clip((scores - low) / (high - low), 0, 1).reshape(10, 12, 3)
    assert np.allclose(ours.transform(f), expected, atol=1e-3)


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_foreground_is_the_subject_whatever_the_sign(flip):
    f, subject = scene(flip=flip)
    pca = PatchPCA().fit([f])
    assert np.array_equal(pca.foreground_mask(f), subject)
    colours = pca.transform(f)
    assert np.array_equal(np.isnan(colours[..., 0]), ~subject)
    assert np.nanmin(colours) >= 0 and np.nanmax(colours) <= 1 and colours.dtype == np.float32


def test_the_same_part_has_the_same_colour_in_each_photo():
    first, subject = scene(0)
    second = make(np.roll(first.patches, 2, axis=0))
    pca = PatchPCA().fit([first, second])
    a, b = pca.transform(first), pca.transform(second)
    assert np.allclose(np.roll(a, 2, axis=0)[np.roll(subject, 2, axis=0)], b[np.roll(subject, 2, axis=0)], atol=1e-5)


def test_fitting_twice_gives_the_same_colours():
    f, _ = scene()
    assert np.array_equal(PatchPCA().fit([f]).transform(f), PatchPCA().fit([f]).transform(f), equal_nan=True)


def test_a_threshold_moves_the_foreground_monotonically():
    f, _ = scene()
    counts = [PatchPCA(foreground=t).fit([f]).foreground_mask(f).sum() for t in (0.1, 0.5, 0.9)]
    assert counts[0] >= counts[1] >= counts[2] and counts[0] > counts[2]


def test_components_can_be_chosen():
    f, _ = scene()
    pca = PatchPCA(6, foreground=None).fit([f])
    assert np.allclose(pca.transform(f, (2, 1, 0)), pca.transform(f)[..., ::-1])
    with pytest.raises(ValueError, match="from 0 to 5"):
        pca.transform(f, (0, 1, 6))


def test_saved_basis_gives_the_same_colours(tmp_path):
    f, _ = scene()
    pca = PatchPCA().fit([f])
    pca.save(tmp_path / "basis.npz")
    loaded = PatchPCA.load(tmp_path / "basis.npz")
    assert np.array_equal(loaded.transform(f), pca.transform(f), equal_nan=True)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04broken"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not a PCA basis"):
        PatchPCA.load(tmp_path / "x.npz")


def test_a_basis_with_arrays_that_do_not_fit_is_refused(tmp_path):
    f, _ = scene()
    pca = PatchPCA().fit([f])
    pca.mean_ = pca.mean_[:-1]
    pca.save(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="do not fit"):
        PatchPCA.load(tmp_path / "x.npz")


def test_another_backbone_is_refused():
    f, _ = scene()
    pca = PatchPCA().fit([f])
    with pytest.raises(ValueError, match="fitted on tiny"):
        pca.transform(make(f.patches, "other"))
    with pytest.raises(ValueError, match="share one backbone"):
        PatchPCA().fit([f, make(f.patches, "other")])


@pytest.mark.parametrize("options", [{"n_components": 2}, {"foreground": 1.5}, {"foreground": float("nan")}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        PatchPCA(**options).fit([scene()[0]])


def test_too_few_patches_say_what_to_do():
    with pytest.raises(ValueError, match="raise the resolution"):
        PatchPCA().fit([make(np.random.default_rng(0).random((1, 3, 8)))])


def test_otsu_agrees_with_opencv():
    import cv2

    values = np.concatenate([np.random.default_rng(0).normal(m, 0.05, 500) for m in (0.3, 0.75)]).clip(0, 1)
    levels = np.floor(values * 256).clip(0, 255).astype(np.uint8)
    theirs, _ = cv2.threshold(levels.reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    assert otsu_threshold(values) == pytest.approx((theirs + 1) / 256, abs=1 / 256)


def by(identity, name="tiny"):
    return make(scene()[0].patches, name, identity)


def test_a_basis_of_other_weights_of_the_same_name_is_refused(tmp_path):
    PatchPCA().fit([by(FIRST)]).save(tmp_path / "basis.npz")
    loaded = PatchPCA.load(tmp_path / "basis.npz")
    assert loaded.identity_ == FIRST
    assert np.isfinite(loaded.transform(by(FIRST))).any()
    assert np.isfinite(loaded.transform(by(Identity("copy", "a" * 64), "copy"))).any()  # the same under another name
    with pytest.raises(
        ValueError, match=r"this basis was made with tiny \(weights aaaa.*bbbb.*other weights.*fit again"
    ):
        loaded.transform(by(OTHER))


def test_a_basis_of_version_0_1_is_taken_with_a_warning(tmp_path):
    PatchPCA().fit([by(None)]).save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as data:
        np.savez(tmp_path / "old.npz", **{key: data[key] for key in data.files if key != "identity"})
    old = PatchPCA.load(tmp_path / "old.npz")
    assert "0.1" in old.check("tiny", FIRST)
    assert np.isfinite(old.transform(by(FIRST))).any()
    with pytest.raises(ValueError, match="fitted on tiny"):
        old.check("another", FIRST)


def test_the_page_says_where_a_loaded_basis_comes_from(tmp_path):
    view = draw.View((), (by(FIRST),), ("tiny", 140), "")
    look = draw.Look("auto", 0.5, 1, 2, 3, False, False, False)
    assert "records no checksum" in draw.explain(view, look, PatchPCA().fit([by(None)]), loaded=True)
    assert "records no checksum" not in draw.explain(view, look, PatchPCA().fit([by(FIRST)]), loaded=True)


def test_photos_of_different_weights_are_not_mixed():
    with pytest.raises(ValueError, match="different weights"):
        PatchPCA().fit([by(FIRST), by(OTHER)])


def test_results_name_their_weights():
    view = draw.View((), (by(FIRST),), ("tiny", 140), "")
    look = draw.Look("auto", 0.5, 1, 2, 3, False, False, False)
    _, content = draw.raw_file(view, look, PatchPCA().fit([by(FIRST)]))
    with np.load(io.BytesIO(content)) as data:
        assert Identity.from_json(str(data["identity"])) == FIRST
        assert FIRST.sha256 in str(data["made_with"])
