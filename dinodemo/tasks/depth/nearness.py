"""Near and far within a picture: "the lower is nearer", and what the last layer's tokens add to it.

In pictures unlike the training's it is shown instead of the head's depth; in others both are averaged.

Regressed is log depth minus its mean over the picture, on the last layer's patches minus theirs and on the place in the
picture. A picture's own level, which tells places apart and misleads in new ones, is out of both. The ridge on the
tokens is strong and on the place weak, so that the place is the prior and tokens only correct it. Ridge, layer, and
window were chosen by leaving one place out at a time (`benchmarks/depth.py --places`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from .head import UPSAMPLE
from .upsample import to_pixels

if TYPE_CHECKING:
    from .training import Sample

RIDGE = 2.0  # on the tokens' weights, in variances of a standardised channel
PLACE_RIDGE = 1e-3  # on those of the place in the picture
WINDOW = 0.2  # side of the square over which the map is averaged, as a share of the grid's shorter side
PLACES = 3  # row, its square, the column's square: the same for a mirrored picture
LEAST_PATCHES = 16  # with readings, that a picture needs to count
SHARE = 0.5  # of it in the log depth of a picture like the training's; the rest, and the picture's level, is the head's
MOST = 3.0  # of |log depth| around the picture's middle: e^6 = 400 times from the nearest to the farthest


@dataclass(frozen=True, eq=False)
class Nearness:
    """A linear map of a picture's centred tokens and places to relative log depth.

    Args:
        weight: (D,) float32, of the last layer's patches minus their mean.
        place: (3,) float32, of `places`.
        window: side of the square over which the map is averaged, as a share of the grid's shorter side.
        share: of this map in `refine`, 0 to 1.
    """

    weight: np.ndarray
    place: np.ndarray
    window: float = WINDOW
    share: float = SHARE

    def depth(self, patches: np.ndarray) -> np.ndarray:
        """Return relative depth on the grid of a head, larger is farther, of no scale.

        Args:
            patches: (h, w, L * D) tokens of L layers, the last layer's last.

        Returns:
            (4 h, 4 w) float32, above 0.
        """
        last = patches[..., -len(self.weight) :].astype(np.float32)
        size = last.shape[:2]
        logs = (last - last.mean((0, 1))) @ self.weight + (places(size) @ self.place).reshape(size)
        side = 2 * int(self.window * min(size) / 2) + 1  # odd, so that nothing moves
        logs = cv2.blur(logs.astype(np.float32), (side, side), borderType=cv2.BORDER_REPLICATE)
        depth = np.exp(np.clip(logs - logs.mean(), -MOST, MOST))
        return to_pixels(depth, (UPSAMPLE * size[0], UPSAMPLE * size[1]))

    def facts(self) -> dict[str, float]:
        """Return what a card records of it."""
        return {"ridge": RIDGE, "window": self.window, "share": self.share}

    def refine(self, depth: np.ndarray, patches: np.ndarray) -> np.ndarray:
        """Average a head's log depth with this map's; the mean over the picture stays the head's.

        Args:
            depth: (4 h, 4 w) metres, above 0.
            patches: as in `depth`.

        Returns:
            (4 h, 4 w) float32 metres.
        """
        if not self.share:
            return depth
        own, logs = np.log(self.depth(patches)), np.log(depth)
        middle = logs.mean()
        return np.exp((1 - self.share) * (logs - middle) + self.share * (own - own.mean()) + middle).astype(np.float32)


def places(size: tuple[int, int]) -> np.ndarray:
    """Return row, its square and the column's of each cell of a grid, both from -1 to 1: (h * w, 3) float32."""
    y, x = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1 for side in size)
    y, x = (part.ravel() for part in np.meshgrid(y, x, indexing="ij"))
    return np.stack([y, y * y, x * x], axis=1)


@torch.no_grad()
def fit_nearness(samples: Sequence["Sample"], width: int) -> Nearness | None:
    """Fit the map in closed form, on the CPU; every picture counts by its weight, however many readings it has.

    Args:
        samples: Of `training.to_sample`.
        width: D, of one layer's tokens.

    Returns:
        The map; None where no picture has readings on `LEAST_PATCHES` patches.
    """
    total, gram, moment, spread = 0.0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for sample in samples:
        found = _rows(sample, width)
        if found is None:
            continue
        rows, logs, variance = found
        share = sample.weight / len(rows)
        gram, moment = gram + share * (rows.T @ rows), moment + share * (rows.T @ logs)
        spread, total = spread + sample.weight * variance, total + sample.weight
    if not total:
        return None
    # the ridge in the unit of each channel, which is the ridge of standardised channels
    ridge = torch.cat([RIDGE * (spread / total).clamp_min(1e-6), torch.full((PLACES,), PLACE_RIDGE)])
    system = (gram / total).double() + torch.diag(ridge).double()
    solved = torch.linalg.solve(system, (moment / total).double()).float().numpy()
    return Nearness(solved[:width], solved[width:])


def _rows(sample: "Sample", width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Return a picture's centred rows (n, D + 3) and log depths (n,) where it has readings, and its variances (D,)."""
    last = sample.patches[..., -width:].float()
    h, w = last.shape[:2]
    cells = sample.truth.reshape(h, sample.truth.shape[0] // h, w, -1).transpose(1, 2).reshape(h * w, -1)
    valid = cells > 0
    judged = valid.float().mean(1) >= 0.5
    if judged.sum() < LEAST_PATCHES:
        return None
    logs = torch.log((cells * valid).sum(1)[judged] / valid.sum(1)[judged])
    tokens = last.reshape(h * w, width)
    rows = torch.cat([tokens, torch.from_numpy(places((h, w)))], dim=1)[judged]
    return rows - rows.mean(0), logs - logs.mean(), tokens.var(0, correction=0)
