"""Where in a hit the query is: a similarity map over its patches, a box around the best place; and the re-ranking."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...engine.features import Features
from ..tokens import centred, mutual_nearest, unit
from .results import Box, Hit

VOTES = 0.5  # weight of the patches' votes beside the similarity to the class token
PEAK_SHARE = 0.5  # how far down from peak to mean the outlined place reaches
RERANK_FIRST, RERANK_WEIGHT = 50, 0.5

FeaturesOf = Callable[[Hit], Features | None]  # None when the hit's photo is gone


def rerank(query: Features, hits: list[Hit], features_of: FeaturesOf) -> list[Hit]:
    """Return the hits by their score and the similarity of mutually nearest patches; photos that are gone go last.

    Args:
        query: Of the photo that was searched for.
        hits: To order.
        features_of: Gives a hit's features, None where its photo is gone.
    """
    scored = []
    for hit in hits:
        found = features_of(hit)
        both = (hit.score + RERANK_WEIGHT * mutual_similarity(query, found)) / (1 + RERANK_WEIGHT) if found else -1.0
        scored.append(replace(hit, score=both))
    return sorted(scored, key=lambda hit: -hit.score)


def outline(query: Features, token: np.ndarray, hits: list[Hit], features_of: FeaturesOf) -> list[Hit]:
    """Return the hits, each with the region most similar to the query; None where its photo is gone.

    Args:
        query: Of the region that was searched for.
        token: (D,), the query's vector less the index's mean.
        hits: To outline.
        features_of: Gives a hit's features, None where its photo is gone.
    """
    found = [(hit, features_of(hit)) for hit in hits]
    return [replace(h, region=best_location(similarity_map(query, token, f), h.size)) if f else h for h, f in found]


def crop(rgb: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the part of a picture inside of a box.

    Args:
        rgb: (H, W, 3).
        box: x0, y0, x1, y1 in pixels.

    Raises:
        ValueError: The box covers no pixel of the picture.
    """
    height, width = rgb.shape[:2]
    x0, x1 = (int(np.clip(round(x), 0, width)) for x in sorted((box[0], box[2])))
    y0, y1 = (int(np.clip(round(y), 0, height)) for y in sorted((box[1], box[3])))
    if x1 - x0 < 4 or y1 - y0 < 4:
        raise ValueError(
            f"the region {tuple(round(v) for v in box)} covers too little of the {width} x {height} picture; "
            "draw a box of at least 4 pixels a side inside it"
        )
    return np.ascontiguousarray(rgb[y0:y1, x0:x1])


def similarity_map(query: Features, token: np.ndarray, hit: Features) -> np.ndarray:
    """Return how similar each patch of a hit is to the query.

    Two maps are added, each with variance 1: the cosine with the token, and the votes of the query's patches, each for
    the patch most similar to it.

    Args:
        query: Of the photo that was searched for.
        token: (D,), the query's vector less the index's mean.
        hit: Features of the hit.

    Returns:
        (h, w), mean 0.
    """
    here, asked = centred(hit.patches), centred(query.patches)
    cosines = asked @ here.T
    votes = np.bincount(cosines.argmax(axis=1), np.clip(cosines.max(axis=1), 0, None), minlength=len(here))
    grid = hit.patches.shape[:2]
    return _standard((here @ unit(token)).reshape(grid)) + VOTES * _standard(_smooth(votes.reshape(grid)))


def best_location(similarity: np.ndarray, size: tuple[int, int]) -> Box:
    """Return the box around the peak's patches: those that are linked to it and more than half as high.

    Args:
        similarity: (h, w).
        size: (H, W) of the photo, which the map covers.

    Returns:
        x0, y0, x1, y1 in pixels of the photo.
    """
    import cv2

    smooth = _smooth(similarity)
    high = smooth >= smooth.max() - PEAK_SHARE * (smooth.max() - smooth.mean())
    _, parts = cv2.connectedComponents(high.astype(np.uint8), connectivity=4)
    y, x = np.nonzero(parts == parts[np.unravel_index(smooth.argmax(), smooth.shape)])
    down, right = size[0] / similarity.shape[0], size[1] / similarity.shape[1]
    return (round(x.min() * right), round(y.min() * down), round((x.max() + 1) * right), round((y.max() + 1) * down))


def mutual_similarity(query: Features, hit: Features) -> float:
    """Return the mean cosine of the patches that are each other's nearest in two photos; 0 when there are none.

    Args:
        query: Features of one photo.
        hit: Features of the other.
    """
    cosines = centred(query.patches) @ centred(hit.patches).T
    rows, columns = mutual_nearest(cosines)
    return float(cosines[rows, columns].mean()) if len(rows) else 0.0


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(values.std(), 1e-9)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Average each patch with its eight neighbours; (h, w)."""
    padded = np.pad(values, 1, mode="edge")
    h, w = values.shape
    return sum((padded[y : y + h, x : x + w] for y in range(3) for x in range(3)), np.zeros_like(values)) / 9
