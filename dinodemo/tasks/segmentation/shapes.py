"""Shapes that annotation files hold, and their masks: polygons, run lengths, bitmaps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

MOST_POINTS = 2_000_000  # of one file's polygons
MOST_PIXELS = 150_000_000
MOST_CROSSINGS = 20_000_000  # of a polygon's edges with rows of pixels


@dataclass(frozen=True, eq=False)
class Shape:
    """Describe an annotated region: its label, and either polygons or a bitmap.

    Attributes:
        label: the class.
        polygons: (n, 2) arrays of x, y, in pixels of the annotated picture or, where `relative`, in shares of it.
        bitmap: (h, w) bool over the picture, or over the part of it that begins at `corner`.
        relative: whether the polygons are in shares.
        corner: x, y of the bitmap in pixels.
    """

    label: str
    polygons: tuple[np.ndarray, ...] = ()
    bitmap: np.ndarray | None = None
    relative: bool = False
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Annotated:
    """Describe what an annotation file says of one photo.

    Attributes:
        photo: its file name as it stands in the file; empty where the file does not say.
        size: (H, W) that the shapes are drawn on; None where they are in shares of the picture.
        shapes: the annotated regions, the first painted first.
        left_out: what it holds besides areas, by kind: boxes, lines, points.
        alone: whether its file is about this photo only.
    """

    photo: str
    size: tuple[int, int] | None
    shapes: list[Shape] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    alone: bool = False

    def layers(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Return a mask (H, W) bool for every label, at the size of the photo."""
        drawn = self.size or size
        layers: dict[str, np.ndarray] = {}
        for shape in self.shapes:
            mask = _draw(shape, drawn, size)
            layers[shape.label] = layers[shape.label] | mask if shape.label in layers else mask
        return layers


def _draw(shape: Shape, drawn: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    scale = np.array([size[1], size[0]], float)
    if not shape.relative:
        scale /= (drawn[1], drawn[0])
    for points in shape.polygons:
        _fill(mask, points * scale)
    if shape.bitmap is not None:
        whole = np.zeros(drawn, np.uint8)
        (x, y), (h, w) = shape.corner, shape.bitmap.shape
        part = whole[y : y + h, x : x + w]
        part[...] = shape.bitmap[: part.shape[0], : part.shape[1]]
        fitted = whole if drawn == size else cv2.resize(whole, size[::-1], interpolation=cv2.INTER_NEAREST)
        return (mask > 0) | (np.asarray(fitted) > 0)
    return mask > 0


def _fill(mask: np.ndarray, points: np.ndarray) -> None:
    """Set the pixels of (H, W) whose centers lie inside a polygon (n, 2), by the even-odd rule.

    OpenCV's and Pillow's own also set the pixels that the outline touches, which makes every object half a pixel
    larger on all sides.
    """
    height, width = mask.shape
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    down = y0 > y1
    x0, x1, y0, y1 = np.where(down, x1, x0), np.where(down, x0, x1), np.where(down, y1, y0), np.where(down, y0, y1)
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(int) for y in (y0, y1))
    counts = np.clip(last - first, 0, None)
    if counts.sum() > MOST_CROSSINGS:
        raise ValueError(f"a polygon of {len(points)} points is too tangled")
    edge = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    x = x0[edge] + (rows + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    columns = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    if not len(rows):
        return
    top = rows.min()
    turns = np.zeros((rows.max() + 1 - top, width + 1), np.int32)
    np.add.at(turns, (rows - top, columns), 1)
    mask[top : rows.max() + 1] |= (np.cumsum(turns[:, :width], axis=1) % 2).astype(np.uint8)


def polygon(values: Sequence | np.ndarray) -> np.ndarray:
    """Return points (n, 2) from x1, y1, x2, y2, ... or from pairs; raises ValueError for fewer than three."""
    array = np.asarray(values, np.float64).reshape(-1, 2)
    if len(array) < 3 or len(array) > MOST_POINTS or not np.isfinite(array).all():
        raise ValueError(f"a polygon needs three finite points or more, got {len(array)}")
    return array


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Return the corners (4, 2) of a rectangle."""
    return polygon([x0, y0, x1, y0, x1, y1, x0, y1])


def turned(points: np.ndarray, degrees: float, around: Sequence[float], size: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Return points (n, 2) turned clockwise, as seen in the picture.

    Args:
        points: x, y in pixels, or in any unit of which `size` (H, W) pixels are one along y and along x.
        degrees: of the turn.
        around: x, y of the center of the turn.
        size: what one unit is worth in pixels along y and x.
    """
    if not degrees:
        return points
    angle, unit = np.deg2rad(float(degrees)), np.array([size[1], size[0]], float)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (((points - around) * unit) @ turn) / unit + around


def circle(center: Sequence[float], on: Sequence[float]) -> np.ndarray:
    """Return points (64, 2) of a circle given by its center and a point on it."""
    radius = float(np.hypot(on[0] - center[0], on[1] - center[1]))
    return ellipse(center[0], center[1], radius, radius)


def ellipse(x: float, y: float, across: float, down: float) -> np.ndarray:
    """Return points (64, 2) of an ellipse given by its center and its two radii."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return polygon(np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1))


def from_run_lengths(counts: Sequence[int] | str, size: tuple[int, int], by_column: bool = True) -> np.ndarray:
    """Return the mask (H, W) bool of run lengths: zeros first, then ones, in turn.

    Args:
        counts: the lengths, or COCO's compressed text of them.
        size: (H, W).
        by_column: column by column, as COCO counts; else row by row.

    Raises:
        ValueError: where the lengths do not fill the picture.
    """
    lengths = np.asarray(_uncompressed(counts) if isinstance(counts, str | bytes) else counts, np.int64)
    height, width = size
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise ValueError(f"a mask of {width} x {height} pixels is not possible")
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"run lengths add up to {int(lengths.sum())} pixels, the picture has {height * width}")
    flat = np.repeat(np.arange(len(lengths)) % 2, lengths).astype(bool)
    return flat.reshape(width, height).T if by_column else flat.reshape(height, width)


def _uncompressed(text: str | bytes) -> list[int]:
    """Decode COCO's compressed run lengths: five bits a letter, from the third on as differences to two before."""
    letters = text.encode() if isinstance(text, str) else text
    counts: list[int] = []
    at = 0
    while at < len(letters):
        value = shift = 0
        more = True
        while more:
            if at >= len(letters):
                raise ValueError("compressed run lengths end in the middle of a number")
            code = letters[at] - 48
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            at, shift = at + 1, shift + 5
        if code & 0x10:
            value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def from_label_studio(numbers: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) bool of Label Studio's brush: run lengths of RGBA bytes, packed in bits."""
    bits = np.unpackbits(np.asarray(numbers, np.uint8))
    at = 0

    def take(count: int) -> int:
        nonlocal at
        if at + count > len(bits):
            raise ValueError("the brush's run lengths end too early")
        value = int("".join(map(str, bits[at : at + count])), 2)
        at += count
        return value

    if size[0] < 1 or size[1] < 1 or size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"a mask of {size[1]} x {size[0]} pixels is not possible")
    total = take(32)
    if total != 4 * size[0] * size[1]:
        raise ValueError(f"the brush has {total} values, its picture needs {4 * size[0] * size[1]}")
    word = take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated = take(1)
        end = done + 1 + take(sizes[take(2)])
        if repeated:
            values[done:end] = take(word)
        else:
            values[done:end] = [take(word) for _ in range(min(end, total) - done)][: end - done]
        done = end
    return values.reshape(*size, 4)[..., 3] > 0
