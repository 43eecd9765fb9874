"""The classifier: against scikit-learn and plain loops, saved and loaded, and what it says of itself."""

import numpy as np
import pytest
from PIL import Image

from dinodemo.tasks.classify import PhotoClassifier, measure
from dinodemo.tasks.classify.heads import Plan, fit, select
from dinodemo.tasks.classify.measure import doubtful, expected_gain, scenes_of, split, stratified, wilson

WIDTH = 12


def clouds(per_class: int = 30, classes: int = 4, spread: float = 1.0, seed: int = 0):
    """Tokens (N, 2, D) of classes that overlap a little, and their labels."""
    rng = np.random.default_rng(seed)
    centres = 1.5 * rng.normal(size=(classes, 2, WIDTH))
    labels = np.repeat([f"class {i}" for i in range(classes)], per_class)
    pairs = np.repeat(centres, per_class, axis=0) + spread * rng.normal(size=(len(labels), 2, WIDTH))
    return pairs.astype(np.float32), labels


@pytest.mark.parametrize("method", ["mean", "knn", "logistic"])
@pytest.mark.parametrize("tokens", ["cls", "mean", "both"])
def test_every_way_learns_and_probabilities_sum_to_one(method, tokens):
    pairs, labels = clouds()
    classifier = PhotoClassifier(method=method, tokens=tokens).fit_tokens(pairs[::2], labels[::2])
    found = classifier.predict_tokens(pairs[1::2])
    assert np.mean([one.label == label for one, label in zip(found, labels[1::2], strict=True)]) > 0.85
    for one in found:
        assert one.probabilities.sum() == pytest.approx(1, abs=1e-4)
        assert (
            one.probability == one.probabilities.max() and one.label == classifier.classes_[one.probabilities.argmax()]
        )
    assert classifier.plan_ == Plan(method, tokens)


