"""Instances: the separate objects of a mask, numbered, each with its area and box."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

SMALLEST = 0.0005  # of the picture; smaller specks are no instances
WORK_SIDE = 320  # pixels of the longer side at which touching objects are split
NECK = 0.72  # two parts are two objects when the neck between them is narrower than this share of the smaller one
LEAST_PART = 0.12  # of its neighbour: smaller parts are limbs, not objects
SMOOTH = 0.03  # of the side: bumps of an outline below it are no parts


@dataclass(frozen=True)
class Instance:
    """Describe one object of a mask.

    Attributes:
        number: 1 is the largest.
        area: in pixels.
        box: x0, y0, x1, y1 in pixels; x1 and y1 lie just outside.
        center: x, y in pixels.
    """

    number: int
    area: int
    box: tuple[int, int, int, int]
    center: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Instances:
    """Represent the objects of a mask, the largest first.

    Attributes:
        labels: (H, W) int32, 0 for none, else the instance's number.
        items: the instances.
    """

    labels: np.ndarray
    items: tuple[Instance, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self):
        return iter(self.items)

    def mask(self, numbers: Iterable[int] | None = None) -> np.ndarray:
        """Return the mask (H, W) bool of the instances with these numbers; of all when None."""
        return self.labels > 0 if numbers is None else np.isin(self.labels, list(numbers))


def find_instances(mask: np.ndarray, smallest: float = SMALLEST, split: bool = True) -> Instances:
    """Split a mask into its objects: connected pieces, diagonal neighbours included, cut where they only touch.

    Args:
        mask: (H, W) bool.
        smallest: pieces below this share of the picture are left out.
        split: cut pieces at narrow necks, where two objects touch.

    Returns:
        The objects, each with its pixels.
    """
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    kept = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= smallest * mask.size]
    labels = np.zeros(mask.shape, np.int32)
    total = 0
    for i in kept:
        x, y, width, height = (int(v) for v in stats[i, :4])
        window = (slice(y, y + height), slice(x, x + width))
        piece = pieces[window] == i
        parts = _split(piece) if split else piece.astype(np.int32)
        labels[window][piece] = parts[piece] + total
        total += int(parts.max())
    return _described(labels, total)


def _described(labels: np.ndarray, total: int) -> Instances:
    """Number the labels 1 to total by area and describe each."""
    areas = np.bincount(labels.ravel(), minlength=total + 1)
    order = [i for i in np.argsort(-areas[1:], kind="stable") + 1 if areas[i]]
    numbers = np.zeros(total + 1, np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    labels = numbers[labels]
    items = []
    for number in range(1, len(order) + 1):
        rows, columns = np.nonzero(labels == number)
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        items.append(Instance(number, len(rows), box, (float(columns.mean()), float(rows.mean()))))
    return Instances(labels, tuple(items))


def _split(piece: np.ndarray) -> np.ndarray:
    """Return the objects (H, W) int32, 1 to n, of one connected piece (H, W) bool, cut at its narrow necks."""
    scale = min(1.0, WORK_SIDE / max(piece.shape))
    size = tuple(max(1, round(side * scale)) for side in piece.shape)
    small = cv2.resize(
        piece.astype(np.uint8), size[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    )
    padded = np.pad(_filled(small), 2)
    distance = cv2.GaussianBlur(cv2.distanceTransform(padded, cv2.DIST_L2, 5), (0, 0), max(1.0, SMOOTH * max(size)))
    parts = _basins(distance, padded > 0)
    parts = _merge(parts, distance)
    if parts.max() < 2:
        return piece.astype(np.int32)
    inner = parts[2:-2, 2:-2]
    large = cv2.resize(inner.astype(np.float32), piece.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.int32)
    return _nearest_part(large, piece)


def _filled(mask: np.ndarray) -> np.ndarray:
    """Return a mask (H, W) uint8 with its holes filled: a ring is one object."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(mask), contours, -1, 1, -1)


def _basins(distance: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the catchment (H, W) int32, 1 to n, of every peak of the distance to the outline."""
    peaks = (distance >= cv2.dilate(distance, np.ones((5, 5), np.uint8)) - 1e-6) & inside & (distance > 1)
    count, markers = cv2.connectedComponents(peaks.astype(np.uint8), connectivity=8)
    height = np.rint(255 * (1 - distance / max(float(distance.max()), 1e-6))).astype(np.uint8)
    markers[~inside] = count  # the ground is a basin of its own, or it would be flooded
    flooded = cv2.watershed(np.repeat(height[..., None], 3, axis=2), markers.astype(np.int32))
    flooded[(flooded == count) | ~inside] = 0
    return np.where(flooded < 0, 0, flooded)


def _merge(parts: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Unite basins whose neck is wide or that are too small to be objects of their own; returns 0, 1 to n."""
    while True:
        candidates = []
        for a, b, neck in _necks(parts, distance):
            radii = [float(distance[parts == i].max()) for i in (a, b)]
            areas = [int((parts == i).sum()) for i in (a, b)]
            if neck > NECK * min(radii) or min(areas) < LEAST_PART * max(areas):
                candidates.append((neck / min(radii), a, b))
        if not candidates:
            break
        _, a, b = max(candidates)
        parts = np.where(parts == b, a, parts)
    numbers = np.zeros(int(parts.max()) + 1, np.int32)
    found = [i for i in np.unique(parts) if i > 0]
    numbers[found] = np.arange(1, len(found) + 1)
    return numbers[parts]


def _necks(parts: np.ndarray, distance: np.ndarray) -> list[tuple[int, int, float]]:
    """Return which basins touch (watershed lines count as both), and half the width of the neck between them."""
    reach = np.ones((5, 5), np.uint8)
    near = {int(i): cv2.dilate((parts == i).astype(np.uint8), reach) > 0 for i in np.unique(parts) if i > 0}
    found = []
    names = sorted(near)
    for k, a in enumerate(names):
        for b in names[k + 1 :]:
            seam = near[a] & near[b]
            if seam.any():
                found.append((a, b, float(distance[seam].max())))
    return found


def _nearest_part(labels: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Assign to the pixels of a piece that have no label that of the nearest labelled one."""
    missing = piece & (labels == 0)
    if not missing.any():
        return np.where(piece, labels, 0)
    _, nearest = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros(int(nearest.max()) + 1, np.int32)
    table[nearest[labels > 0]] = labels[labels > 0]
    return np.where(piece, table[nearest], 0)
