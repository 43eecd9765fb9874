"""Metrics of a representation: k-NN accuracy, recall, effective rank, entropies, drift."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..io.vectors import knn_votes


def knn_hits(
    gallery: Tensor,
    gallery_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    k: int = 10,
    temperature: float = 0.07,
    leave_one_out: bool = False,
) -> Tensor:
    """Return for each query whether weighted k-NN finds its class: (Q,) bool.

    The k nearest by cosine vote with exp(cosine / temperature) (Caron et al. 2021, arXiv:2104.14294, sec. 4.1).

    Args:
        gallery: (G, D), with labels (G,) int64.
        gallery_labels: Classes of the gallery.
        queries: (Q, D), with labels (Q,) int64.
        query_labels: Classes of the queries.
        k: Neighbours that vote.
        temperature: Of their votes.
        leave_one_out: The queries are the gallery, and no row votes for itself.

    Raises:
        ValueError: The gallery is empty.
    """
    votes = knn_votes(gallery, gallery_labels, queries, k, temperature, leave_one_out)
    return votes.argmax(dim=1) == query_labels


def recall_hits(gallery: Tensor, queries: Tensor) -> Tensor:
    """Return for each query whether its nearest by cosine is the row of the same index.

    Args:
        gallery: (Q, D).
        queries: (Q, D).

    Returns:
        (Q,) bool.
    """
    nearest = (normalize(queries.float(), dim=-1) @ normalize(gallery.float(), dim=-1).T).argmax(dim=1)
    return nearest == torch.arange(len(queries), device=nearest.device)


def effective_rank(features: Tensor) -> float:
    """Return the exponential of the entropy of the singular values of (n, D) rows: 1 to min(n, D).

    RankMe (Garrido et al. 2023, arXiv:2210.02885, eq. 1) on centred rows, so that a common offset does not count.
    """
    rows = features.double()
    values = torch.linalg.svdvals(rows - rows.mean(dim=0))
    total = values.sum()
    if total <= 1e-12 * rows.norm():
        return 1.0  # all rows are the same
    shares = values / total
    return float(torch.exp(-(shares * torch.log(shares + 1e-12)).sum()))


def mean_cosine(features: Tensor) -> float:
    """Return the mean cosine between different rows of (n, D); 1 means that all are the same."""
    unit = normalize(features.double(), dim=-1)
    n = len(unit)
    return float((unit.sum(dim=0).square().sum() - n) / max(n * (n - 1), 1))


def entropies(logits: Tensor, temperature: float) -> tuple[float, float]:
    """Return how sure and how varied the answers of a head are, as shares of log K.

    Both near each other: every picture gets the same answer. Both at 1: that answer is uniform, both at 0: one
    prototype takes all.

    Args:
        logits: (n, K).
        temperature: Of the softmax, above 0.

    Returns:
        The mean entropy of the rows and the entropy of their mean, 0 to 1 each.
    """
    probs = (logits.double() / temperature).softmax(dim=-1)
    each, mean = _entropy(probs).mean(), _entropy(probs.mean(dim=0))
    most = math.log(logits.shape[-1])
    return float(each / most), float(mean / most)


def patch_drift(patches: Tensor, start: Tensor) -> float:
    """Return how far the patches' similarities have moved from the start.

    Args:
        patches: (n, N, D) of n images.
        start: (n, N, D) of the same images at the start.

    Returns:
        The mean absolute change of the cosines between an image's patches, 0 to 2.
    """
    total = 0.0
    for now, before in zip(patches, start, strict=True):
        now, before = normalize(now.float(), dim=-1), normalize(before.float(), dim=-1)
        total += float((now @ now.T - before @ before.T).abs().mean())
    return total / max(len(patches), 1)


@dataclass(frozen=True)
class Change:
    """A paired comparison of two rates over the same queries, as shares (0 to 1)."""

    before: float
    after: float
    error: float  # standard error of the difference

    @property
    def difference(self) -> float:
        """Return after - before."""
        return self.after - self.before


def paired_change(before: Tensor, after: Tensor) -> Change:
    """Compare two rates over the same queries.

    Args:
        before: Hits (Q,) bool.
        after: Hits (Q,) bool.

    Returns:
        Both rates and the standard error of the paired difference.
    """
    gain = after.double() - before.double()
    error = float(gain.std(correction=0)) / math.sqrt(len(gain))
    return Change(float(before.double().mean()), float(after.double().mean()), error)


def _entropy(probs: Tensor) -> Tensor:
    return -(probs * torch.log(probs.clamp_min(1e-30))).sum(dim=-1)
