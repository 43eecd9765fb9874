"""The world of a probe: which pictures are like those that it was trained on, so that its metres can be believed.

A picture is described by its last layer's class token and mean patch, each of unit length. It is outside of the world
when the nearest training picture is farther away than those of held-out pictures of the same world are. Whitened
directions and the distance from their span were tried as well, and kept the metres of more outdoor photos.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CORESET = 128  # descriptors kept at most
LEAST_PICTURES = 8  # with fewer nothing can be said
LEAST_HELD_OUT = 3
KEPT_SHARE = 0.95  # of held-out pictures of the same world that surely keep their metres
SLACK = 1.1  # of the distance, because few pictures tell little of the end of a distribution


@dataclass(frozen=True, eq=False)
class World:
    """A compact model of training pictures.

    Args:
        coreset: (n, F) float32 descriptors, spread over all.
        threshold: the largest distance to the coreset inside.
    """

    coreset: np.ndarray
    threshold: float

    def distance(self, descriptor: np.ndarray) -> float:
        """Return the Euclidean distance of a picture's descriptor (F,) to the nearest of the coreset."""
        return float(np.sqrt(((self.coreset - descriptor) ** 2).sum(1).min()))

    def holds(self, descriptor: np.ndarray) -> bool:
        """Return whether a picture with this descriptor (F,) is like the training pictures."""
        return self.distance(descriptor) <= self.threshold


def describe_picture(patches: np.ndarray, cls: np.ndarray, layers: int) -> np.ndarray:
    """Return a picture's descriptor (2 D,) of unit parts: the last layer's class token and mean patch.

    Args:
        patches: (h, w, L * D) tokens of L layers, the last layer's last.
        cls: (L * D,) class tokens.
        layers: L.
    """
    width = len(cls) // layers
    parts = cls[-width:].astype(np.float32), patches[..., -width:].astype(np.float32).mean((0, 1))
    return np.concatenate([part / max(float(np.linalg.norm(part)), 1e-6) for part in parts])


def fit_world(descriptors: Sequence[np.ndarray], held_out: Sequence[np.ndarray] = ()) -> World | None:
    """Learn which pictures belong to a world.

    Args:
        descriptors: (F,) of the training pictures, one each.
        held_out: of pictures of the same world that were not trained on; they set the threshold. Without them each
            training picture is compared with all others but its neighbours in order.

    Returns:
        The world; None for fewer than `LEAST_PICTURES` pictures.
    """
    if len(descriptors) < LEAST_PICTURES:
        return None
    points = np.stack(descriptors).astype(np.float32)
    coreset = points[_spread_out(points, CORESET)].astype(np.float16).astype(np.float32)  # as files keep it
    model = World(coreset, np.inf)
    distances = [model.distance(one) for one in held_out] if len(held_out) >= LEAST_HELD_OUT else _left_out(points)
    return World(coreset, max(SLACK * float(np.quantile(distances, KEPT_SHARE)), 1e-3))


def _left_out(points: np.ndarray) -> list[float]:
    """Return each picture's distance to the nearest that is no neighbour in order: a walk's next frame is the same."""
    count, gap = len(points), max(1, len(points) // 20)
    apart = np.sqrt(np.maximum(2 * 2 - 2 * points @ points.T, 0))  # two unit parts each
    near = np.abs(np.arange(count)[:, None] - np.arange(count)) <= gap
    return np.where(near, np.inf, apart).min(1).tolist()


def _spread_out(points: np.ndarray, most: int) -> list[int]:
    """Choose indices greedily, each time the point farthest from those chosen (Gonzalez 1985)."""
    if len(points) <= most:
        return list(range(len(points)))
    chosen = [int(np.argmin(((points - points.mean(0)) ** 2).sum(1)))]
    nearest = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < most:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1))
    return chosen
