"""Pairs of photos and depth maps, and what was taken for granted when they were read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

METRES, RELATIVE = "metres", "relative"


@dataclass(frozen=True, eq=False)
class RGBDPair:
    """A photo and its depth map; unpacks to (image, depth).

    Args:
        image: a path, or the encoded bytes of a photo out of a zip.
        depth: (H, W) float32, 0 where there is no reading; larger is farther.
        name: of the photo, inside the folder or zip.
        group: scene by depth.json, else the photo's folder without rgb/ or images/; "" where all lie in one.
        split: by depth.json ("train", "val", "test"), else "".
        depth_name: of the depth map's file.
        by: what the two were found to belong together by.
        unit: "metres", or "relative" for depth without a unit.
    """

    image: Path | bytes
    depth: np.ndarray
    name: str
    group: str
    split: str
    depth_name: str = ""
    by: str = ""
    unit: str = METRES

    def __iter__(self) -> Iterator:
        return iter((self.image, self.depth))


@dataclass(frozen=True)
class PairsInfo:
    """What was taken for granted when pairs were read; to be shown before training.

    Args:
        unit: "metres" or "relative".
        scale: metres a unit of the files, by kind of numbers ("i" whole, "f" others); empty without a unit.
        inverse: whether larger numbers in the files are nearer.
        median: of all readings, in the unit.
        messages: sentences on unit, direction and what was left out.
        warnings: those that need an answer.
    """

    unit: str = METRES
    scale: dict[str, float] = field(default_factory=dict)
    inverse: bool = False
    median: float = 0.0
    messages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class PairList(list[RGBDPair]):
    """Pairs with what was taken for granted when they were read (`info`)."""

    def __init__(self, pairs: Iterable[RGBDPair] = (), info: PairsInfo | None = None):
        super().__init__(pairs)
        self.info = info or PairsInfo()
