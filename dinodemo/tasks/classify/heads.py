"""The three ways to classify vectors: k nearest neighbours, nearest class mean, logistic regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...io.vectors import knn_votes, unit

METHODS = {"mean": "nearest class mean", "knn": "nearest neighbours", "logistic": "logistic regression"}
TOKENS = {"cls": "class token", "mean": "patch mean", "both": "class token and patch mean"}
PENALTIES = (0.1, 0.3, 1.0)  # C of logistic regressions whose logits are averaged, on features of variance 1 on average
NEIGHBOURS, TEMPERATURE = 20, 0.15
ITERATIONS = 300
RIDGE, FLOOR = 4.0, 0.1  # of the whitening of nearest neighbours, as in `retrieval.ranking`


@dataclass(frozen=True)
class Plan:
    """A way to classify: a key of METHODS, and one of TOKENS."""

    method: str
    tokens: str

    @property
    def words(self) -> str:
        """Return it in words."""
        return f"{METHODS[self.method]} on the {TOKENS[self.tokens]}"


class Head(Protocol):
    """Something fitted that gives probabilities."""

    def log_probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return (Q, C) for features (Q, D)."""


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Logits `features @ weight.T + bias`: logistic regression, and the nearest class mean as well."""

    weight: np.ndarray  # (C, D) float32
    bias: np.ndarray  # (C,)

    def log_probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return (Q, C) for features (Q, D)."""
        return log_softmax(features @ self.weight.T + self.bias)


@dataclass(frozen=True, eq=False)
class NeighbourHead:
    """Votes of the nearest photos in whitened space."""

    mean: np.ndarray  # (D,)
    matrix: np.ndarray  # (D, D)
    gallery: np.ndarray  # (N, D) whitened
    codes: np.ndarray  # (N,) int64, class of each
    classes: int

    def log_probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return (Q, C) for features (Q, D)."""
        import torch

        rows = unit((unit(features) - self.mean) @ self.matrix)
        gallery, codes, queries = (torch.from_numpy(np.ascontiguousarray(a)) for a in (self.gallery, self.codes, rows))
        votes = knn_votes(gallery, codes, queries, NEIGHBOURS, TEMPERATURE, classes=self.classes).numpy()
        return np.log(votes / votes.sum(axis=1, keepdims=True) + 1e-9)


def select(pairs: np.ndarray, tokens: str) -> np.ndarray:
    """Return features (N, D) or, of both tokens, (N, 2 D) from (N, 2, D) class tokens and patch means."""
    if tokens == "both":
        return pairs.reshape(len(pairs), -1)
    return pairs[:, ("cls", "mean").index(tokens)]


def fit(plan: Plan, pairs: np.ndarray, codes: np.ndarray, classes: int) -> Head:
    """Fit one way to classify.

    Args:
        plan: Which.
        pairs: (N, 2, D) float32: class token and patch mean of each photo, as the network gives them.
        codes: (N,) int64, the class of each; every class occurs.
        classes: How many classes there are.
    """
    features = select(pairs, plan.tokens)
    if plan.method == "knn":
        return _neighbours(features, codes, classes)
    centre = features.mean(axis=0)
    spread = max(float((features - centre).std()), 1e-6)
    scaled = (features - centre) / spread
    weight, bias = _class_means(scaled, codes) if plan.method == "mean" else _logistic(scaled, codes)
    return LinearHead((weight / spread).astype(np.float32), (bias - weight @ (centre / spread)).astype(np.float32))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log softmax over the last axis."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def _class_means(features: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (C, D) and biases (C,) of the nearest class mean, by a distance that all classes share.

    The distance is Mahalanobis' with the shrunk covariance of Ledoit and Wolf (2004), which makes it linear
    discriminant analysis with equal priors. With one photo a class there is no covariance, and it is Euclid's.
    """
    classes = int(codes.max()) + 1
    means = np.stack([features[codes == code].mean(axis=0) for code in range(classes)])
    if len(codes) == classes:
        return means, -0.5 * np.square(means).sum(axis=1)
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(features - means[codes], assume_centered=True)
    ridge = 1e-6 * max(float(np.trace(covariance)) / len(covariance), 1e-6)  # photos that are all the same
    weight = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), means.T).T
    return weight, -0.5 * (weight * means).sum(axis=1)


def _logistic(features: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean weights (C, D) and biases (C,) of logistic regressions and of the nearest class mean.

    One logistic regression for each of PENALTIES: their average needs no choice of C, which a few hundred photos
    cannot make reliably. The class means, a quarter of it, steady it where photos of a class come from few scenes.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=ITERATIONS, tol=1e-3, warm_start=True)
    weight, bias = _class_means(features, codes)
    for penalty in PENALTIES:
        model.set_params(C=penalty).fit(features, codes)
        own, constant = model.coef_, model.intercept_
        if len(own) == 1:  # scikit-learn has one row where there are two classes
            own, constant = np.concatenate([-own / 2, own / 2]), np.concatenate([-constant / 2, constant / 2])
        weight, bias = weight + own, bias + constant
    return weight / (1 + len(PENALTIES)), bias / (1 + len(PENALTIES))


def _neighbours(features: np.ndarray, codes: np.ndarray, classes: int) -> NeighbourHead:
    rows = unit(features)
    mean, n, width = rows.mean(axis=0), len(rows), rows.shape[1]
    variance, axes = np.linalg.eigh((rows - mean).T @ (rows - mean) / n)
    ridge = (RIDGE * width / n + FLOOR) * max(float(variance.mean()), 1e-9)
    matrix = (axes / np.sqrt(np.clip(variance, 0, None) + ridge)).astype(np.float32)
    return NeighbourHead(mean, matrix, unit((rows - mean) @ matrix), codes, classes)