def test_nearest_class_mean_is_a_loop_over_mahalanobis_distances():
    from sklearn.covariance import ledoit_wolf

    pairs, labels = clouds()
    classes, codes = np.unique(labels, return_inverse=True)
    x = select(pairs, "cls").astype(np.float64)
    scaled = (x - x.mean(axis=0)) / x.std()
    means = [scaled[codes == c].mean(axis=0) for c in range(len(classes))]
    covariance, _ = ledoit_wolf(scaled - np.stack(means)[codes], assume_centered=True)
    inverse = np.linalg.inv(covariance)
    expected = [[-0.5 * (row - m) @ inverse @ (row - m) for m in means] for row in scaled]
    expected = np.array(expected) - np.log(np.exp(expected).sum(axis=1, keepdims=True))
    head = fit(Plan("mean", "cls"), pairs, codes, len(classes))
    spread = float((select(pairs, "cls") - select(pairs, "cls").mean(axis=0)).std())
    assert spread == pytest.approx(x.std(), rel=0.3)
    assert (head.log_probabilities(select(pairs, "cls")).argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98


def test_logistic_is_not_below_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    pairs, labels = clouds(40, 6, 2.0)
    train, test = np.arange(len(labels)) % 2 == 0, np.arange(len(labels)) % 2 == 1
    x = select(pairs, "both")
    peer = LogisticRegression(max_iter=1000).fit(x[train], labels[train]).score(x[test], labels[test])
    classifier = PhotoClassifier(method="logistic", tokens="both").fit_tokens(pairs[train], labels[train])
    found = [one.label for one in classifier.predict_tokens(pairs[test])]
    assert np.mean(np.array(found) == labels[test]) >= peer - 0.02


def test_noise_is_measured_as_chance():
    rng = np.random.default_rng(0)
    pairs, labels = rng.normal(size=(160, 2, WIDTH)).astype(np.float32), rng.integers(0, 4, 160).astype(str)
    report = PhotoClassifier().fit_tokens(pairs, labels).report_
    assert report.evaluation.accuracy < 0.4, "photos that were fitted must not be tested"
    assert np.allclose(report.probabilities, 0.25, atol=0.2), "nothing is certain here"


def test_a_burst_in_fit_and_test_is_seen():
    """Twenty scenes of five nearly equal photos with random labels: only who remembers a scene can be right."""
    rng = np.random.default_rng(1)
    scenes, labels = rng.normal(size=(20, 2, WIDTH)), np.tile(["a", "b"], 10)
    pairs = (np.repeat(scenes, 5, axis=0) + 0.02 * rng.normal(size=(100, 2, WIDTH))).astype(np.float32)
    report = PhotoClassifier().fit_tokens(pairs, np.repeat(labels, 5)).report_
    assert report.scenes == 20 and report.evaluation.accuracy > 0.9 and report.on_new_scenes < 0.75
    assert "On scenes of which no photo was seen" in report.sentence()
    groups = scenes_of(pairs, np.repeat(np.tile([0, 1], 10), 5))
    for train, test in split(np.repeat(np.tile([0, 1], 10), 5), groups, 0):
        assert not set(groups[train]) & set(groups[test])


def test_doubtful_labels_are_those_that_were_swapped():
    pairs, labels = clouds(40, 4, 0.5)
    wrong = [3, 50, 99, 130]
    labels = labels.copy()
    labels[wrong] = ["class 2", "class 3", "class 0", "class 1"]
    report = PhotoClassifier().fit_tokens(pairs, labels).report_
    assert sorted(report.suspicious[:4].tolist()) == wrong and len(report.suspicious) <= 6


def test_doubtful_is_a_loop_over_the_definition():
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(3), 60)
    codes = rng.integers(0, 3, 60)
    usual = [np.mean([p[c] for p, own in zip(probabilities, codes, strict=True) if own == c]) for c in range(3)]
    expected = []
    for i, (p, own) in enumerate(zip(probabilities, codes, strict=True)):
        confident = [(p[c], c) for c in range(3) if p[c] >= 0.8 * usual[c]]
        if confident and max(confident)[1] != own and max(confident)[0] > p[own]:
            expected.append((p[own] - max(confident)[0], i))
    assert doubtful(probabilities, codes).tolist() == [i for _, i in sorted(expected)]


def test_the_interval_is_wilsons():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # a published example
    assert wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == pytest.approx(1) and wilson(0, 0) == (0, 1)


def test_the_outlook_continues_a_power_law():
    curve = [(n, 1 - n**-0.5) for n in (25, 50, 100)]
    assert expected_gain(curve, 300) == pytest.approx(100**-0.5 - 400**-0.5)
    assert expected_gain([(25, 0.9), (50, 0.8), (100, 0.7)], 100) is None and expected_gain(curve[:2], 100) is None


def test_what_is_unlike_all_is_called_unknown():
    pairs, labels = clouds(spread=0.3)
    classifier = PhotoClassifier().fit_tokens(pairs, labels)
    known = classifier.predict_tokens(pairs + 0.01)
    strange = classifier.predict_tokens(np.random.default_rng(9).normal(size=(40, 2, WIDTH)) * 3)
    assert np.mean([one.is_unknown for one in known]) < 0.05 < 0.9 < np.mean([one.is_unknown for one in strange])


@pytest.mark.parametrize("counts", [(1, 1), (1, 5), (2, 1), (2, 2), (40, 1)])
def test_very_few_photos_are_no_error(counts):
    pairs, labels = clouds(max(counts), 2)
    rows = np.concatenate([np.flatnonzero(labels == f"class {i}")[:n] for i, n in enumerate(counts)])
    classifier = PhotoClassifier().fit_tokens(pairs[rows], labels[rows])
    assert len(classifier.predict_tokens(pairs)) == len(pairs)
    assert classifier.report_.sentence() and classifier.card_["summary"]


def test_ten_thousand_photos_are_chosen_from():
    codes = np.repeat(np.arange(50), [3] * 10 + [200] * 40)
    rows = stratified(codes, 2000, 0)
    assert 1900 < len(rows) < 2100 and set(codes[rows]) == set(range(50))


