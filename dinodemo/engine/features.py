"""What the network says of one picture: a frozen value that tasks read and nobody changes."""

from dataclasses import dataclass

import numpy as np

from ..backbones.identity import Identity


@dataclass(frozen=True, eq=False)
class Features:
    """One picture's tokens and attention. Arrays are float32 and read-only.

    L layers, R registers, D width, (h, w) patch grid. Attention rows are those of the CLS token after softmax over
    all tokens, so a layer's patches, registers and CLS itself sum to 1 per head.
    """

    cls: np.ndarray  # (D,) final-norm CLS token
    patches: np.ndarray  # (h, w, D) final-norm patch tokens
    registers: np.ndarray  # (R, D) final-norm register tokens
    image_size: tuple[int, int]  # (H, W) of the upright picture
    input_size: tuple[int, int]  # (H, W) seen by the network
    backbone: str  # name of the backbone that made them
    layer_attention: np.ndarray | None = None  # (L, heads, h, w) CLS to patches, not renormalised; None unless asked
    prefix_attention: np.ndarray | None = None  # (L, heads, 1 + R) CLS to itself and to the registers
    patch_norms: np.ndarray | None = None  # (h, w) L2 norms of the last layer's patch tokens before the final norm
    identity: Identity | None = None  # which weights made them; the engine always says it

    def __post_init__(self):
        for array in self._arrays():
            array.flags.writeable = False

    @property
    def attention(self) -> np.ndarray | None:
        """Return the last layer's CLS attention (heads, h, w), or None when it was not asked for."""
        return None if self.layer_attention is None else self.layer_attention[-1]

    @property
    def grid(self) -> tuple[int, int]:
        """Return the patch grid (h, w)."""
        return self.patches.shape[:2]

    @property
    def nbytes(self) -> int:
        """Return the memory held, in bytes."""
        return sum(array.nbytes for array in self._arrays())

    def _arrays(self) -> list[np.ndarray]:
        arrays = (self.cls, self.patches, self.registers, self.layer_attention, self.prefix_attention, self.patch_norms)
        return [a for a in arrays if a is not None]
