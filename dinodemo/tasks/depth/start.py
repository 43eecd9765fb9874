"""Where a depth head's training starts: the weights of a ridge regression, written as a head."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from .head import FLOOR

RIDGE = 0.003  # on the patches' weights, as a share of the variance of a channel (1, standardised)
SHARED_RIDGE = 0.1  # on those of CLS and mean: as many weights, and far fewer examples, one a picture
GAIN = 1e4  # of the logits, so that the head's floor counts for little
TILTS = 4001


@dataclass(frozen=True, eq=False)
class Standard:
    """Mean and 1 / spread of a head's input channels (C,), in the order of its weights."""

    mean: torch.Tensor
    scale: torch.Tensor

    def to(self, device: torch.device | str) -> "Standard":
        """Return it on a device."""
        return Standard(self.mean.to(device), self.scale.to(device))

    def fold(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights and bias for raw tokens, out of those for standardised ones.

        Args:
            weight: (bins, C).
            bias: (bins,).

        Returns:
            (bins, C) and (bins,).
        """
        raw = weight * self.scale
        return raw, bias - raw @ self.mean


def standardise(samples: list, layers: int) -> Standard:
    """Return mean and spread over the pictures: of patches, and of what they share (CLS tokens, means).

    Args:
        samples: Of `training.to_sample`.
        layers: Layers whose tokens they hold.
    """
    count = sum(sample.patches.shape[0] * sample.patches.shape[1] for sample in samples)
    mean = (sum(sample.patches.float().sum((0, 1)).double() for sample in samples) / count).float()
    squares = sum((sample.patches.float() - mean).square().sum((0, 1)).double() for sample in samples)
    spread = (squares / count).float().sqrt()
    shared = torch.stack([sample.shared for sample in samples])
    # few pictures have little spread, one has none: they must not blow the next one's up
    least = 0.05 * spread.unflatten(0, (layers, 1, -1)).expand(-1, shared.shape[1] // len(spread), -1).flatten()
    shared_spread = torch.maximum(shared.std(0, correction=0), least)
    scale = 1 / interleave(spread, shared_spread, layers).clamp_min(1e-3)
    return Standard(interleave(mean, shared.mean(0), layers), scale)


def interleave(patch: torch.Tensor, shared: torch.Tensor, layers: int) -> torch.Tensor:
    """Return the channels of patches and of what they share in the order of a head's weights.

    Args:
        patch: (..., L * D).
        shared: (..., L * k * D).
        layers: L.

    Returns:
        (..., L * (1 + k) * D).
    """
    width = patch.shape[-1] // layers
    return torch.cat([part.unflatten(-1, (layers, -1, width)) for part in (patch, shared)], dim=-2).flatten(-3)


def split(both: torch.Tensor, layers: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return patch and shared channels of one vector: the inverse of `interleave`.

    Args:
        both: (L * (1 + k) * D,).
        layers: L.
        width: D.

    Returns:
        (L * D,) and (L * k * D,).
    """
    parts = both.unflatten(-1, (layers, -1, width))
    return parts[:, 0].flatten(), parts[:, 1:].flatten()


def spread_over_bins(depth: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return the flattest distribution over the bins that has each depth as its mean.

    The one of maximum entropy, exp(tilt * centre) normalised, with the tilt looked up in a table. Being smooth in the
    depth, it is close to what a linear map of tokens can follow.

    Args:
        depth: (n,), between the first and the last centre.
        centres: (bins,), ascending.

    Returns:
        (n, bins), rows sum to 1.
    """
    position = torch.linspace(-1, 1, len(centres), dtype=torch.float64)
    tilts = torch.sinh(torch.linspace(-1, 1, TILTS, dtype=torch.float64) * math.asinh(4.0 * len(centres)))
    table = torch.softmax(tilts[:, None] * position, dim=1)
    means = table @ centres.double()
    index = torch.searchsorted(means, depth.double()).clamp(1, TILTS - 1)
    part = ((depth - means[index - 1]) / (means[index] - means[index - 1])).clamp(0, 1)[:, None]
    return torch.lerp(table[index - 1], table[index], part).float()


@torch.no_grad()
def closed_form(
    samples: list, centres: torch.Tensor, standard: Standard, layers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit weights for standardised tokens by ridge regression, in the form of a head.

    Regressed is depth^-1/2 times `spread_over_bins`: the sum over bins is depth^-1/2, the sum weighted with the centres
    depth^1/2, and the head's expectation is their ratio, so that errors count by their share of the depth. As long as
    no bin's weight is below the head's floor, that is linear regression. Each picture adds its patches with a reading;
    what they share, one vector for all of them, enters the normal equations in closed form. All on the CPU, in float32
    and solved in float64.

    Args:
        samples: Of `training.to_sample`.
        centres: Depths of the bins, (bins,).
        standard: Of `standardise`.
        layers: Layers whose tokens the samples hold.

    Returns:
        Weight (bins, C) and bias (bins,).
    """
    gram, moment, count = torch.zeros(()), torch.zeros(()), 0.0  # the first picture gives them their shapes
    width = samples[0].patches.shape[-1] // layers
    (mean, shared_mean), (scale, shared_scale) = (split(v, layers, width) for v in (standard.mean, standard.scale))
    for sample in samples:
        tokens, targets = _readings(sample, centres)
        tokens, n = (tokens - mean) * scale, len(tokens)
        shared = torch.cat([(sample.shared - shared_mean) * shared_scale, torch.ones(1)])
        blocks = _blocks(tokens.T @ tokens, torch.outer(tokens.sum(0), shared), n * torch.outer(shared, shared))
        gram = gram + sample.weight * blocks
        moment = moment + sample.weight * torch.cat([tokens.T @ targets, torch.outer(shared, targets.sum(0))])
        count += sample.weight * n
    if not count:
        raise ValueError("no patch of any picture is half covered by readings; give denser depth maps")
    size, rest = len(mean), len(shared_mean)
    ridge = torch.cat([torch.full((size,), RIDGE), torch.full((rest,), SHARED_RIDGE), torch.full((1,), 1e-6)])
    gram.diagonal().add_(ridge * count)
    found = torch.cholesky_solve(moment.double(), torch.linalg.cholesky(gram.double())).float()  # [C + 1, bins]
    weight = interleave(found[:size].T, found[size:-1].T, layers)
    return GAIN * weight, GAIN * found[-1] - FLOOR


def _readings(sample, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the patches (n, L * D) with readings in at least half of their cells, and what to regress (n, bins)."""
    truth, size = sample.truth[None, None], sample.patches.shape[:2]
    share = functional.adaptive_avg_pool2d((truth > 0).float(), size)[0, 0]
    depth = functional.adaptive_avg_pool2d(truth, size)[0, 0] / share.clamp_min(1e-6)
    judged = share >= 0.5
    depth = depth[judged]
    return sample.patches[judged].float(), spread_over_bins(depth, centres) / depth.sqrt()[:, None]


def _blocks(first: torch.Tensor, cross: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Join the blocks of a symmetric matrix."""
    return torch.cat([torch.cat([first, cross], dim=1), torch.cat([cross.T, last], dim=1)])
