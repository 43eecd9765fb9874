"""What the tab, the API and the command line share: settings, pictures and tables of a classifier."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np

from ...io.render import colourise
from ..base import Option
from .dataset import LEVELS
from .heads import METHODS
from .heads import TOKENS as TOKEN_NAMES

if TYPE_CHECKING:
    from ..probe import Evaluation
    from .classifier import PhotoClassifier, Prediction
    from .measure import Report

METHOD = Option(
    "method",
    "auto",
    "Method",
    "auto chooses by cross-validation",
    choices=("auto", *METHODS),
    labels=("Automatic", *(words.capitalize() for words in METHODS.values())),
)
TOKENS = Option(
    "tokens",
    "auto",
    "Features",
    "class token, patch mean or both",
    choices=("auto", *TOKEN_NAMES),
    labels=("Automatic", *(words.capitalize() for words in TOKEN_NAMES.values())),
)
UNKNOWN_LABELLED = Option(
    "unknown", False, "Label what is unlike all photos `unknown`", "label what is unlike all photos fitted on `unknown`"
)
LEVEL = Option("level", "auto", "Folder that names the class", "of a path below the given folder", choices=LEVELS)
MATRIX_SIDE, CURVE_SIZE = 480, (240, 420)  # pixels
LINE, DOT_COLOUR, GROUND = (99, 102, 241), (16, 185, 129), (250, 250, 250)
INK, PALE = (40, 40, 40), (90, 90, 90)


def confusion_picture(found: Evaluation) -> np.ndarray:
    """Draw the confusion matrix: rows the truth, columns the answer, each row by its own total; (h, w, 3) uint8."""
    shares = found.confusion / np.maximum(found.confusion.sum(axis=1, keepdims=True), 1)
    cell = max(2, MATRIX_SIDE // len(shares))
    cells = np.kron(colourise(shares, "viridis"), np.ones((cell, cell, 1), np.uint8)).astype(np.uint8)
    return _below_label(cells)


def curve_picture(report: Report) -> np.ndarray | None:
    """Draw accuracy over photos fitted on, (h, w, 3) uint8; None where there is no curve."""
    import cv2

    if len(report.curve) < 2:
        return None
    height, width = CURVE_SIZE
    canvas = np.full((height, width, 3), GROUND, np.uint8)
    photos, accuracy = np.array(report.curve, float).T
    low, high = max(0.0, accuracy.min() - 0.05), min(1.0, accuracy.max() + 0.03)
    x = 56 + (photos / photos.max()) * (width - 84)
    y = height - 40 - (accuracy - low) / max(high - low, 1e-6) * (height - 64)
    points = np.stack([x, y], axis=1).round().astype(np.int32)
    cv2.polylines(canvas, [points], False, LINE, 2, cv2.LINE_AA)
    for (px, py), n, a in zip(points.tolist(), photos, accuracy, strict=True):
        cv2.circle(canvas, (px, py), 4, DOT_COLOUR, -1, cv2.LINE_AA)
        for text, at, colour in ((f"{a:.0%}", (px - 14, py - 10), INK), (f"{n:.0f}", (px - 12, height - 14), PALE)):
            cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return _below_label(canvas)


def _below_label(picture: np.ndarray) -> np.ndarray:
    """Add a margin above a picture, where the page lays its label."""
    margin = np.full((max(12, picture.shape[0] // 8), picture.shape[1], 3), GROUND, np.uint8)
    return np.concatenate([margin, picture])


def summary(classifier: PhotoClassifier) -> str:
    """Return what a classifier is and is worth, as Markdown; of one that was loaded from its card."""
    card = classifier.card_
    head = f"**{len(card['classes'])} classes, {sum(card['photos'])} photos** · made with {card['backbone']}\n\n"
    outlook = classifier.report_.outlook() if classifier.report_ else ""
    doubt = getattr(classifier, "doubt_", "")
    # a line each, because that is how they are translated
    return head + "\n".join(filter(None, [card["summary"], outlook, doubt and f"**Note:** {doubt}."]))


def confused_pairs(found: Evaluation, most: int = 6) -> str:
    """List the pairs of classes that are taken for each other most often, as Markdown."""
    wrong = found.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:most]]
    rows = [f"| {found.classes[r]} | {found.classes[c]} | {wrong[r, c]} |" for r, c in order if wrong[r, c]]
    return "| truth | answer | times |\n|---|---|---|\n" + "\n".join(rows) if rows else "No mistakes."


def answers_table(names: list[str], found: list[Prediction]) -> list[list]:
    """Return a row for each photo: name, label, probability, and whether it is unlike all photos fitted on."""
    return [
        [name, one.label, round(one.probability, 3), "unlike all" if one.is_unknown else ""]
        for name, one in zip(names, found, strict=True)
    ]


def answers_csv(rows: list[list]) -> tuple[str, bytes]:
    """Return the same as CSV: path, label, probability."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "probability"])
    writer.writerows(row[:3] for row in rows)
    return "answers.csv", text.getvalue().encode()


def confusion_csv(found: Evaluation) -> tuple[str, bytes]:
    """Return the confusion matrix as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truth \\ answer", *found.classes])
    writer.writerows([name, *counts] for name, counts in zip(found.classes, found.confusion, strict=True))
    return "confusion.csv", text.getvalue().encode()
