"""Classify pictures by their tokens: weighted k-NN and logistic regression, with held-out metrics."""

from dataclasses import dataclass

import numpy as np

from ..io.vectors import knn_votes

PENALTIES = (0.01, 0.1, 1.0, 10.0)  # C of logistic regression on standardised features
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a classifier got right and wrong on pictures it had not seen."""

    classes: np.ndarray  # (C,) names or numbers, sorted
    truth: np.ndarray  # (N,) one of the classes each
    predicted: np.ndarray  # (N,)
    confusion: np.ndarray  # (C, C) int counts: row the truth, column what was predicted

    @property
    def accuracy(self) -> float:
        """Return the share of right answers, 0 to 1."""
        return float((self.truth == self.predicted).mean())

    @property
    def balanced_accuracy(self) -> float:
        """Return the mean over classes of the share of right answers, 0 to 1."""
        totals = self.confusion.sum(axis=1)
        return float((np.diag(self.confusion)[totals > 0] / totals[totals > 0]).mean())

    @property
    def mistakes(self) -> np.ndarray:
        """Return the indices of the wrong answers."""
        return np.flatnonzero(self.truth != self.predicted)


def knn_classify(
    train: np.ndarray, labels: np.ndarray, queries: np.ndarray, k: int = 20, temperature: float = 0.07
) -> np.ndarray:
    """Classify pictures by weighted k-NN: the k nearest by cosine vote with exp(cosine / temperature).

    Args:
        train: (N, D) features.
        labels: (N,) of any kind.
        queries: (Q, D) features.
        k: Neighbours that vote; DINO's protocol has 10 or 20 (Caron et al. 2021, sec. 4.1 after Wu et al. 2018).
        temperature: Of their votes.

    Returns:
        (Q,) labels. A tie goes to the class that sorts first.

    Raises:
        ValueError: For shapes that do not fit.
    """
    train, labels = _check(train, labels)
    return _knn_predict(train, labels, np.asarray(queries, np.float32), k, temperature)


def linear_probe(train: np.ndarray, labels: np.ndarray, penalty: float | str = "auto", seed: int = 0):
    """Fit logistic regression on standardised features.

    Args:
        train: (N, D) features.
        labels: (N,) of any kind.
        penalty: C, or "auto" for the one of 0.01, 0.1, 1, 10 that does best on a stratified fifth kept out of the
            fit, after which all rows are used.
        seed: Of that split.

    Returns:
        A scikit-learn pipeline with `predict`.

    Raises:
        ValueError: With fewer than two classes, or for shapes that do not fit.
    """
    train, labels = _check(train, labels)
    if len(np.unique(labels)) < 2:
        raise ValueError("a linear probe needs at least two classes; there is one label only")
    chosen = _best_penalty(train, labels, seed) if penalty == "auto" else float(penalty)
    return _pipeline(chosen, seed).fit(train, labels)


def evaluate_knn(features: np.ndarray, labels: np.ndarray, k: int = 20, temperature: float = 0.07) -> Evaluation:
    """Return the accuracy of weighted k-NN that classifies each row by all the others (leave one out).

    Args:
        features: (N, D).
        labels: (N,).
        k: Neighbours that vote.
        temperature: Of their votes, exp(cosine / temperature).
    """
    features, labels = _check(features, labels)
    return evaluation(labels, _knn_predict(features, labels, features, k, temperature, True))


def evaluate_linear(features: np.ndarray, labels: np.ndarray, penalty: float | str = "auto") -> Evaluation:
    """Return the accuracy of a probe that was fitted on the other folds (5, stratified, fewer for rare classes).

    A class of one picture cannot be both learnt and tested; such rows are never right.

    Args:
        features: (N, D).
        labels: (N,).
        penalty: Of the squared weights; "auto" chooses by cross-validation.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    features, labels = _check(features, labels)
    rarest = np.unique(labels, return_counts=True)[1].min()
    splitter = StratifiedKFold if rarest > 1 else KFold
    folds = splitter(max(2, min(FOLDS, rarest if rarest > 1 else FOLDS)), shuffle=True, random_state=0)
    predicted = labels.copy()
    for train, test in folds.split(features, labels):
        predicted[test] = linear_probe(features[train], labels[train], penalty).predict(features[test])
    return evaluation(labels, predicted)


def evaluation(truth: np.ndarray, predicted: np.ndarray) -> Evaluation:
    """Return how predicted labels agree with true ones.

    Args:
        truth: (N,).
        predicted: (N,).
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(f"truth and predictions must be equally long lists, got {truth.shape} and {predicted.shape}")
    classes = np.unique(np.concatenate([truth, predicted]))
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (np.searchsorted(classes, truth), np.searchsorted(classes, predicted)), 1)
    return Evaluation(classes, truth, predicted, confusion)


def _check(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features, labels = np.asarray(features, np.float32), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise ValueError(f"expected features (N, D) with N labels, got {features.shape} and {labels.shape}")
    return features, labels


def _knn_predict(train: np.ndarray, labels: np.ndarray, queries: np.ndarray, *settings) -> np.ndarray:
    """Return each query's class; settings: k, temperature, leave_one_out."""
    import torch

    if queries.ndim != 2 or queries.shape[1] != train.shape[1]:
        raise ValueError(f"expected queries (Q, {train.shape[1]}), got {queries.shape}")
    classes, codes = np.unique(labels, return_inverse=True)
    votes = knn_votes(torch.from_numpy(train), torch.from_numpy(codes), torch.from_numpy(queries), *settings)
    return classes[votes.numpy().argmax(axis=1)]


def _best_penalty(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Return the penalty that classifies a stratified fifth best; 1 where a class is too rare to be split."""
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2 or len(labels) < 5 * len(classes):
        return 1.0
    split = train_test_split(features, labels, test_size=1 / FOLDS, stratify=labels, random_state=seed)
    train, test, train_labels, test_labels = split
    scores = [_pipeline(c, seed).fit(train, train_labels).score(test, test_labels) for c in PENALTIES]
    return PENALTIES[int(np.argmax(scores))]


def _pipeline(penalty: float, seed: int):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=500, random_state=seed))
