"""From patch tokens to scores: which patches of a target show what the masks of the references show."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from ..tokens import flat_unit
from .match import BOUNDS, OBJECT, Whitening, found_again, to_match

NEIGHBOURS = (10, 200)  # least and most reference patches that vote on a target patch; between: as the object has
TEMPERATURE = 0.05  # of their votes
CLOSEST = 10  # foreground patches whose mean cosine says how alike a target patch is
CENTRED = 0.5  # share of the mean token that is taken off before patches are compared for similarity
GATE_DROP, GATE_TEMPERATURE = 0.3, 0.1  # a patch this much less alike than the best ones loses half its score
PEAK = 0.998  # quantile that stands for a map's maximum
FAINT = 0.6  # the threshold falls to this share of the peak when the peak is low
# a patch this much more like a negative than like the object loses half its score
REFUSAL_MARGIN, REFUSAL_TEMPERATURE = 0.02, 0.02
GROUP_DROP = 0.3  # a group of patches whose median is this much less alike than the best group's is left out
GROUP_FADE = 0.2


@dataclass(frozen=True, eq=False)
class Memory:
    """Represent the patches of all references: M of them, of width D.

    Attributes:
        tokens: (M, D) float32, unit length.
        labels: (M,) float32, the share of the patch inside a mask.
        reference: (M,) int, of which reference it is; -1 for negatives.
        foreground: (M,) bool, patches that stand for the object.
        whitening: to the space in which the match is measured; None keeps the tokens as they are.
        bound: whitened cosine at which the match is 0.5.
        kind: whether other objects of its kind are wanted too, so that nothing is blanked for being less alike.
    """

    tokens: np.ndarray
    labels: np.ndarray
    reference: np.ndarray
    foreground: np.ndarray
    whitening: Whitening | None = None
    bound: float = BOUNDS[OBJECT]
    kind: bool = False

    @property
    def negative(self) -> np.ndarray:
        """Return which patches were given as "not this": (M,) bool."""
        return self.reference < 0

    @property
    def neighbours(self) -> int:
        """Return how many patches vote: no more than the object has, or the background would outvote a small one."""
        least, most = NEIGHBOURS
        return int(np.clip(self.foreground.sum(), least, most))

    @cached_property
    def white(self) -> np.ndarray:
        """Return the tokens in the space in which the match is measured: (M, D) float32."""
        return self.whiten(self.tokens)

    def whiten(self, tokens: np.ndarray) -> np.ndarray:
        """Return tokens (..., D) in that space: (N, D) float32."""
        return flat_unit(tokens) if self.whitening is None else self.whitening(tokens)


@dataclass(frozen=True, eq=False)
class PatchScore:
    """Represent what the patches of one target say.

    Attributes:
        score: (h, w) float32, 0 to 1, with 0.5 as the natural threshold.
        centred: (h, w) float32, see `centred_similarity`.
        presence: 0 to 1, how likely the object is in the target.
        cosine: the whitened cosine that the presence was made of.
    """

    score: np.ndarray
    centred: np.ndarray
    presence: float
    cosine: float = 0.0


def reduce_by_area(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the share of each cell that a mask covers, exactly, for any ratio of sizes.

    Args:
        mask: (H, W), 0 to 1.
        grid: Cells (h, w).

    Returns:
        (h, w) float32, 0 to 1.
    """
    rows, columns = (_overlap(n, cells) for n, cells in zip(mask.shape, grid, strict=True))
    return rows @ mask.astype(np.float32) @ columns.T


def _overlap(n: int, cells: int) -> np.ndarray:
    """Return which share of each of `cells` equal cells every one of n pixels makes up: (cells, n)."""
    edges = np.linspace(0, n, cells + 1)
    pixels = np.arange(n)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(covered, 0, None) * cells / n).astype(np.float32)


