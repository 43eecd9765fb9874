"""Paint as people make it, simulated from true masks: loose scribbles, one click, a loose box."""

import random

import cv2
import numpy as np

COVER = (0.03, 0.10)  # share of the object that scribbles cover
LOOSE = (0.05, 0.15)  # of its side that a box is too wide


def scribbles(mask: np.ndarray, rng: random.Random) -> np.ndarray:
    """Return 2 or 3 random strokes inside a mask (H, W) bool that cover 3 to 10 % of it."""
    goal = rng.uniform(*COVER) * mask.sum()
    inner = _inner(mask)
    rows, columns = np.nonzero(inner)
    strokes = rng.choice((2, 3))
    thick = max(2, round((goal / strokes / 6) ** 0.5))
    paint = np.zeros(mask.shape, np.uint8)
    for _ in range(40 * strokes):
        if (paint.astype(bool) & mask).sum() >= goal:
            break
        one = np.zeros(mask.shape, np.uint8)
        at = rng.randrange(len(rows))
        x, y = float(columns[at]), float(rows[at])
        turn = rng.uniform(0, 2 * np.pi)
        while (one.astype(bool) & inner).sum() < goal / strokes:
            turn += rng.gauss(0, 0.4)
            u, v = x + 2 * thick * np.cos(turn), y + 2 * thick * np.sin(turn)
            if not (0 <= u < mask.shape[1] and 0 <= v < mask.shape[0] and inner[int(v), int(u)]):
                break
            cv2.line(one, (int(x), int(y)), (int(u), int(v)), 1, thick)
            x, y = u, v
        paint |= one
    return (paint > 0) & mask


def click(mask: np.ndarray) -> np.ndarray:
    """Return a dot of 1 % of the picture's side at the innermost point of a mask."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), mask.shape)
    dot = np.zeros(mask.shape, np.uint8)
    cv2.circle(dot, (int(x), int(y)), max(2, max(mask.shape) // 100), 1, -1)
    return dot > 0


def box(mask: np.ndarray, rng: random.Random) -> tuple[float, float, float, float]:
    """Return a box around a mask, each side 5 to 15 % of the object's extent too far out: x0, y0, x1, y1."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    return (
        max(0.0, columns[0] - rng.uniform(*LOOSE) * width),
        max(0.0, rows[0] - rng.uniform(*LOOSE) * height),
        min(float(mask.shape[1]), columns[-1] + 1 + rng.uniform(*LOOSE) * width),
        min(float(mask.shape[0]), rows[-1] + 1 + rng.uniform(*LOOSE) * height),
    )


def _inner(mask: np.ndarray) -> np.ndarray:
    """Return where a hand would aim: the inner half of a mask, all of it where it is thin."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    inner = distance > 0.25 * distance.max()
    return inner if inner.sum() > 0.2 * mask.sum() else mask
