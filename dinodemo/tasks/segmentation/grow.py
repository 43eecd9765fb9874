"""From paint to the object on the same photo: a scribble, a box or a click is enough.

What is not painted is unknown, not background. Patches are labelled by two voices that are solved for together: how
much more a patch is like the object's patches than like the background's (tokens, nearest neighbours), and that
neighbouring patches of like tokens belong together (a random walk on the patch grid, Grady 2006, with the appearance
as its prior). Both sets of patches are learned anew from the answer a few times, as GrabCut (Rother et al. 2004) does
with colours. Edges are then followed in colour.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import spsolve

from ..tokens import flat_unit
from .refine import follow_edges, to_pixels
from .scores import mean_of_top, reduce_by_area

ROUNDS = 4  # how often both sets are learned anew
NEAREST = 10  # patches of a set whose mean cosine says how like it a patch is
APPEARANCE_TEMPERATURE = 0.05  # cosine difference that is a vote of 0.73
STIFFNESS = 12.0  # how fast the bond of neighbouring patches falls with their cosine's distance from 1
REACH = 0.12  # taken off the cosine difference for every unit of the way from the paint
STEP = 0.01  # cost of a step between equal patches
BOND = 1.0  # weight of neighbours against appearance
HARD = 50.0  # weight of what was painted
SURE = 0.8  # patches above it teach the object's set, below its mirror image the background's
RING_SHARE = 0.6  # of the patches on the picture's rim: the least like the paint stand for the background at first
FAR_SHARE = 0.25  # of all patches, likewise
BOX_SHARE = 0.2  # of the patches in a box: the least like what lies outside stand for the object at first
CENTRAL = 0.1  # cosine that a patch in the middle of a box is ahead of one at its side
THIN = 0.25  # share of the object: paint below it is called thin


@dataclass(frozen=True, eq=False)
class Paint:
    """Represent what a person drew on a photo, at the photo's size.

    Attributes:
        include: (H, W) bool, scribbles and clicks on the object.
        exclude: (H, W) bool, scribbles on what is not meant.
        box: x0, y0, x1, y1 in pixels around the object, or None.
    """

    include: np.ndarray
    exclude: np.ndarray
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Grown:
    """Represent the object that paint stands for.

    Attributes:
        mask: (H, W) bool.
        score: (h, w) float32 on the patch grid, 0 to 1.
        share: of the object that was painted, 0 to 1.
    """

    mask: np.ndarray
    score: np.ndarray
    share: float


def grow(rgb: np.ndarray, tokens: np.ndarray, paint: Paint, refine: bool = True) -> Grown:
    """Return the object that was painted on.

    Args:
        rgb: (H, W, 3) uint8.
        tokens: (h, w, D) patch tokens of the photo, their position taken out.
        paint: what was drawn.
        refine: follow the edges of the picture; else the patch scores alone.

    Raises:
        ValueError: where neither paint nor a box says what is meant.
    """
    if not paint.include.any() and paint.box is None:
        raise ValueError("nothing is painted yet; scribble on the object, click it or draw a box around it")
    grid = tokens.shape[:2]
    score = _solve(tokens, *_seeds(paint, grid, rgb.shape[:2])).reshape(grid).astype(np.float32)
    score = _keep_touched(score, paint, rgb.shape[:2])
    mask = follow_edges(rgb, score, 0.5) if refine else to_pixels(score, rgb.shape[:2]) > 0.5
    mask = (mask | paint.include) & ~paint.exclude
    if paint.box is not None and not paint.include.any():
        mask &= _inside(paint.box, mask.shape)
    mask = _without_crumbs(mask, paint)
    return Grown(mask, score, float((paint.include & mask).sum() / max(mask.sum(), 1)))


def _seeds(paint: Paint, grid: tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Return the patches of the object, of the background and those that may be either: (N,) bool each."""
    include = reduce_by_area(paint.include, grid).ravel()
    exclude = reduce_by_area(paint.exclude, grid).ravel()
    wanted = include >= min(0.3, 0.6 * include.max()) if include.any() else np.zeros(include.shape, bool)
    refused = (exclude > 0.2) & ~wanted
    maybe = np.ones(include.shape, bool)
    if paint.box is not None:
        share = reduce_by_area(_inside(paint.box, size), grid).ravel()
        refused |= (share < 0.25) & ~wanted
        maybe = share > 0
    return wanted, refused, maybe & ~refused


def _solve(tokens: np.ndarray, wanted: np.ndarray, refused: np.ndarray, maybe: np.ndarray) -> np.ndarray:
    """Return the share of the object in every patch: (N,) 0 to 1."""
    flat = flat_unit(tokens)
    flat = flat_unit(flat - 0.5 * flat.mean(axis=0))
    cosine = flat @ flat.T
    bonds, steps = _bonds(flat, tokens.shape[:2])
    laplacian = diags_array(np.asarray(bonds.sum(axis=1)).reshape(-1)) - bonds
    far = _distance(steps, wanted)
    object_, ground = _first_sets(cosine, tokens.shape[:2], wanted, refused, maybe)
    for _ in range(ROUNDS):
        difference = mean_of_top(cosine[:, object_], NEAREST) - mean_of_top(cosine[:, ground], NEAREST)
        prior = 1 / (1 + np.exp(-(difference - REACH * far) / APPEARANCE_TEMPERATURE))
        weight = np.where(wanted | refused, HARD, 1.0)
        prior = np.where(wanted, 1.0, np.where(refused, 0.0, prior))
        share = spsolve((BOND * laplacian + diags_array(weight)).tocsc(), weight * prior)
        object_ = (share > SURE) & ~refused | wanted
        ground = (share < 1 - SURE) & ~wanted | refused
        if not object_.any() or not ground.any():
            break
    return np.clip(share, 0, 1)