def foreground_labels(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (float32) and foreground (bool) of patches of which a mask covers the given share.

    An object smaller than half a patch still gets a label of 1 somewhere: its patches are scaled up.
    """
    most = share.max()
    labels = share if most >= 0.5 or most == 0 else share / most
    return labels.astype(np.float32), (labels > 0.5) | (labels == labels.max()) & (most > 0)


def score_patches(tokens: np.ndarray, memory: Memory) -> PatchScore:
    """Score the patches of a target (h, w, D) against a memory.

    Labels spread from the nearest reference patches with softmax weights, as in DINO's video protocol (Caron et al.
    2021, arXiv:2104.14294, sec. 4.2.2). Then patches and groups of patches that are far less alike than the best of
    this target lose their score: what the references never showed is nearest to the foreground by chance.
    """
    similarity = flat_unit(tokens) @ memory.tokens.T  # [N, M]
    grid = tokens.shape[:2]
    spread = spread_labels(similarity, memory.labels, memory.neighbours)
    centred = centred_similarity(flat_unit(tokens), memory)
    if not memory.kind:
        spread *= similarity_gate(centred)
    if memory.negative.any():
        wanted, refused = (mean_of_top(similarity[:, m], CLOSEST) for m in (memory.foreground, memory.negative))
        spread *= refusal_gate(wanted, refused)
    score = lift_faint(spread)
    centred = centred.reshape(grid)
    score = score.reshape(grid) if memory.kind else fade_weak_groups(score.reshape(grid), centred)
    cosine = match_cosine(memory.whiten(tokens), memory)
    return PatchScore(score.astype(np.float32), centred, to_match(cosine, memory.bound), cosine)


def spread_labels(
    similarity: np.ndarray, labels: np.ndarray, neighbours: int, temperature: float = TEMPERATURE
) -> np.ndarray:
    """Return the softmax-weighted mean label of each row's nearest columns, (N,).

    Args:
        similarity: (N, M).
        labels: (M,).
        neighbours: Columns that vote.
        temperature: Of the softmax.
    """
    import torch  # here, so that a page can be served before torch is loaded

    nearest, index = torch.from_numpy(similarity).topk(min(neighbours, similarity.shape[1]), dim=1, sorted=False)
    weights = (nearest / temperature).softmax(dim=1)
    return (weights * torch.from_numpy(labels)[index]).sum(dim=1).numpy()


def centred_similarity(tokens: np.ndarray, memory: Memory) -> np.ndarray:
    """Return each patch's mean cosine to the closest foreground patches, unit tokens (N, D) -> (N,).

    Half the mean of references and target is taken off first: it is what all patches of both share, and hides how
    little a background that no reference showed is like the object.
    """
    center = CENTRED * (memory.tokens[~memory.negative].mean(axis=0) + tokens.mean(axis=0)) / 2
    return mean_of_top(flat_unit(tokens - center) @ flat_unit(memory.tokens[memory.foreground] - center).T, CLOSEST)


def similarity_gate(centred: np.ndarray) -> np.ndarray:
    """Return a weight from 0 to 1 per patch: near 1 for the patches most like the foreground, (N,) -> (N,)."""
    return _sigmoid((centred - np.quantile(centred, 0.99) + GATE_DROP) / GATE_TEMPERATURE)


def refusal_gate(centred: np.ndarray, other_similarity: np.ndarray) -> np.ndarray:
    """Return a weight from 0 to 1 per patch: near 0 where negatives are more alike than the foreground, (N,) x 2."""
    return _sigmoid((centred - other_similarity + REFUSAL_MARGIN) / REFUSAL_TEMPERATURE)


def lift_faint(score: np.ndarray) -> np.ndarray:
    """Scale a faint map up so that a threshold of 0.5 means `FAINT` of its peak; leave others as they are."""
    peak = float(np.quantile(score, PEAK))
    return np.clip(score / min(1.0, max(2 * FAINT * peak, 1e-3)), 0, 1)


def fade_weak_groups(score: np.ndarray, centred: np.ndarray) -> np.ndarray:
    """Fade connected groups of patches above 0.5 that are much less alike than the best group: (h, w) -> (h, w)."""
    count, groups = cv2.connectedComponents((score > 0.5).astype(np.uint8), connectivity=4)
    if count <= 2:
        return score
    medians = np.array([np.median(centred[groups == i]) for i in range(1, count)])
    weak = np.r_[False, medians < medians.max() - GROUP_DROP]
    return np.where(weak[groups], GROUP_FADE * score, score)


def match_cosine(white: np.ndarray, memory: Memory) -> float:
    """Return how well the object is found again in a target's whitened tokens (N, D); see `match.found_again`.

    Patches of the target that show a "not this" do not speak for the object.
    """
    if memory.negative.any():
        other = (white @ memory.white[memory.negative].T).max(axis=1)
        white = white[other <= (white @ memory.white[memory.foreground].T).max(axis=1)]
    return found_again(white, memory.white[memory.foreground], memory.reference[memory.foreground])


def mean_of_top(values: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of each row's largest `count` values: (N, M) -> (N,)."""
    import torch

    top = torch.from_numpy(np.ascontiguousarray(values)).topk(min(count, values.shape[1]), dim=1, sorted=False)
    return top.values.mean(dim=1).numpy()


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))
