"""What a classifier is worth: predictions for photos that were left out, intervals, a curve, doubtful labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...io.vectors import linked_groups, unit
from ..probe import Evaluation, evaluation
from .heads import METHODS, Plan, fit, log_softmax, select

FOLDS, SEARCH_FOLDS = 5, 3
TEMPERATURES = np.geomspace(0.25, 32, 57)
MANY = 3000  # photos above which three folds measure well enough
USUAL_TOKENS = {"mean": ("cls", "both"), "knn": ("cls",), "logistic": ("both",)}
SEARCH_ROWS = 2000  # photos on which the method is chosen, at most
SAME_SCENE = 0.6  # whitened cosine of two photos of one class that are taken for one scene
SURE = 0.8  # share of a class's usual probability that counts as sure of it
CURVE = (0.25, 0.5, 0.75, 1.0)  # shares of the photos that are fitted on
Z95 = 1.959964  # of the normal distribution
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Report:
    """What was measured on photos that were left out of the fit.

    Args:
        plan: The way that was chosen.
        scores: Accuracy of each method's best plan where they were compared, 0 to 1.
        evaluation: Truth, answers and confusion; None where no photo could be left out.
        probabilities: (N, C) of each photo, by a classifier that was fitted without it.
        temperature: That the logits are divided by, so that probabilities mean what they say.
        interval: 95 % interval of the accuracy (Wilson 1927), 0 to 1.
        curve: (photos fitted on, accuracy) of growing shares.
        suspicious: Rows whose label is probably wrong, the most doubtful first.
        scenes: How many groups of photos of one scene there are.
        on_new_scenes: Accuracy when whole scenes are left out, 0 to 1; None where every photo is a scene of its own.
        rows: (N,) which of the photos given were measured.
    """

    plan: Plan
    scores: dict[str, float]
    evaluation: Evaluation | None
    probabilities: np.ndarray
    temperature: float
    interval: tuple[float, float]
    curve: tuple[tuple[int, float], ...]
    suspicious: np.ndarray
    scenes: int
    on_new_scenes: float | None
    rows: np.ndarray = field(repr=False)

    def sentence(self) -> str:
        """Return how the method was chosen, and what it is worth."""
        words = f"{self.plan.words[0].upper()}{self.plan.words[1:]}"
        if self.evaluation is None:
            return f"{words}. No class has two photos, so nothing could be measured; give each class more."
        low, high = self.interval
        others = ", ".join(f"{METHODS[name]} {score:.1%}" for name, score in self.scores.items())
        return (
            f"{words} was chosen by cross-validation ({others}): "
            f"{self.evaluation.accuracy:.1%} of {len(self.evaluation.truth)} photos are right when left out of the fit "
            f"(95 % interval {low:.1%} to {high:.1%})."
            + (
                ""
                if self.on_new_scenes is None
                else f" On scenes of which no photo was seen: {self.on_new_scenes:.1%}."
            )
        )

    def outlook(self) -> str:
        """Return what more photos would probably bring; empty where the curve does not tell."""
        gain = expected_gain(self.curve, 100)
        if gain is None:
            return ""
        return f"100 more photos would bring about {100 * gain:.1f} points."


def measure(
    pairs: np.ndarray, labels: np.ndarray, method: str, tokens: str, seed: int, progress: Progress | None = None
) -> Report:
    """Choose a way to classify, and measure it on photos that were left out.

    Args:
        pairs: (N, 2, D) float32 class tokens and patch means.
        labels: (N,) texts; two classes or more, two photos or more of one of them.
        method: "auto" or one of `heads.METHODS`.
        tokens: "auto" or one of `heads.TOKENS`.
        seed: Of the folds.
        progress: Called as progress(steps done, steps, message).

    Returns:
        The chosen way, and how often it is right.
    """
    report = progress or (lambda done, total, message: None)
    classes, codes = np.unique(labels, return_inverse=True)
    scenes = scenes_of(pairs, codes)
    report(0, 3, "choosing the method")
    rows = stratified(codes, SEARCH_ROWS, seed)
    plan, scores = choose(pairs[rows], codes[rows], scenes[rows], method, tokens, seed)
    report(1, 3, "measuring on photos left out")
    alone = np.arange(len(codes))
    logs = left_out(plan, pairs, codes, alone, len(classes), seed)
    tested = np.flatnonzero(np.isfinite(logs).all(axis=1))
    temperature = best_temperature(logs[tested], codes[tested])
    shares = np.exp(log_softmax(logs[tested] / temperature))
    found = evaluation(labels[tested], classes[shares.argmax(axis=1)]) if len(tested) else None
    report(2, 3, "drawing the learning curve")
    right = 0 if found is None else int((found.truth == found.predicted).sum())
    return Report(
        plan,
        scores,
        found,
        shares,
        temperature,
        wilson(right, len(tested)),
        learning_curve(plan, pairs, codes, seed),
        tested[doubtful(shares, codes[tested])],
        len(np.unique(scenes)),
        _accuracy(plan, pairs[rows], codes[rows], split(codes[rows], scenes[rows], seed + 1))
        if (scenes != alone).any()
        else None,
        tested,
    )


def scenes_of(pairs: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return a scene number (N,) for each photo: photos of one class that are nearly alike share one.

    Photos of a burst, or frames of a clip, in fit and test at once would make every classifier look better than it is.
    Where grouping would leave a class with fewer than two scenes, its photos are each a scene of their own.
    """
    head = fit(Plan("knn", "cls"), pairs, codes, int(codes.max()) + 1)
    rows = head.gallery  # type: ignore[attr-defined]
    scenes = np.arange(len(pairs))
    for code in np.unique(codes):
        members = np.flatnonzero(codes == code)
        i, j = np.nonzero(np.triu(rows[members] @ rows[members].T >= SAME_SCENE, 1))
        groups = linked_groups(np.stack([i, j]), len(members))
        if len(members) - sum(len(group) - 1 for group in groups) < 2:
            continue
        for group in groups:
            scenes[members[group]] = members[group[0]]
    return scenes


