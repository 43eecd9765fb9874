"""The losses of DINO, iBOT, KoLeo and Gram anchoring, and the teacher's targets: centring and Sinkhorn-Knopp.

Shapes: B photos, N patches, D width, K prototypes, S student crops, T teacher crops, M masked patches. Where
torch.distributed is initialised, centres and Sinkhorn-Knopp see the rows of all ranks.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .distributed import gather_rows, reduce_max, reduce_sum

EPS = 1e-8


def softmax_center(teacher_logits: Tensor, center: Tensor, teacher_temp: float) -> Tensor:
    """Return centred and sharpened targets, softmax((logits - center) / temp).

    Caron et al. 2021 (arXiv:2104.14294), eq. 2 with sec. 3.1.

    Args:
        teacher_logits: (..., K).
        center: (1, K).
        teacher_temp: Above 0; lower is sharper.

    Returns:
        (..., K), rows sum to 1.
    """
    return ((teacher_logits - center) / teacher_temp).softmax(dim=-1)


@torch.no_grad()
def update_center(center: Tensor, teacher_logits: Tensor, momentum: float = 0.9) -> Tensor:
    """Return momentum * center + (1 - momentum) * mean over all ranks' rows.

    Caron et al. 2021, eq. 4. Without rows the centre stays.

    Args:
        center: (1, K).
        teacher_logits: (B, K), of this rank.
        momentum: 0 to 1.

    Returns:
        (1, K).
    """
    rows = teacher_logits.reshape(-1, teacher_logits.shape[-1]).float()
    total = reduce_sum(torch.cat([rows.sum(dim=0), rows.new_tensor([len(rows)])]))
    if total[-1] == 0:
        return center.clone()
    return center * momentum + (total[:-1] / total[-1])[None] * (1 - momentum)


@torch.no_grad()
def sinkhorn_knopp(teacher_logits: Tensor, teacher_temp: float, n_iterations: int = 3) -> Tensor:
    """Return targets spread evenly over the prototypes.

    Caron et al. 2020 (SwAV, arXiv:2006.09882), sec. 3.1; DINOv2 uses 3 iterations. In logarithms: with sharp
    temperatures exp would leave rows of zeros.

    Args:
        teacher_logits: (B, K).
        teacher_temp: Above 0; lower is sharper.
        n_iterations: Of normalising prototypes and rows in turn.

    Returns:
        (B, K), rows sum to 1.
    """
    logs = teacher_logits.float() / teacher_temp
    n_rows = reduce_sum(logs.new_tensor([len(logs)])).log()
    for _ in range(n_iterations):
        logs = logs - _log_sum_of_columns(logs) - math.log(logs.shape[1])
        logs = logs - logs.logsumexp(dim=1, keepdim=True) - n_rows
    return (logs + n_rows).exp()


def dino_loss(student_logits: Tensor, teacher_probs: Tensor, student_temp: float = 0.1) -> Tensor:
    """Return the cross-entropy of student crops to teacher crops.

    Mean over the batch and over all pairs but crop i with itself (Caron et al. 2021, eq. 3): the first T student
    crops are those that the teacher saw too.

    Args:
        student_logits: (S, B, K).
        teacher_probs: (T, B, K), rows sum to 1.
        student_temp: Above 0.

    Returns:
        A scalar.
    """
    log_probs = F.log_softmax(student_logits.float() / student_temp, dim=-1)  # (S, B, K)
    n_student, n_teacher = len(log_probs), len(teacher_probs)
    same = min(n_student, n_teacher)
    # the sum over pairs is a product of sums, less the pairs of a crop with itself
    every = (teacher_probs.sum(dim=0) * log_probs.sum(dim=0)).sum(dim=-1)
    itself = (teacher_probs[:same] * log_probs[:same]).sum(dim=(0, 2))
    pairs = n_student * n_teacher - same
    if pairs == 0:
        raise ValueError("the DINO loss needs a pair of different crops; add local crops or a second global one")
    return -(every - itself).mean() / pairs


def ibot_loss(student_logits: Tensor, teacher_probs: Tensor, mask: Tensor, student_temp: float = 0.1) -> Tensor:
    """Return the cross-entropy on masked patches.

    Each image's mean over its masked patches, then the mean over all B images, unmasked ones counting as zero
    (Zhou et al. 2022, arXiv:2111.07832, eq. 2, weighted as in DINOv2).

    Args:
        student_logits: (M, K), rows in the order of mask.nonzero().
        teacher_probs: (M, K), rows sum to 1.
        mask: (B, N) bool, with M True.
        student_temp: Above 0.

    Returns:
        A scalar.
    """
    if len(student_logits) != int(mask.sum()):
        raise ValueError(f"the mask marks {int(mask.sum())} patches, but there are {len(student_logits)} rows")
    loss = -(teacher_probs * F.log_softmax(student_logits.float() / student_temp, dim=-1)).sum(dim=-1)  # (M,)
    weight = (1 / mask.sum(dim=1, keepdim=True).clamp_min(1)).expand_as(mask)[mask]
    return (loss * weight).sum() / len(mask)


def koleo_loss(cls_tokens: Tensor, gather: bool = False) -> Tensor:
    """Return the Kozachenko-Leonenko entropy loss, (B, D) -> scalar: -mean log of the distance to the nearest other.

    Sablayrolles et al. 2019 (arXiv:1806.03198), eq. 3, in float32. For one view of each photo: DINOv2 applies it to
    each global view and adds the results up (see `SelfDistillation.compute_losses`).

    Args:
        cls_tokens: (B, D), one of each photo.
        gather: Search the nearest among all ranks' rows.
    """
    with torch.autocast(cls_tokens.device.type, enabled=False):
        tokens = F.normalize(cls_tokens.float(), dim=-1, eps=EPS)
        others, first = gather_rows(tokens) if gather else (tokens, 0)
        if len(others) < 2:
            return tokens.sum() * 0.0
        with torch.no_grad():
            cosine = tokens @ others.T
            rows = torch.arange(len(tokens), device=tokens.device)
            cosine[rows, rows + first] = -2.0
            nearest = cosine.argmax(dim=1)
        distance = F.pairwise_distance(tokens, others[nearest], p=2, eps=EPS)
        return -torch.log(distance + EPS).mean()


def gram_loss(student_patches: Tensor, teacher_patches: Tensor) -> Tensor:
    """Return the mean square difference of patch similarities.

    Cosines of all pairs of an image's patches, negative ones set to zero (Simeoni et al. 2025, arXiv:2508.10104,
    sec. 4.2).

    Args:
        student_patches: (B, N, D).
        teacher_patches: (B, N, D).

    Returns:
        A scalar.
    """
    grams = [F.normalize(patches.float(), dim=-1) for patches in (student_patches, teacher_patches)]
    student, teacher = ((tokens @ tokens.transpose(1, 2)).clamp_min(0) for tokens in grams)
    return F.mse_loss(student, teacher)


def _log_sum_of_columns(logs: Tensor) -> Tensor:
    """Return the log of the sum of exp over all ranks' rows: (B, K) -> (K,)."""
    least = logs.new_full((1, logs.shape[1]), torch.finfo(logs.dtype).min)
    largest = reduce_max(torch.cat([logs, least]).amax(dim=0))
    return largest + reduce_sum((logs - largest).exp().sum(dim=0)).log()
