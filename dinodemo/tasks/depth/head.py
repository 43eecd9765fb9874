"""The DINOv2 paper's linear depth head: one 1x1 convolution to depth bins, and depth as their expectation."""

import torch
from torch import nn
from torch.nn import functional

BINS = 256
UPSAMPLE = 4  # the head's grid has so many cells along the side of a patch
FLOOR = 0.1  # added to every bin's weight: where all logits are negative the depth is the mean of the bins
KINDS = {"lin1": 1, "lin4": 4}  # kind -> how many layers it reads
PUBLISHED_LAYERS = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23), 40: (9, 19, 29, 39)}


def layer_indices(depth: int, count: int) -> tuple[int, ...]:
    """Choose the layers that a head reads (arXiv:2304.07193, 7.4).

    Args:
        depth: Layers of the backbone.
        count: 1: the last one; 4: the published ones for 12, 24 and 40 layers, else the ends of four equal parts.

    Returns:
        The layers, counted from 0.

    Raises:
        ValueError: Another count, or a backbone with fewer layers.
    """
    if count not in KINDS.values() or depth < count:
        raise ValueError(f"a head reads 1 or 4 layers, got {count} of a backbone with {depth}; choose lin1 or lin4")
    if count == 1:
        return (depth - 1,)
    return PUBLISHED_LAYERS.get(depth) or tuple((i + 1) * depth // 4 - 1 for i in range(4))


def bin_centres(low: float, high: float, bins: int = BINS) -> torch.Tensor:
    """Return the centres of uniform bins, both ends included.

    Args:
        low: Depth of the first bin.
        high: Depth of the last bin.
        bins: How many.

    Returns:
        (bins,) float32, in the unit of the ends.
    """
    return torch.linspace(low, high, bins)


def expected_depth(logits: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Reduce logits to depth by the linear norm of AdaBins (arXiv:2011.14141): a bin weighs relu(logit) + 0.1.

    Args:
        logits: (..., bins, h, w).
        centres: Depths of the bins, (bins,).

    Returns:
        (..., h, w), the weighted mean of the centres, in their unit.
    """
    weights = functional.relu(logits) + FLOOR
    return torch.einsum("...khw,k->...hw", weights, centres) / weights.sum(-3)


class LinearDepthHead(nn.Module):
    """Map tokens of L layers to depth on a grid four times as fine as the patches.

    Attributes `weight` (bins, L * parts * D), a layer's patch channels before its CLS channels and those of the mean, 2
    or 3 parts; `bias` (bins,); `centres` (bins,) depths. The published order is to upsample tokens and then convolve; a
    1x1 convolution and bilinear weights, which sum to 1, can change places, and 256 channels are fewer to upsample than
    3072.

    Args:
        width: D, of one layer's tokens.
        layers: L.
        bins: Number of depths.
        low: Depth of the first bin, m.
        high: Depth of the last bin, m.
        mean: False as published: each patch is joined with its layer's CLS. True joins the mean of the layer's patches
            too, which says more of a picture's scale than CLS alone.
    """

    centres: torch.Tensor  # a buffer

    def __init__(
        self, width: int, layers: int, bins: int = BINS, low: float = 0.001, high: float = 10.0, mean: bool = False
    ):
        super().__init__()
        self.width, self.layers, self.mean = width, layers, mean
        self.weight = nn.Parameter(torch.zeros(bins, layers * (2 + mean) * width))
        self.bias = nn.Parameter(torch.zeros(bins))
        self.register_buffer("centres", bin_centres(low, high, bins))

    def forward(self, patches: torch.Tensor, cls: torch.Tensor) -> torch.Tensor:
        """Return the depth of one picture, (4 h, 4 w).

        Args:
            patches: (h, w, L * D).
            cls: (L * D,).
        """
        shared = shared_tokens(patches, cls, self.layers, self.mean)
        return expected_depth(
            upsampled(token_logits(patches, shared, self.weight, self.bias, self.layers)), self.centres
        )


def shared_tokens(patches: torch.Tensor, cls: torch.Tensor, layers: int, mean: bool) -> torch.Tensor:
    """Return what all patches of a picture are joined with.

    Args:
        patches: (h, w, L * D).
        cls: (L * D,).
        layers: L.
        mean: Join the mean of each layer's patches too.

    Returns:
        (L * D,) float32, with `mean` (L * 2 * D,).
    """
    if not mean:
        return cls.float()
    pooled = patches.float().mean((0, 1))
    return torch.stack([part.unflatten(0, (layers, -1)) for part in (cls.float(), pooled)], dim=1).flatten()


def token_logits(
    patches: torch.Tensor, shared: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, layers: int
) -> torch.Tensor:
    """Return logits on the patch grid; the shared part is one vector for the whole picture.

    Args:
        patches: (h, w, L * D).
        shared: Of `shared_tokens`.
        weight: (bins, L * parts * D).
        bias: (bins,).
        layers: L.

    Returns:
        (bins, h, w).
    """
    width = patches.shape[-1] // layers
    parts = weight.unflatten(1, (layers, -1, width))  # [bins, L, parts, D]
    constant = functional.linear(shared.to(weight.dtype), parts[:, :, 1:].flatten(1), bias)
    return functional.linear(patches.to(weight.dtype), parts[:, :, 0].flatten(1), constant).permute(2, 0, 1)


def upsampled(logits: torch.Tensor, factor: int = UPSAMPLE) -> torch.Tensor:
    """Return maps refined bilinearly, half-pixel centres.

    Args:
        logits: (n, h, w).
        factor: Of each side.

    Returns:
        (n, factor * h, factor * w).
    """
    if factor == 1:
        return logits
    size = [factor * side for side in logits.shape[-2:]]
    return functional.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