def choose(
    pairs: np.ndarray, codes: np.ndarray, scenes: np.ndarray, method: str, tokens: str, seed: int
) -> tuple[Plan, dict[str, float]]:
    """Return the plan that does best in cross-validation, and the score of each method's best.

    The score is the mean of two accuracies: with single photos left out, and with whole scenes left out. The first
    alone prefers what remembers bursts, the second alone what ignores detail.
    """
    best: dict[str, tuple[float, Plan]] = {}
    alone = np.arange(len(codes))
    single = split(codes, alone, seed, SEARCH_FOLDS)
    whole = split(codes, scenes, seed, SEARCH_FOLDS) if (scenes != alone).any() else single
    for plan in plans(method, tokens):
        score = _accuracy(plan, pairs, codes, single)
        if whole is not single:
            score = (score + _accuracy(plan, pairs, codes, whole)) / 2
        if plan.method not in best or score > best[plan.method][0]:
            best[plan.method] = score, plan
    winner = max(best.values(), key=lambda pair: pair[0])[1]  # the first, which is the simpler one, of equals
    return winner, {name: score for name, (score, _) in best.items()}


def plans(method: str, tokens: str) -> list[Plan]:
    """Return the ways to classify that are compared, simple ones first."""
    methods = list(METHODS) if method == "auto" else [method]
    return [Plan(one, token) for one in methods for token in ([tokens] if tokens != "auto" else USUAL_TOKENS[one])]


def split(codes: np.ndarray, scenes: np.ndarray, seed: int, folds: int = FOLDS) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (fit, test) rows of each fold: stratified, with whole scenes in one fold, every class in every fit."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    per_class = [len(np.unique(scenes[codes == code])) for code in np.unique(codes)]
    count = int(np.clip(max(per_class), 2, folds))
    if max(per_class) < 2:
        return []
    splitter = StratifiedGroupKFold if len(np.unique(scenes)) < len(scenes) else StratifiedKFold
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer photos than folds
        parts = list(splitter(count, shuffle=True, random_state=seed).split(codes, codes, scenes))
    for train, test in parts:
        known = np.isin(codes[test], codes[train])  # a class of one photo cannot be both learned and tested
        if len(np.unique(codes[train])) > 1 and known.any():
            found.append((train, test[known]))
    return found


def left_out(
    plan: Plan, pairs: np.ndarray, codes: np.ndarray, scenes: np.ndarray, classes: int, seed: int
) -> np.ndarray:
    """Return log probabilities (N, C) of each photo by a fit without it; nan where that cannot be."""
    logs = np.full((len(codes), classes), np.nan, np.float32)
    folds = FOLDS if len(codes) <= MANY else 3
    for train, test in split(codes, scenes, seed + 1, folds):  # other folds than those the plan was chosen on
        logs[test] = predict_codes(plan, pairs[train], codes[train], pairs[test], classes)
    return logs


