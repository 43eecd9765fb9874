"""Attention maps: where the CLS token (or a clicked patch) looks, head by head and layer by layer."""

from dataclasses import dataclass

import numpy as np

from ...engine.features import Features
from ..tokens import unit

SINK_NORM = 3.0  # times the median norm; Darcet et al. 2024 (arXiv:2309.16588, fig. 3) see a gap between 1x and 3x
SINK_SHARE = 0.2  # of the attention on patches


@dataclass(frozen=True, eq=False)
class AttentionSinks:
    """Describe patches of outlier norm, which large models use as scratch memory instead of for the picture."""

    patches: np.ndarray  # (h, w) bool
    share: float  # of the CLS attention on patches that they hold, 0 to 1

    @property
    def dominate(self) -> bool:
        """Return whether they hold so much attention that the map says little about the picture."""
        return self.share > SINK_SHARE


def attention_of(f: Features) -> np.ndarray:
    """Return the CLS attention of every layer (L, heads, h, w); raises ValueError for features made without."""
    if f.layer_attention is None:
        raise ValueError("these features hold no attention; compute them with attention=True")
    return f.layer_attention


def norms_of(f: Features) -> np.ndarray:
    """Return the norms of the last layer's patch tokens (h, w); raises ValueError for features made without."""
    if f.patch_norms is None:
        raise ValueError("these features hold no patch norms; compute them with an Engine")
    return f.patch_norms


def attention_map(f: Features, head: str | int = "mean", mass: float | None = None, layer: int = -1) -> np.ndarray:
    """Return the CLS attention on patches.

    Args:
        f: features made with attention.
        head: "mean" or "max" over heads, or a head's number from 0.
        mass: keep only the patches that hold this share (0 to 1] of the attention, zero elsewhere (see `keep_mass`).
        layer: 0 is the first, -1 the last.

    Returns:
        (h, w) float32: shares of the softmax over all tokens, not renormalised.

    Raises:
        ValueError: for features without attention, or a head or layer that does not exist.
    """
    rows = attention_of(f)
    depth = len(rows)
    if not -depth <= layer < depth:
        raise ValueError(f"layer must be from 0 to {depth - 1}, got {layer}")
    combined = combine_heads(rows[layer], head)
    return combined if mass is None else keep_mass(combined, mass)


def combine_heads(rows: np.ndarray, head: str | int = "mean") -> np.ndarray:
    """Return the attention of all heads in one map (h, w).

    Args:
        rows: (heads, h, w).
        head: "mean", "max", or the number of one head.
    """
    if head in ("mean", "max"):
        return rows.mean(axis=0) if head == "mean" else rows.max(axis=0)
    if isinstance(head, bool) or not isinstance(head, int | np.integer) or not 0 <= head < len(rows):
        raise ValueError(f'head must be "mean", "max" or a number from 0 to {len(rows) - 1}, got {head!r}')
    return rows[head]


def keep_mass(attention: np.ndarray, mass: float) -> np.ndarray:
    """Zero all but the strongest patches that together hold at least a share of the attention.

    As DINO's visualize_attention.py does with --threshold (Caron et al. 2021, fig. 4: mass 0.6).

    Args:
        attention: (h, w), not negative.
        mass: the share, above 0 and at most 1.

    Returns:
        (h, w) of the same type, zero where patches were dropped.

    Raises:
        ValueError: for a share outside of that range.
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass must be above 0 and at most 1, got {mass}")
    flat = attention.ravel()
    order = np.argsort(-flat, kind="stable")
    before = np.cumsum(flat[order], dtype=np.float64) - flat[order]  # mass held by the patches ahead of each
    kept = order[before < mass * flat.sum(dtype=np.float64)]
    result = np.zeros_like(flat)
    result[kept] = flat[kept]
    return result.reshape(attention.shape)


def cosine_to_patch(f: Features, patch: tuple[int, int]) -> np.ndarray:
    """Return the cosine similarity (h, w), -1 to 1, of every patch token to one of them.

    Args:
        f: Features.
        patch: (row, column) on the grid.
    """
    patches = unit(f.patches)
    return patches @ patches[patch]


def prefix_mass(f: Features, layer: int = -1) -> tuple[float, float]:
    """Return the shares of CLS attention that stay on CLS itself and on the registers, mean over heads, 0 to 1.

    Args:
        f: Features with attention.
        layer: Counted from 0, or below 0 from the last.
    """
    if f.prefix_attention is None:
        raise ValueError("these features hold no attention; compute them with attention=True")
    mean = f.prefix_attention[layer].mean(axis=0)
    return float(mean[0]), float(mean[1:].sum())


def attention_sinks(f: Features, layer: int = -1) -> AttentionSinks:
    """Return the patches whose norm is an outlier, and how much of a layer's attention on patches they hold.

    Args:
        f: Features with attention.
        layer: Counted from 0, or below 0 from the last.
    """
    norms = norms_of(f)
    outliers = norms > SINK_NORM * np.median(norms)
    attention = attention_map(f, "mean", layer=layer)
    return AttentionSinks(outliers, float(attention[outliers].sum() / max(attention.sum(), 1e-12)))
