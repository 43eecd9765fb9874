"""What a depth head is trained with: scale-invariant log loss, its gradient term, and MiDaS' loss for relative depth.

All take maps (h, w) and a mask of the pixels that count; where none does, a loss is 0 and has no gradient.
"""

import torch

VARIANCE_FOCUS = 0.15  # weight of the squared mean: 1 would be the mean square, 0 would not see a common scale at all
EPSILON = 1e-3  # metres added before the logarithm, as published
STRIDES = (1, 2, 4, 6)  # of the gradient term's scales, as published
MIDAS_SCALES = 4


def scale_invariant_log(depth: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return sqrt(var(g) + 0.15 mean(g)^2) of g = log depth - log truth over the valid pixels.

    Source: Eigen et al. 2014, eq. 4, in the form of AdaBins and DINOv2's depth training (which call it SigLoss),
    with the unbiased variance; their warm-up, 100 steps of the mean's term alone, is not used: training starts warm.

    Args:
        depth: (h, w), above 0.
        truth: (h, w), in the same unit.
        valid: (h, w) bool.
    """
    g = torch.log(depth[valid] + EPSILON) - torch.log(truth[valid] + EPSILON)
    if g.numel() < 2:
        return depth.sum() * 0
    # a floor, because the root's slope is infinite where the fit is perfect
    return torch.sqrt((g.var() + VARIANCE_FOCUS * g.mean().square()).clamp_min(1e-12))


def log_gradient(depth: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the mean change of the log residual between pixels two apart, summed over strides 1, 2, 4, 6.

    At each stride: (sum |R[y+2] - R[y]| + sum |R[x+2] - R[x]|) / valid pixels, over pairs that are both valid.
    Source: MegaDepth (Li and Snavely 2018, eq. 4) in the form of DINOv2's depth training.

    Args:
        depth: (h, w), above 0.
        truth: (h, w), in the same unit.
        valid: (h, w) bool.
    """
    # masked before the logarithm: nan times 0 would still be nan in the gradient
    ratio = torch.log(depth + EPSILON) - torch.log(torch.where(valid, truth, 1) + EPSILON)
    changes = (_change(ratio[::step, ::step], valid[::step, ::step], reach=2) for step in STRIDES)
    return sum(changes, depth.new_zeros(()))


def _change(residual: torch.Tensor, valid: torch.Tensor, reach: int) -> torch.Tensor:
    down = (residual[reach:] - residual[:-reach]).abs()[valid[reach:] & valid[:-reach]]
    right = (residual[:, reach:] - residual[:, :-reach]).abs()[valid[:, reach:] & valid[:, :-reach]]
    return (down.sum() + right.sum()) / valid.sum().clamp_min(1)


def scale_and_shift_free(depth: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of both inverse depths, each shifted by its median and scaled by its spread.

    Spread: the mean absolute deviation from the median. Any scale and shift of the true inverse depth gives the same
    loss. Source: Ranftl et al. 2020 (MiDaS, arXiv:1907.01341), eq. 5 and 6, without trimming.

    Args:
        depth: (h, w), above 0.
        truth: (h, w), above 0 where valid.
        valid: (h, w) bool.
    """
    if valid.sum() < 2:
        return depth.sum() * 0
    return (_normalised(depth[valid]) - _normalised(truth[valid])).abs().mean()


def scale_and_shift_free_gradient(depth: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the mean change of that difference between neighbours, summed over strides 1, 2, 4, 8 (MiDaS, eq. 11).

    Args:
        depth: (h, w), above 0.
        truth: (h, w), above 0 where valid.
        valid: (h, w) bool.
    """
    if valid.sum() < 2:
        return depth.sum() * 0
    residual = torch.zeros_like(depth).masked_scatter(valid, _normalised(depth[valid]) - _normalised(truth[valid]))
    steps = [2**k for k in range(MIDAS_SCALES)]
    changes = (_change(residual[::step, ::step], valid[::step, ::step], reach=1) for step in steps)
    return sum(changes, depth.new_zeros(()))


def _normalised(depth: torch.Tensor) -> torch.Tensor:
    inverse = 1 / depth.clamp_min(EPSILON)
    centred = inverse - inverse.median()
    return centred / centred.abs().mean().clamp_min(1e-6)
