"""Is training worth it? How alike a folder's photos look to a network, against ordinary photos."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..io.files import resource_folder

MOST_ROWS = 1000  # compared with each other
# uniformity of 48 ordinary photos (one of each of 48 ImageNet classes) at 112 px; others are measured on the examples
ORDINARY = {"dinov2-small-offline": -2.64, "dinov2-small-saliency": -1.06}
ALIKE = 0.45  # uniformity below this share of ordinary photos' counts as alike
DULL = -1.5  # a network that spreads ordinary photos less than this is itself in need of training


@dataclass(frozen=True)
class Worth:
    """How alike photos look to a network, and what that says about training on them.

    Attributes:
        uniformity: log of the mean of exp(-2 d^2) over pairs of class tokens of length 1; 0: all alike, -4: spread.
        cosine: Mean cosine of different photos.
        ordinary: Uniformity of ordinary photos for the same network, None where it is not known.
    """

    uniformity: float
    cosine: float
    ordinary: float | None

    @property
    def likely(self) -> bool:
        """Return whether training is likely to help."""
        if self.ordinary is None:
            return self.uniformity > DULL
        return self.ordinary > DULL or self.uniformity > ALIKE * self.ordinary

    @property
    def sentence(self) -> str:
        """Return the finding in a sentence."""
        against = "" if self.ordinary is None else f", ordinary photos {self.ordinary:.2f}"
        numbers = f"uniformity {self.uniformity:.2f}{against}; mean cosine {self.cosine:.2f}"
        if self.ordinary is not None and self.ordinary > DULL:
            return f"Even ordinary photos look alike to this network: training is likely to help ({numbers})."
        if self.likely:
            return f"These photos look alike to this network: training is likely to help ({numbers})."
        return f"This network tells these photos apart well: training is unlikely to help ({numbers})."


def weigh(features: np.ndarray, backbone: str, ordinary: float | None = None) -> Worth:
    """Judge whether training a network on photos is worth it.

    Uniformity is that of Wang and Isola 2020 (arXiv:2005.10242, eq. 2, t = 2).

    Args:
        features: Class tokens of the photos, (n, D).
        backbone: Name of the network, by which ordinary photos' value is looked up.
        ordinary: Uniformity of ordinary photos, where the network has no stored value.

    Raises:
        ValueError: There are fewer than two photos.
    """
    if len(features) < 2:
        raise ValueError(f"photos can only be compared with each other; there must be 2 or more, got {len(features)}")
    rows = np.asarray(features, np.float64)
    rows = rows[:: -(-len(rows) // MOST_ROWS)]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    uniformity = float(np.log(np.exp(-4 * (1 - cosines)).mean()))
    return Worth(uniformity, float(cosines.mean()), ORDINARY.get(backbone, ordinary))


def ordinary_photos() -> list[Path]:
    """Return the example photos: ordinary ones, to compare with for a network that is not in `ORDINARY`."""
    return sorted(resource_folder("assets").glob("*.jpg"))
