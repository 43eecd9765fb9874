"""Compare two pictures: how alike they are, which parts agree, and whether one plane or view explains it.

Share of matches that are right to 1.5 patches, where the truth is known (24 photos against themselves shifted, turned
by 15 to 40 degrees, and enlarged 1.5 to 2 times; 392 px, offline default), mutual nearest patches alone and then only
those that one affine map explains:

                                shifted       turned        enlarged
    tokens as they are          0.44  0.73    0.39  0.69    0.27  0.41
    minus each picture's mean   0.43  0.68    0.40  0.67    0.26  0.47
    place taken out             0.54  0.86    0.49  0.86    0.33  0.83

So hand in the directions of position (`tokens.positional_basis_of`).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ...engine.features import Features
from ..tokens import flat_unit, mutual_nearest, unit, without

MODELS = ("homography", "affine")
LEAST_POINTS = {"homography": 4, "affine": 3}


@dataclass(frozen=True, eq=False)
class Matches:
    """M pairs of patches, best first: each is the other's nearest by cosine."""

    a: np.ndarray  # (M, 2) int (row, column) in the first picture's grid
    b: np.ndarray  # (M, 2) int (row, column) in the second's
    scores: np.ndarray  # (M,) float32 cosine, -1 to 1
    grids: tuple[tuple[int, int], tuple[int, int]]  # (h, w) of both

    def __len__(self) -> int:
        return len(self.scores)

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the patches' centres in both pictures, two (M, 2) float32 of (x, y) from 0 to 1."""
        return _centres(self.a, self.grids[0]), _centres(self.b, self.grids[1])

    def take(self, chosen: np.ndarray) -> "Matches":
        """Return the pairs of a boolean mask or of indices, in that order."""
        return Matches(self.a[chosen], self.b[chosen], self.scores[chosen], self.grids)


def similarity(fa: Features, fb: Features) -> float:
    """Return the cosine of two pictures' CLS tokens, -1 to 1.

    Args:
        fa: Features of one picture.
        fb: Features of the other.

    Raises:
        ValueError: They are of different backbones.
    """
    _check_same_backbone(fa, fb)
    return float(unit(fa.cls) @ unit(fb.cls))


def match(fa: Features, fb: Features, basis: np.ndarray | None = None, min_score: float = -1.0) -> Matches:
    """Return the mutual nearest patches of two pictures, best first.

    "Best buddies" of Dekel et al. 2015 (arXiv:1502.03327), on patch tokens as in Amir et al. 2021
    (arXiv:2112.05814, sec. 4.3).

    Args:
        fa, fb: features of both, from one backbone.
        basis: positional directions (D, k) that are taken out first, see `tokens.positional_basis_of`.
        min_score: least cosine of a pair, -1 to 1.

    Raises:
        ValueError: for features of different backbones.
    """
    _check_same_backbone(fa, fb)
    cosine = _flat(fa, basis) @ _flat(fb, basis).T  # (Na, Nb)
    rows, columns = mutual_nearest(cosine)
    scores = cosine[rows, columns]
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= min_score]
    return Matches(
        _row_column(rows[order], fa.grid),
        _row_column(columns[order], fb.grid),
        scores[order].astype(np.float32),
        (fa.grid, fb.grid),
    )


def heat_map(fa: Features, patch: tuple[int, int], fb: Features, basis: np.ndarray | None = None) -> np.ndarray:
    """Return the cosine of every patch of the second picture to one of the first.

    Args:
        fa, fb: features of both, from one backbone.
        patch: (row, column) on the first picture's grid.
        basis: as in `match`.

    Returns:
        (h, w) float32 from -1 to 1 on the second picture's grid.

    Raises:
        ValueError: for a patch outside the grid, and for features of different backbones.
    """
    _check_same_backbone(fa, fb)
    h, w = fa.grid
    if not (0 <= patch[0] < h and 0 <= patch[1] < w):
        raise ValueError(f"patch must lie in the {h} x {w} grid of the first picture, got {patch}")
    return (_flat(fb, basis) @ _flat(fa, basis)[patch[0] * w + patch[1]]).reshape(fb.grid)


def spread(matches: Matches, n: int) -> Matches:
    """Return pairs for drawing, strong ones first but spread over the first picture.

    Each next pair is the best of those farthest from what is taken already: its score times the distance, in patches,
    to the nearest taken one.

    Args:
        matches: To choose from.
        n: Most pairs.
    """
    if len(matches) <= n:
        return matches
    weight = matches.scores - matches.scores.min() + 1e-3
    distance = np.full(len(matches), np.inf)
    taken = [0]
    while len(taken) < n:
        distance = np.minimum(distance, np.linalg.norm(matches.a - matches.a[taken[-1]], axis=1))
        taken.append(int(np.argmax(weight * distance)))
    return matches.take(np.sort(taken))


def consistent(matches: Matches, model: str = "homography", tolerance: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs that one plane-to-plane map explains, by RANSAC (Fischler and Bolles 1981) in OpenCV.

    Args:
        matches: To choose from.
        model: "homography" (a plane seen from two places) or "affine".
        tolerance: Patches between where the map sends a patch of the first picture and its match.

    Returns:
        (M,) bool, and the 3 x 3 map of grid coordinates (x, y) of patch centres; no pair and an identity when none is
        found.

    Raises:
        ValueError: The model is unknown.
    """
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    if len(matches) < LEAST_POINTS[model]:
        return np.zeros(len(matches), bool), np.eye(3)
    source, target = (side[:, ::-1].astype(np.float32) for side in (matches.a, matches.b))
    if model == "homography":
        found, kept = cv2.findHomography(source, target, cv2.RANSAC, tolerance, maxIters=5000, confidence=0.999)
    else:
        found, kept = cv2.estimateAffine2D(
            source, target, method=cv2.RANSAC, ransacReprojThreshold=tolerance, maxIters=5000, confidence=0.999
        )
        found = None if found is None else np.vstack([found, [0, 0, 1]])
    if found is None:
        return np.zeros(len(matches), bool), np.eye(3)
    return kept.ravel().astype(bool), found


def _check_same_backbone(fa: Features, fb: Features) -> None:
    if fa.backbone != fb.backbone:
        raise ValueError(
            f"features of {fa.backbone} and {fb.backbone} cannot be compared; make both with the same backbone"
        )


def _flat(f: Features, basis: np.ndarray | None) -> np.ndarray:
    return flat_unit(f.patches if basis is None else without(f.patches, basis))


def _row_column(index: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    return np.stack(np.divmod(index, grid[1]), axis=1)


def _centres(patches: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    return ((patches[:, ::-1] + 0.5) / np.array(grid[::-1])).astype(np.float32)
