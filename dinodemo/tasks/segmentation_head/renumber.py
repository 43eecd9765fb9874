"""From the labels of single masks to the classes of a whole set: gaps close, white is one class or "ignore"."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..segmentation.labels import VOID, MaskFile
from .training import IGNORE

WHITE = ("255", "65535", "opaque")  # labels that only say "the object"
MOST_CLASSES = 254


@dataclass(frozen=True, eq=False)
class Labelled:
    """Keep of a mask file what a set needs, in a byte a pixel.

    Attributes:
        index: (H, W) uint8: 0 background, k is `names[k - 1]`, 255 void.
        names: the labels.
        binary: whether it only tells object from background.
    """

    index: np.ndarray
    names: tuple[str, ...]
    binary: bool

    @property
    def void(self) -> bool:
        """Return whether some pixels are void."""
        return bool((self.index == IGNORE).any())


@dataclass(frozen=True)
class Classes:
    """Describe what the labels of a set mean.

    Attributes:
        numbers: a label's number in the masks.
        names: of the classes 1, 2, ...; None where the labels are these numbers already.
        notes: sentences to be said once.
    """

    numbers: dict[str, int]
    names: list[str] | None
    notes: tuple[str, ...] = field(default=())


def shorten(file: MaskFile) -> Labelled:
    """Keep the index of a mask file in a byte a pixel; raises ValueError for more labels than that holds."""
    if len(file.labels) > MOST_CLASSES:
        raise ValueError(f"it holds {len(file.labels)} labels, at most {MOST_CLASSES} can be classes")
    index = np.where(file.index == VOID, IGNORE, file.index).astype(np.uint8)
    return Labelled(index, tuple(label.name for label in file.labels), file.binary)


def find_classes(masks: Sequence[Labelled], order: Sequence[str] = ()) -> Classes:
    """Number the labels of a set of masks.

    Args:
        masks: all of its masks.
        order: names that come first, in this order.

    Raises:
        ValueError: for more classes than a byte holds.
    """
    found = {name for mask in masks for name in mask.names}
    white = [name for name in found if name in WHITE]
    others = sorted(found - set(white), key=lambda name: _rank(name, order))
    if white and (not others or (others == ["1"] and not any(mask.void for mask in masks))):
        return Classes(dict.fromkeys(found, 1), None)
    if len(others) > MOST_CLASSES:
        raise ValueError(f"the masks hold {len(others)} labels, at most {MOST_CLASSES} can be classes; unite some")
    numbers = {name: i for i, name in enumerate(others, start=1)} | dict.fromkeys(white, IGNORE)
    if others == [str(i) for i in range(1, len(others) + 1)]:
        return Classes(numbers, None)
    names = [f"class {name}" if name.isdigit() else name for name in others]
    return Classes(numbers, names, _notes(others))


def apply(mask: Labelled, classes: Classes) -> np.ndarray:
    """Return a mask (H, W) uint8 in the numbers of its set."""
    table = np.zeros(256, np.uint8)
    table[IGNORE] = IGNORE
    for i, name in enumerate(mask.names, start=1):
        table[i] = classes.numbers[name]
    return table[mask.index]


def _notes(labels: list[str]) -> tuple[str, ...]:
    if not all(label.isdigit() for label in labels):
        return ()
    shown = ", ".join(labels[:12]) + (f" and {len(labels) - 12} more" if len(labels) > 12 else "")
    return (f"the labels {shown} of the masks are the classes 1 to {len(labels)}",)


def _rank(name: str, order: Sequence[str]) -> tuple:
    if name in order:
        return 0, list(order).index(name), name
    return (1, int(name), name) if name.isdigit() else (2, 0, name)
