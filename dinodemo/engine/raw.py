"""One picture's output of the network, as the cache keeps it."""

from dataclasses import dataclass

import numpy as np
import torch

from ..backbones.network import Tokens


@dataclass(frozen=True)
class Raw:
    """One picture's output of the network as float32 arrays: what `vit.Tokens` holds for a batch."""

    layers: dict[int, np.ndarray]  # layer -> (T, D)
    rows: np.ndarray | None  # (L, heads, r, T)
    norms: np.ndarray  # (T,)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all arrays."""
        rows = 0 if self.rows is None else self.rows.nbytes
        return sum(a.nbytes for a in self.layers.values()) + rows + self.norms.nbytes


def to_raw(output: Tokens, i: int) -> Raw:
    """Return the i-th picture's part of a batch's output, copied to the CPU."""
    layers = {layer: _read_only(tokens[i]) for layer, tokens in output.layers.items()}
    rows = None if output.rows is None else _read_only(output.rows[i])
    return Raw(layers, rows, _read_only(output.norms[i]))


def _read_only(tensor: torch.Tensor) -> np.ndarray:
    # copied: a view would keep the whole batch alive in the cache
    array = np.array(tensor.float().cpu().numpy(), order="C")
    array.flags.writeable = False
    return array