def _first_sets(
    cosine: np.ndarray, grid: tuple[int, int], wanted: np.ndarray, refused: np.ndarray, maybe: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the patches that stand for object and background before anything is known: (N,) bool each."""
    if not wanted.any():  # a box alone: what lies inside and is not like what lies outside
        outside = ~maybe if (~maybe).any() else _rim(grid)
        inside = np.flatnonzero(maybe)
        unlike = -mean_of_top(cosine[inside][:, outside], NEAREST) - CENTRAL * _from_middle(inside, grid[1])
        object_ = np.zeros(len(maybe), bool)
        object_[inside[unlike >= np.quantile(unlike, 1 - BOX_SHARE)]] = True
        return object_, outside
    like = mean_of_top(cosine[:, wanted], NEAREST)
    rim = _rim(grid) & ~wanted
    limit = np.quantile(like[rim], RING_SHARE) if rim.any() else -1.0
    far = like <= np.quantile(like, FAR_SHARE)
    return wanted, ((rim & (like <= limit)) | far | refused) & ~wanted


def _from_middle(patches: np.ndarray, width: int) -> np.ndarray:
    """Return how far patches lie from the middle of their box: 0 there, 1 in the middle of a side, 2 in a corner."""
    distance = np.zeros(len(patches))
    for at in np.divmod(patches, width):
        half = (np.ptp(at) + 1) / 2
        distance += ((at - (at.min() + at.max()) / 2) / half) ** 2
    return distance


def _rim(grid: tuple[int, int]) -> np.ndarray:
    rim = np.ones(grid, bool)
    rim[1:-1, 1:-1] = False
    return rim.ravel()


def _bonds(flat: np.ndarray, grid: tuple[int, int]) -> tuple[csr_array, csr_array]:
    """Return how strongly neighbours on the grid, diagonal ones too, hold together, and what a step costs: (N, N)."""
    number = np.arange(grid[0] * grid[1]).reshape(grid)
    straight = [(number[:, :-1], number[:, 1:]), (number[:-1], number[1:])]
    diagonal = [(number[:-1, :-1], number[1:, 1:]), (number[:-1, 1:], number[1:, :-1])]
    a, b = (np.concatenate([pair[i].ravel() for pair in straight + diagonal]) for i in (0, 1))
    near = np.where(np.arange(len(a)) < sum(pair[0].size for pair in straight), 1.0, 0.7)
    unlike = np.clip(1 - (flat[a] * flat[b]).sum(axis=1), 0, 2)
    rows, columns, shape = np.r_[a, b], np.r_[b, a], (number.size, number.size)
    bonds = near * np.exp(-STIFFNESS * unlike)
    steps = (unlike + STEP) / near
    return tuple(csr_array((np.r_[v, v], (rows, columns)), shape=shape) for v in (bonds, steps))


def _distance(steps: csr_array, wanted: np.ndarray) -> np.ndarray:
    """Return the cost of the cheapest way from paint to every patch: (N,), 0 where nothing is painted."""
    if not wanted.any():
        return np.zeros(len(wanted))
    return dijkstra(steps, indices=np.flatnonzero(wanted), min_only=True)


def _keep_touched(score: np.ndarray, paint: Paint, size: tuple[int, int]) -> np.ndarray:
    """Keep the pieces that paint or the box touches; like objects elsewhere in the photo are others."""
    _, pieces = cv2.connectedComponents((score > 0.5).astype(np.uint8), connectivity=8)
    touching = paint.include if paint.include.any() else _inside(paint.box, size)
    share = reduce_by_area(touching, score.shape)
    met = np.unique(pieces[share > min(0.1, 0.5 * share.max())])
    return np.where((score > 0.5) & ~np.isin(pieces, met[met > 0]), 0.2 * score, score)


def _without_crumbs(mask: np.ndarray, paint: Paint) -> np.ndarray:
    """Remove pieces that nobody painted and that are below a hundredth of the object; fill its pinholes."""
    for inverted in (False, True):
        area = ~mask if inverted else mask
        _, pieces, stats, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8), connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < max(0.01 * mask.sum(), 4)
        small[0] = False
        protected = paint.exclude if inverted else paint.include
        small[np.unique(pieces[protected])] = False
        mask = mask ^ (small[pieces] & area)
    return mask


def _inside(box: tuple[float, float, float, float] | None, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels (H, W) bool of a box x0, y0, x1, y1; all where there is none."""
    mask = np.ones(size, bool) if box is None else np.zeros(size, bool)
    if box is not None:
        x0, y0, x1, y1 = (round(v) for v in box)
        mask[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
    return mask
