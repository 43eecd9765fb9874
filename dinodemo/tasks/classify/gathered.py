"""Photos read for a classifier: their tokens, small pictures for the page, and what could not be read."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...io.files import is_photo
from ...io.images import DAMAGE, Photo, fit_within, load_photo
from ..retrieval.sources import Item, Problem

if TYPE_CHECKING:
    from .classifier import PhotoClassifier

THUMBNAIL = 160  # pixels of the longer side
EXAMPLES = {  # shipped photos -> the class they are an example of
    "dandelions": "flower",
    "flower_dahlia": "flower",
    "cat_chelsea": "animal",
    "two_dogs_balcony": "animal",
    "mountain_path": "landscape",
    "forest_stream": "landscape",
    "coffee_cup": "drink",
    "room_wine": "drink",
}


@dataclass
class Gathered:
    """Photos, each with tokens and a small picture.

    Args:
        names: Of the photos, their paths.
        labels: Of each, empty where there is none.
        pairs: (2, D) class token and patch mean of each.
        thumbs: JPEG of each.
        problems: (file, reason) of what was left out.
    """

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    pairs: list[np.ndarray] = field(default_factory=list)
    thumbs: list[bytes] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def tokens(self) -> np.ndarray:
        """Return (N, 2, D) float32."""
        return np.stack(self.pairs)

    def counts(self) -> dict[str, int]:
        """Return the photos of each label."""
        names, counts = np.unique(self.labels, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def thumb(self, row: int) -> Image.Image:
        """Return a photo's small picture."""
        return Image.open(io.BytesIO(self.thumbs[row])).convert("RGB")


@dataclass(frozen=True, eq=False)
class Fitted:
    """A classifier, or None while there is one class only, and the photos it was made of."""

    classifier: PhotoClassifier | None
    photos: Gathered
    note: str = ""


def gather(
    classifier: PhotoClassifier,
    items: Iterable[Item],
    labels: Iterable[str],
    progress: Callable[[int, int, str], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Gathered:
    """Read photos and compute their tokens, a batch at a time; those that cannot be read are left out with a reason.

    Args:
        classifier: With its engine.
        items: The photos.
        labels: Of each, empty where there is none.
        progress: Called as progress(done, total, message).
        stopped: Ends the work after the photo at hand.

    Returns:
        Tokens and labels of what could be read, and the reasons of the rest.
    """
    found, todo = Gathered(), list(zip(items, labels, strict=True))

    def photos() -> Iterator[Photo]:
        for item, label in todo:
            if stopped():
                return
            try:
                photo = load_photo(item.read(), item.name)
            except DAMAGE as error:
                found.problems.append((item.path, str(error)))
                continue
            found.names.append(item.path)
            found.labels.append(label)
            found.thumbs.append(_thumbnail(photo.rgb))
            yield photo

    for pair in classifier.tokens_of(photos()):
        found.pairs.append(pair)
        if progress:
            done = len(found.pairs) + len(found.problems)
            progress(done, len(todo), f"{done} of {len(todo)} photos")
    for values in (found.names, found.labels, found.thumbs):  # stopped with photos in hand
        del values[len(found.pairs) :]
    return found


def example_items(folder_photos: Iterable[str]) -> tuple[list[Item], list[str]]:
    """Return parts of the shipped photos as a small set of four classes.

    Args:
        folder_photos: Paths of the shipped photos.
    """
    items, labels = [], []
    for path in folder_photos:
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        if stem not in EXAMPLES or not is_photo(path):
            continue
        rgb = load_photo(path).rgb
        width = rgb.shape[1]
        parts = {
            "whole": rgb,
            "left": rgb[:, : width * 3 // 4],
            "right": rgb[:, width // 4 :],
            "mirrored": rgb[:, ::-1],
        }
        for name, part in parts.items():
            data = _thumbnail(np.ascontiguousarray(part), 480)
            items.append(Item(f"{stem} ({name}).jpg", partial(bytes, data), only_here=True))
            labels.append(EXAMPLES[stem])
    return items, labels


def _thumbnail(rgb: np.ndarray, side: int = THUMBNAIL) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(fit_within(rgb, side)).save(stream, "JPEG", quality=85)
    return stream.getvalue()
