"""Near copies: photos whose vectors are close and whose grey pixels can be laid over each other."""

import cv2
import numpy as np

from ..io.vectors import unit
from .examine import Examination

NEIGHBOURS = 8  # of each photo that are compared pixel by pixel
CHUNK = 1024
SCALES = (1.0, 0.96, 0.92, 0.85, 0.77, 0.7, 0.62, 0.55, 0.48)  # of one photo inside the other: borders and crops
ANGLES = (0, -15, 15)  # degrees


def near_copies(found: Examination, cosine: float, overlap: float) -> list[tuple[int, int, float]]:
    """Return pairs of photos that are nearly the same, (i, j, overlap) with i < j.

    The vectors are taken relative to the folder's mean, or photos of one kind would all be close. Only each photo's
    nearest `NEIGHBOURS` are looked at; groups of more copies are joined by chains of pairs.

    Args:
        found: Of `examine`.
        cosine: Least cosine of the vectors, -1 to 1.
        overlap: Least overlap of the pictures, 0 to 1.
    """
    pairs = []
    shape = found.sizes[:, 1] / found.sizes[:, 0]
    for i, j in sorted(_close_pairs(centred(found.vectors), cosine)):
        share = best_overlap(found.grey[i], found.grey[j], shape[i] / shape[j], enough=overlap)
        if share >= overlap:
            pairs.append((i, j, share))
    return pairs


def centred(vectors: np.ndarray) -> np.ndarray:
    """Subtract the mean from unit vectors (n, D) and scale them to unit length; fewer than ten stay as they are."""
    return vectors if len(vectors) < 10 else unit(vectors - vectors.mean(axis=0))


def best_overlap(a: np.ndarray, b: np.ndarray, stretch: float = 1.0, enough: float = 2.0) -> float:
    """Return the best correlation, -1 to 1, of one grey picture with a part of the other.

    a, b: (S, S) uint8, squashed. stretch: a's width by height, by b's. Tried are scales, the mirror image and small
    turns; the first that is `enough` ends the search. Correlation ignores brightness and contrast.
    """
    best = -1.0
    for angle in ANGLES:
        for mirrored in (False, True):
            other = _turn(b[:, ::-1] if mirrored else b, angle)
            for whole, part, ratio in ((a, other, 1 / stretch), (other, a, stretch)):
                best = max(best, _best_shift(whole, part, ratio))
                if best >= enough:
                    return best
    return best


def _best_shift(whole: np.ndarray, part: np.ndarray, ratio: float) -> float:
    """Lay one picture over the other at every scale and place; ratio: the part's width by height, by the whole's."""
    best, side = -1.0, len(whole)
    for scale in SCALES:
        size = (round(side * scale * min(ratio, 1)), round(side * scale / max(ratio, 1)))
        if min(size) < side // 4:
            continue
        template = cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_AREA)
        if template.std() < 1:  # a plain picture correlates with everything
            continue
        best = max(best, float(cv2.matchTemplate(np.ascontiguousarray(whole), template, cv2.TM_CCOEFF_NORMED).max()))
    return best


def _turn(picture: np.ndarray, angle: float) -> np.ndarray:
    """Turn a square picture and keep the middle that has no corners missing."""
    if not angle:
        return picture
    side = len(picture)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle, 1.0)
    turned = cv2.warpAffine(np.ascontiguousarray(picture), matrix, (side, side), flags=cv2.INTER_LINEAR)
    margin = round(0.12 * side)
    return turned[margin:-margin, margin:-margin]


def _close_pairs(vectors: np.ndarray, cosine: float) -> set[tuple[int, int]]:
    pairs: set[tuple[int, int]] = set()
    count = min(NEIGHBOURS, len(vectors) - 1)
    if count < 1:
        return pairs
    for start in range(0, len(vectors), CHUNK):
        scores = vectors[start : start + CHUNK] @ vectors.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -1
        nearest = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        for row, columns in enumerate(nearest):
            i = start + row
            pairs |= {(min(i, int(j)), max(i, int(j))) for j in columns if scores[row, j] >= cosine - 1e-6}
    return pairs
