"""The labels that a mask file holds, and which of them are the object."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor

BACKGROUND, VOID = 0, -1  # in `MaskFile.index`
HALF = 0.5  # of the picture: a mask that marks more may be turned around
SHOWN = 12  # labels that an error lists


@dataclass(frozen=True)
class Label:
    """Describe a label: its name (a number, a colour as #rrggbb, or a word) and the share of the picture it covers."""

    name: str
    share: float


@dataclass(frozen=True, eq=False)
class MaskFile:
    """Represent what was read from a mask file.

    Attributes:
        name: of the file.
        index: (H, W) int32: 0 background, k the label `labels[k - 1]`, -1 void (judged by nobody).
        labels: the labels, the largest first.
        notes: sentences on how the file was read where it could have been read otherwise.
        layers: masks (H, W) bool by label where labels may overlap, else None.
        background: what the background is called in the file ("0", "#000000"); empty where it has no name.
        binary: whether the file only tells object from background.
    """

    name: str
    index: np.ndarray
    labels: tuple[Label, ...]
    notes: tuple[str, ...] = ()
    layers: dict[str, np.ndarray] | None = None
    background: str = ""
    binary: bool = False

    def choose(self, wanted: Sequence[str] = (), invert: bool = False) -> np.ndarray:
        """Return the mask of some labels.

        Args:
            wanted: names of labels; with none given the only label is taken.
            invert: return what these labels do not cover.

        Returns:
            (H, W) bool, at the file's own size.

        Raises:
            ValueError: where several labels are there and none was chosen, or a name is not among them.
        """
        if not self.labels:
            raise ValueError(f"{self.name} marks nothing; the object has to be white, coloured or opaque in it")
        if not wanted and len(self.labels) > 1:
            raise ValueError(f"{self.name} holds {len(self.labels)} labels: {self.describe()}; choose one or several")
        names = [self.find(name) for name in wanted] or [self.labels[0].name]
        mask = np.zeros(self.index.shape, bool)
        for name in names:
            mask |= self._mask_of(name)
        return ~mask if invert else mask

    def find(self, wanted: str) -> str:
        """Return the name of the label that is meant: as written, another case, a colour's word or "r,g,b"."""
        text = " ".join(str(wanted).split())
        known = [label.name for label in self.labels] + ([self.background] if self.background else [])
        spellings = {text.casefold(), _hex(text)}
        for name in known:
            if name.casefold() in spellings:
                return name
        near = _nearest_colour(text, known)
        if near:
            return near
        raise ValueError(f"{self.name} has no label {text!r}; it holds {self.describe()}")

    def describe(self) -> str:
        """Return the labels with their areas in a line."""
        shown = ", ".join(f"{label.name} ({label.share:.1%})" for label in self.labels[:SHOWN])
        more = len(self.labels) - SHOWN
        return f"{shown} and {more} more" if more > 0 else shown

    def message(self, mask: np.ndarray) -> str:
        """Return what should be said once about a mask that was chosen: how it was read, and what else it may mean."""
        notes = list(self.notes)
        if mask.mean() > HALF:
            notes.append(
                f"{self.name} marks {mask.mean():.0%} of the photo; if the object is the rest, invert the mask"
            )
        return "; ".join(notes)

    def _mask_of(self, name: str) -> np.ndarray:
        if self.layers is not None and name in self.layers:
            return self.layers[name]
        numbers = [i for i, label in enumerate(self.labels, start=1) if label.name == name]
        return np.isin(self.index, numbers or [BACKGROUND])


def from_index(name: str, index: np.ndarray, names: Sequence[str], **more) -> MaskFile:
    """Make a mask file of an index (0 background, k is `names[k - 1]`, -1 void); empty labels are dropped."""
    counts = np.bincount(index[index > 0].ravel(), minlength=len(names) + 1)[1:]
    order = sorted((i for i in range(len(names)) if counts[i]), key=lambda i: -counts[i])
    table = np.zeros(len(names) + 2, np.int32)  # the last one stands for -1
    table[-1] = VOID
    for new, old in enumerate(order, start=1):
        table[old + 1] = new
    labels = tuple(Label(names[i], counts[i] / index.size) for i in order)
    return MaskFile(name, table[index], labels, **more)


def from_layers(name: str, layers: dict[str, np.ndarray], size: tuple[int, int], **more) -> MaskFile:
    """Make a mask file of masks (H, W) bool by label, which may overlap; smaller ones lie on top in its index."""
    kept = sorted((one for one in layers.items() if one[1].any()), key=lambda one: -int(one[1].sum()))
    index = np.zeros(size, np.int32)
    for number, (_, mask) in enumerate(kept, start=1):
        index[mask] = number
    labels = tuple(Label(label, float(mask.mean())) for label, mask in kept)
    return MaskFile(name, index, labels, layers=dict(kept), **more)


def scaled(file: MaskFile, size: tuple[int, int]) -> MaskFile:
    """Return a mask file at another size (H, W), nearest pixels."""
    if file.index.shape == tuple(size):
        return file
    layers = file.layers and {name: _nearest(mask, size) for name, mask in file.layers.items()}
    index = _nearest(file.index, size)
    return MaskFile(file.name, index, file.labels, file.notes, layers, file.background, file.binary)


def _nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    kind = np.uint8 if array.dtype == bool else np.int32
    picture = Image.fromarray(array.astype(kind)).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(picture).astype(array.dtype)


def colour_name(rgb: Sequence[int]) -> str:
    """Return a colour as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*(int(v) for v in rgb[:3]))


def _hex(text: str) -> str:
    parts = text.strip("()[]").split(",")
    if len(parts) == 3 and all(part.strip().isdigit() and int(part) < 256 for part in parts):
        return colour_name([int(part) for part in parts])
    return f"#{text.casefold()}" if len(text) == 6 else text.casefold()


def _nearest_colour(text: str, known: Sequence[str]) -> str | None:
    """Return the colour label that a word like "red" means: the nearest one in hue, if it is near."""
    colours = [name for name in known if name.startswith("#") and len(name) == 7]
    try:
        asked = np.array(ImageColor.getrgb(text)[:3], float)
    except ValueError:
        return None
    if not colours:
        return None

    def distance(name: str) -> float:
        value = np.array(ImageColor.getrgb(name)[:3], float)
        plain = float(np.linalg.norm(value - asked))
        bright = float(np.linalg.norm(value / max(value.max(), 1) - asked / max(asked.max(), 1))) * 255
        return min(plain, bright) if min(value.max(), asked.max()) > 40 else plain

    best = min(colours, key=distance)
    return best if distance(best) < 100 else None
