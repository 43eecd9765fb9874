"""The projection head of DINO and iBOT: an MLP, a bottleneck on the unit sphere, and prototypes of unit length."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DINOHead(nn.Module):
    """Project tokens on prototypes: (..., in_dim) -> (..., out_dim) logits.

    Caron et al. 2021 (arXiv:2104.14294), appendix C: linear layers with GELU between, L2 normalisation, and a linear
    layer whose rows are kept at length 1. Its state has the published names (mlp.*, last_layer.weight_g, _v).

    Args:
        in_dim: Width of the tokens.
        out_dim: Number of prototypes.
        hidden_dim: Width between the linear layers.
        bottleneck_dim: Width of what is normalised.
        nlayers: Linear layers before the prototypes, 1 or more.
    """

    def __init__(self, in_dim: int, out_dim: int, hidden_dim: int = 2048, bottleneck_dim: int = 256, nlayers: int = 3):
        super().__init__()
        if nlayers < 1:
            raise ValueError(f"a head needs 1 layer or more, got nlayers={nlayers}")
        widths = [in_dim, *[hidden_dim] * (nlayers - 1), bottleneck_dim]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1]) if nlayers > 1 else layers[0]
        self.apply(_init)
        self.last_layer = Prototypes(bottleneck_dim, out_dim)

    def bottleneck(self, tokens: Tensor) -> Tensor:
        """Return unit vectors (..., bottleneck_dim)."""
        hidden = self.mlp(tokens)
        # half precision knows no number as small as float32's epsilon
        return F.normalize(hidden, dim=-1, p=2, eps=1e-6 if hidden.dtype == torch.float16 else 1e-12)

    def prototypes(self, bottleneck: Tensor) -> Tensor:
        """Return the cosines (..., out_dim) of unit vectors to the prototypes."""
        return self.last_layer(bottleneck)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (..., out_dim)."""
        return self.prototypes(self.bottleneck(tokens))


class Prototypes(nn.Module):
    """Map with rows of fixed length: weight = weight_g * weight_v / |weight_v|, weight_g stays 1 (Salimans 2016).

    Args:
        in_dim: Columns.
        out_dim: Rows.
    """

    weight_g: Tensor

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.weight_v = nn.Parameter(torch.empty(out_dim, in_dim))
        nn.init.trunc_normal_(self.weight_v, std=0.02)
        self.register_buffer("weight_g", torch.ones(out_dim, 1))

    def forward(self, bottleneck: Tensor) -> Tensor:
        """Return (..., out_dim) products with the rows."""
        return F.linear(bottleneck, self.weight_g * F.normalize(self.weight_v, dim=1))


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