def predict_codes(plan: Plan, train: np.ndarray, codes: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Fit on some photos, which may lack classes, and return log probabilities (Q, C) of others."""
    known, compact = np.unique(codes, return_inverse=True)
    head = fit(plan, train, compact, len(known))
    logs = np.full((len(test), classes), -20.0, np.float32)
    logs[:, known] = head.log_probabilities(select(test, plan.tokens))
    return logs


def learning_curve(plan: Plan, pairs: np.ndarray, codes: np.ndarray, seed: int) -> tuple[tuple[int, float], ...]:
    """Return (photos fitted on, accuracy on photos left out) for the shares of `CURVE`."""
    if len(codes) > SEARCH_ROWS:
        rows = stratified(codes, SEARCH_ROWS, seed)
        pairs, codes = pairs[rows], codes[rows]
    folds, points = split(codes, np.arange(len(codes)), seed + 2, SEARCH_FOLDS), []
    for share in CURVE:
        right, sizes = [], []
        for train, test in folds:
            some = train[stratified(codes[train], max(2, round(share * len(train))), seed)]
            if len(np.unique(codes[some])) > 1:
                right += _right(plan, pairs, codes, some, test)
                sizes.append(len(some))
        if sizes:
            points.append((round(float(np.mean(sizes))), float(np.mean(right))))
    return tuple(dict(points).items())


def best_temperature(logs: np.ndarray, codes: np.ndarray) -> float:
    """Return the temperature that makes left-out probabilities most likely (Guo et al. 2017, arXiv:1706.04599).

    Args:
        logs: (N, C) log probabilities of photos left out.
        codes: (N,) their classes.
    """
    if not len(codes):
        return 1.0
    rows = np.arange(len(codes))
    losses = [-log_softmax(logs / t)[rows, codes].mean() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def expected_gain(curve: Sequence[tuple[int, float]], more: int) -> float | None:
    """Return by how much the accuracy would grow with more photos, by a power law of the errors (0 to 1).

    None where the curve has fewer than three points, does not fall, or has no errors left.
    """
    points = [(n, 1 - accuracy) for n, accuracy in curve if accuracy < 1]
    if len(points) < 3:
        return None
    photos, errors = np.log(np.array(points)).T
    slope, start = np.polyfit(photos, errors, 1)
    if slope >= 0:
        return None
    last = curve[-1][0]
    return float(np.exp(start) * (last**slope - (last + more) ** slope))


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927, JASA 22)."""
    if not count:
        return 0.0, 1.0
    share, z = right / count, Z95
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return round(float(max(middle - half, 0)), 12), round(float(min(middle + half, 1)), 12)


def doubtful(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return rows whose label is probably wrong, by confident learning (Northcutt et al. 2021, arXiv:1911.00068).

    A photo is doubtful when another class is nearly as probable (SURE) as it is for photos of that class on average,
    and more probable than its own label. Ordered by how much more.

    Args:
        probabilities: (N, C), each by a classifier that did not see the photo.
        codes: (N,) the labels.
    """
    own = probabilities[np.arange(len(codes)), codes]
    usual = np.array(
        [own[codes == code].mean() if (codes == code).any() else np.inf for code in range(probabilities.shape[1])]
    )
    confident = np.where(probabilities >= SURE * usual, probabilities, -1)
    other = confident.argmax(axis=1)
    best = confident[np.arange(len(codes)), other]
    margin = own - best
    rows = np.flatnonzero((best > 0) & (other != codes) & (margin < 0))
    return rows[np.argsort(margin[rows], kind="stable")]


def stratified(codes: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Return rows, at most so many, with every class in proportion (one photo at least)."""
    if len(codes) <= most:
        return np.arange(len(codes))
    rng, chosen = np.random.default_rng(seed), []
    for code in np.unique(codes):
        members = np.flatnonzero(codes == code)
        chosen.append(rng.permutation(members)[: max(1, round(most * len(members) / len(codes)))])
    return np.sort(np.concatenate(chosen))


def _accuracy(plan: Plan, pairs: np.ndarray, codes: np.ndarray, folds: Sequence[tuple]) -> float:
    """Return the share of right answers over all folds, 0 where there are none."""
    right = [answer for train, test in folds for answer in _right(plan, pairs, codes, train, test)]
    return float(np.mean(right)) if right else 0.0


def _right(plan: Plan, pairs: np.ndarray, codes: np.ndarray, train: np.ndarray, test: np.ndarray) -> list[bool]:
    logs = predict_codes(plan, pairs[train], codes[train], pairs[test], int(codes.max()) + 1)
    return (logs.argmax(axis=1) == codes[test]).tolist()


def far_from_all(features: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return how far each row (Q, D) is from the nearest of unit rows (N, D): 1 - cosine."""
    nearest = [(unit(features[i : i + 1024]) @ gallery.T).max(axis=1) for i in range(0, len(features), 1024)]
    return 1 - np.concatenate([np.zeros(0, np.float32), *nearest])
