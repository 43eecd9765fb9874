"""Classification by k-NN and logistic regression, against scikit-learn and plain loops."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from dinodemo.tasks.probe import evaluate_knn, evaluate_linear, evaluation, knn_classify, linear_probe


@pytest.fixture
def blobs():
    """240 rows of 6 classes whose clouds overlap a little."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 10)) * 1.2
    labels = np.repeat([f"class {i}" for i in range(6)], 40)
    return (np.repeat(centres, 40, axis=0) + rng.normal(size=(240, 10))).astype(np.float32), labels


@pytest.mark.parametrize("k", [1, 10, 20])
def test_knn_is_scikit_learns_with_the_same_weights(blobs, k):
    x, y = blobs
    train, test = slice(0, None, 2), slice(1, None, 2)

    def weights(distance):
        return np.exp((1 - distance) / 0.07)

    peer = KNeighborsClassifier(k, metric="cosine", weights=weights).fit(x[train], y[train])
    ours = knn_classify(x[train], y[train], x[test], k=k)
    assert (ours == peer.predict(x[test])).all()
    assert (ours == y[test]).mean() > 0.7


def test_knn_votes_by_weight_not_by_count():
    train = np.array([[1, 0], [0.6, 0.8], [0.6, -0.8]], np.float32)
    assert knn_classify(train, np.array(["near", "far", "far"]), np.array([[1, 0.01]]), k=3) == ["near"]
    assert knn_classify(train, np.array(["near", "far", "far"]), np.array([[1, 0.01]]), k=3, temperature=10) == ["far"]


def test_more_neighbours_than_pictures_is_all_of_them(blobs):
    x, y = blobs
    assert (knn_classify(x, y, x, k=10_000) == knn_classify(x, y, x, k=240)).all()


def test_leave_one_out_never_asks_a_picture_about_itself():
    x = np.eye(4, dtype=np.float32)
    assert evaluate_knn(x, np.arange(4), k=1).accuracy == 0
    assert knn_classify(x, np.arange(4), x, k=1).tolist() == [0, 1, 2, 3]


def test_leave_one_out_is_a_loop_over_the_others(blobs):
    x, y = blobs
    found = evaluate_knn(x, y, k=10)
    for i in (0, 50, 239):
        rest = np.arange(len(x)) != i
        assert found.predicted[i] == knn_classify(x[rest], y[rest], x[i : i + 1], k=10)[0]


def test_linear_probe_learns_what_is_there(blobs):
    x, y = blobs
    assert linear_probe(x[::2], y[::2]).score(x[1::2], y[1::2]) > 0.75
    found = evaluate_linear(x, y)
    assert found.accuracy > 0.75 and found.confusion.sum() == 240


def test_linear_probe_on_noise_is_no_better_than_chance():
    rng = np.random.default_rng(0)
    found = evaluate_linear(rng.normal(size=(200, 30)), rng.integers(0, 4, 200))
    assert found.accuracy < 0.4, "rows that were fitted must not be tested"


def test_a_thousand_classes_and_classes_of_one():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1000, 32))
    x = np.repeat(centres, 2, axis=0) + 0.05 * rng.normal(size=(2000, 32))
    assert evaluate_knn(x, np.repeat(np.arange(1000), 2), k=1).accuracy == 1
    single = evaluate_linear(x[:21], np.repeat(np.arange(11), 2)[:21])
    assert 0.3 < single.accuracy < 1


def test_confusion_counts_rows_of_truth():
    found = evaluation(["a", "a", "b", "c"], ["a", "b", "b", "b"])
    assert found.classes.tolist() == ["a", "b", "c"]
    assert found.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert found.accuracy == 0.5 and found.balanced_accuracy == pytest.approx(0.5)
    assert found.mistakes.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (np.zeros((3, 2)), [0, 1], "3, 2"),
        (np.zeros(3), [0, 1, 2], "features"),
        (np.zeros((0, 2)), [], "0, 2"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, y, told):
    with pytest.raises(ValueError, match=told):
        knn_classify(x, y, np.zeros((1, 2)))


def test_one_class_cannot_be_probed():
    with pytest.raises(ValueError, match="two classes"):
        linear_probe(np.eye(3), ["a"] * 3)
    with pytest.raises(ValueError, match="another picture"):
        evaluate_knn(np.eye(1, 3), ["a"])
