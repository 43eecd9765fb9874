"""What a fit of a depth probe works on: checked pairs, what is held out, tokens computed once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...io.images import ImageSource, Photo, as_photo
from .dataset import check_aspect, choose_held_out, prepare, scene_weights, without_scale
from .tokens import flipped, read_tokens
from .training import Sample, feature_type, to_sample
from .world import describe_picture

if TYPE_CHECKING:
    from .probe import DepthProbe

Progress = Callable[[int, int, str], None]  # done, total, message
Pair = tuple[ImageSource | Photo, np.ndarray]  # a photo, its depth (H, W); an `RGBDPair` unpacks to it
Pairs = Iterable[Any]  # of Pair or RGBDPair


@dataclass(frozen=True, eq=False)
class Parts:
    """Checked pairs (image, depth) to train on and held out, the latter's indices, remarks, weights, direction."""

    chosen: list[Pair]
    held: list[Pair]
    held_out: list[int]
    remarks: tuple[str, ...]
    weights: list[float]
    inverse: bool

    @property
    def depths(self) -> list[np.ndarray]:
        return [depth for _, depth in self.chosen]


def apart(pairs: Pairs) -> tuple[list, list[np.ndarray]]:
    """Return images and depth maps."""
    listed = list(pairs)
    return [image for image, _ in listed], [depth for _, depth in listed]


def direction(pairs: Sequence, inverse: bool | None) -> bool | None:
    """Return `inverse` for pairs of numbers as files have them, False for those that `read_pairs` has turned."""
    return False if any(hasattr(pair, "unit") for pair in pairs) else inverse


def split_pairs(probe: "DepthProbe", pairs: Pairs, val: Pairs | None, groups: Sequence[str] | None) -> Parts:
    """Check the pairs, and choose what to train on and what to measure on."""
    listed, measured = list(pairs), list(val or ())
    if not listed:
        raise ValueError("no pairs to train on; give at least one photo with its depth map")
    if not probe.relative and any(getattr(pair, "unit", "metres") == "relative" for pair in (*listed, *measured)):
        raise ValueError(
            "these depth maps have no unit: train with DepthProbe(relative=True), or say what unit they have"
        )
    images, depths = apart(listed)
    found = prepare(depths, probe.relative, direction(listed, probe.inverse))
    ready = list(zip(images, found.depths, strict=True))
    remarks = (*found.messages, *found.warnings)
    if groups is not None and len(groups) != len(listed):
        raise ValueError(f"groups must name a scene for each of the {len(listed)} pairs, got {len(groups)}")
    if measured:
        images, depths = apart(measured)
        held = prepare(depths, probe.relative, direction(measured, found.inverse), "held-out pair")
        return Parts(
            ready,
            list(zip(images, held.depths, strict=True)),
            list(range(len(measured))),
            remarks,
            scene_weights(groups),
            found.inverse,
        )
    chosen, indices = choose_held_out(len(ready), groups)
    weights = scene_weights([groups[i] for i in chosen] if groups else None)
    return Parts([ready[i] for i in chosen], [ready[i] for i in indices], indices, remarks, weights, found.inverse)


class Reader:
    """Compute every picture's tokens once, and count what is done."""

    def __init__(self, probe: "DepthProbe", engine, layers, head, progress: Progress | None, pictures: int):
        self.probe, self.engine, self.layers, self.head, self.pictures = probe, engine, layers, head, pictures
        self.done, self.total = 0, pictures + probe.epochs
        self._dtype: type | None = None
        self._descriptors: list[np.ndarray] = []
        self._progress = progress or (lambda done, total, message: None)

    def step(self, message: str) -> None:
        self.done = min(self.done + 1, self.total)
        self._progress(self.done, self.total, message)

    def read(self, pairs: list[tuple], flips: bool, weights: list[float] | None = None) -> list[Sample]:
        """Return a sample for each pair, and for its mirror image right after it where `flips`."""
        samples = []
        for i, (image, depth) in enumerate(pairs):
            photo = as_photo(image)
            check_aspect(photo, depth, i)
            if self.probe.relative:
                depth = without_scale(depth)
            for view, truth in [(photo, depth), (flipped(photo), depth[:, ::-1])][: 2 if flips else 1]:
                patches, cls = read_tokens(self.engine, view, self.layers, self.probe.resolution)
                if view is photo:
                    self._descriptors.append(describe_picture(patches, cls, len(self.layers)))
                self._dtype = self._dtype or feature_type(patches, self.pictures)
                sample = to_sample(self.head, patches, cls, truth, self._dtype)
                samples.append(replace(sample, weight=weights[i]) if weights else sample)
                self.step(f"features of picture {i + 1} of {len(pairs)}")
        return samples

    def descriptors(self, trained: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the descriptors of pictures trained on and held out, read in this order."""
        return self._descriptors[:trained], self._descriptors[trained:]
