"""The world of a probe: which pictures are like those that it was trained on, so that its metres can be believed.

A picture is described by its last layer's class token and mean patch, projected on a few whitened directions of the
training pictures; a picture whose nearest training picture is farther than those of held-out ones is outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DIRECTIONS = 16  # at most; of n pictures there are n - 1
CORESET = 128  # descriptors kept at most
LEAST_PICTURES = 8  # with fewer nothing can be said
KEPT_SHARE = 0.95  # of held-out pictures of the same world that keep their metres
SLACK = 1.1  # of the distance, because few pictures tell little of the end of a distribution


@dataclass(frozen=True, eq=False)
class World:
    """A compact model of training pictures.

    Args:
        mean: (F,) of their descriptors.
        basis: (k, F) directions, scaled so that the training pictures have variance 1 along each.
        coreset: (n, k) projected descriptors, spread over all.
        threshold: the largest distance to the coreset inside.
    """

    mean: np.ndarray
    basis: np.ndarray
    coreset: np.ndarray
    threshold: float

    def distance(self, descriptor: np.ndarray) -> float:
        """Return the distance of a picture's descriptor (F,) to the nearest of the coreset, in standard deviations."""
        place = self.basis @ (descriptor - self.mean)
        return float(np.sqrt(((self.coreset - place) ** 2).sum(1).min() / len(self.basis)))

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
    points = np.stack(descriptors).astype(np.float64)
    mean = points.mean(0)
    _, spread, directions = np.linalg.svd(points - mean, full_matrices=False)
    count = min(DIRECTIONS, len(points) - 1)
    spread = spread[:count] / np.sqrt(len(points))
    basis = directions[:count] / np.maximum(spread, 1e-3 * spread[0])[:, None]
    places = (points - mean) @ basis.T
    coreset = places[_spread_out(places, CORESET)]
    mean, basis, coreset = (part.astype(np.float16).astype(np.float32) for part in (mean, basis, coreset))
    model = World(mean, basis, coreset, np.inf)
    distances = [model.distance(one) for one in held_out] if len(held_out) >= 3 else _left_out(places)
    threshold = SLACK * float(np.quantile(distances, KEPT_SHARE))
    return World(model.mean, model.basis, model.coreset, threshold)


def _left_out(places: np.ndarray) -> list[float]:
    """Return each picture's distance to the nearest that is no neighbour in order: a walk's next frame is the same."""
    count, gap = len(places), max(1, len(places) // 20)
    apart = np.sqrt(((places[:, None] - places[None]) ** 2).sum(-1) / places.shape[1])
    near = np.abs(np.arange(count)[:, None] - np.arange(count)) <= gap
    return np.where(near, np.inf, apart).min(1).tolist()


def _spread_out(places: np.ndarray, most: int) -> list[int]:
    """Choose indices greedily, each time the point farthest from those chosen (Gonzalez 1985)."""
    if len(places) <= most:
        return list(range(len(places)))
    chosen = [int(np.argmin(((places - places.mean(0)) ** 2).sum(1)))]
    nearest = ((places - places[chosen[0]]) ** 2).sum(1)
    while len(chosen) < most:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((places - places[chosen[-1]]) ** 2).sum(1))
    return chosen