@pytest.mark.parametrize("method", ["mean", "knn", "logistic"])
def test_saved_and_loaded_it_says_the_same(method, tmp_path, engine, make_picture):
    photos = [make_picture(seed=i) // 2 + (120 if i % 2 else 0) for i in range(12)]
    labels = ["light" if i % 2 else "dark" for i in range(12)]
    classifier = PhotoClassifier(engine, method=method, resolution=70).fit(photos, labels)
    path = classifier.save(tmp_path / "light.safetensors")
    loaded = PhotoClassifier.load(path, engine)
    assert loaded.card_ == classifier.card_ and loaded.classes_.tolist() == ["dark", "light"]
    for a, b in zip(classifier.predict(photos), loaded.predict(photos), strict=True):
        assert a.label == b.label and a.is_unknown == b.is_unknown
        assert np.allclose(a.probabilities, b.probabilities, atol=5e-3)
    squashed = Image.fromarray(photos[0]).resize((70, 70), Image.Resampling.BICUBIC, reducing_gap=3.0)
    f = engine.features(np.asarray(squashed), resolution=70)
    expected = np.stack([f.cls, f.patches.mean(axis=(0, 1))])
    assert np.allclose(next(classifier.tokens_of([classifier_photo(photos[0])])), expected, atol=1e-4)


def classifier_photo(rgb):
    from dinodemo.tasks.classify.classifier import as_photo

    return as_photo(rgb)


def test_other_weights_are_refused(tmp_path, make_engine, make_picture):
    engine = make_engine()
    classifier = PhotoClassifier(engine, resolution=70).fit([make_picture(seed=i) for i in range(6)], list("ababab"))
    path = classifier.save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"was fitted with .*dinov2.*the engine runs .*dinov3"):
        PhotoClassifier.load(path, make_engine("dinov3"))
    assert classifier.card_["identity"] == engine.identity.to_json()
    classifier.card_["identity"] = classifier.card_["identity"].replace(engine.identity.sha256, "0" * 64)
    with pytest.raises(ValueError, match="other weights; fit it again"):
        PhotoClassifier.load(classifier.save(tmp_path / "b.safetensors"), engine)


@pytest.mark.parametrize("content", [b"", b"no file of this kind", b"\x08\0\0\0\0\0\0\0{}      "])
def test_files_that_are_no_classifiers_are_refused(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no classifier of dinodemo"):
        PhotoClassifier.load(path)
    with pytest.raises(ValueError, match="does not exist"):
        PhotoClassifier.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("pairs", "labels", "options", "words"),
    [
        (np.zeros((2, 2, 3)), ["a", "a"], {}, "two classes or more, got 1"),
        (np.zeros((2, 3)), ["a", "b"], {}, r"expected tokens \(N, 2, D\)"),
        (np.zeros((2, 2, 3)), ["a"], {}, "1 labels"),
        (np.full((2, 2, 3), np.nan), ["a", "b"], {}, "not finite"),
        (np.zeros((2, 2, 3)), ["a", "b"], {"method": "svm"}, "method must be one of"),
        (np.zeros((2, 2, 3)), ["a", "b"], {"tokens": "all"}, "tokens must be one of"),
    ],
)
def test_wrong_arguments_are_named(pairs, labels, options, words):
    with pytest.raises(ValueError, match=words):
        PhotoClassifier(**options).fit_tokens(pairs, labels)


def test_without_fit_or_engine_the_remedy_is_named(make_picture):
    with pytest.raises(ValueError, match="needs an engine"):
        PhotoClassifier().fit([make_picture()] * 2, ["a", "b"])
    with pytest.raises(ValueError, match="call fit or load first"):
        PhotoClassifier().predict_tokens(np.zeros((1, 2, 3)))
    assert measure.plans("auto", "auto")[0].method == "mean"  # the simplest comes first and wins ties
