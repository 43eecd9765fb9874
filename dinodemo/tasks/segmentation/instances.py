"""Instances: the separate pieces of a mask, numbered, each with its area and box."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

SMALLEST = 0.0005  # of the picture; smaller specks are no instances


@dataclass(frozen=True)
class Instance:
    """Describe one piece of a mask."""

    number: int  # 1 is the largest
    area: int  # pixels
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 lie just outside
    center: tuple[float, float]  # x, y in pixels


@dataclass(frozen=True, eq=False)
class Instances:
    """Hold the pieces of a mask, the largest first."""

    labels: np.ndarray  # (H, W) int32: 0 for none, else the instance's number
    items: tuple[Instance, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self):
        return iter(self.items)

    def mask(self, numbers: Iterable[int] | None = None) -> np.ndarray:
        """Return the mask (H, W) bool of the instances with these numbers; of all when None."""
        return self.labels > 0 if numbers is None else np.isin(self.labels, list(numbers))


def find_instances(mask: np.ndarray, smallest: float = SMALLEST) -> Instances:
    """Split a mask (H, W) bool into its connected pieces, diagonal neighbours included.

    smallest: pieces below this share of the picture are left out.
    """
    count, labels, stats, centers = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = [i for i in range(1, count) if areas[i] >= smallest * mask.size]
    kept.sort(key=lambda i: -areas[i])
    numbers = np.zeros(count, np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    items = []
    for number, i in enumerate(kept, start=1):
        x, y, width, height = (int(v) for v in stats[i, :4])
        center = (float(centers[i][0]), float(centers[i][1]))
        items.append(Instance(number, int(areas[i]), (x, y, x + width, y + height), center))
    return Instances(numbers[labels], tuple(items))
