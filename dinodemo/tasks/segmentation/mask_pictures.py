"""Read a picture as a mask: black and white, opaque, class indices or flat colours; a photo is refused.

What a picture means is decided by what is in it: its alpha, whether its colours are grey, which values fill areas of
their own and which only stand on the ramp of a soft edge.
"""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps

from .labels import BACKGROUND, VOID, MaskFile, colour_name, from_index
from .mask_values import Values, as_whole, distinct_values, is_photo, is_ramp, is_trimap

VOID_VALUE = 255  # of index masks: pixels that nobody judged
VOID_COLOUR = (224, 224, 192)  # the same in the colours of PASCAL VOC
MOST_LABELS = 4096
MOST_COLOURS = 256
FLAT_SHARE = 0.8  # of the picture that flat colours have to fill
SAME_COLOUR = 24.0  # distance in RGB below which two colours are one, saved with losses
BLEND = 14.0  # distance of a blend of two colours from the line between them
BLACK = 12  # the brightest channel of what counts as black


def read_picture(image: Image.Image, name: str) -> MaskFile:
    """Return an open picture as a mask file; raises ValueError for a photo.

    Args:
        image: As Pillow opened it.
        name: Of the file.
    """
    image = ImageOps.exif_transpose(image)
    alpha = _alpha(image)
    if image.mode == "1":
        return _binary(name, np.asarray(image), "255", "0")
    if image.mode in ("P", "PA") and alpha is None:
        return _palette(image, name)
    pixels = _pixels(image)
    grey = pixels if pixels.ndim == 2 else _as_grey(pixels)
    if alpha is not None:
        return _opaque(name, pixels, grey, alpha)
    return _colours(name, pixels) if grey is None else read_values(grey, name)


def read_values(values: np.ndarray, name: str) -> MaskFile:
    """Read grey values or class indices (H, W), of any number type, as a mask file; raises ValueError for a photo."""
    if values.dtype.kind in "if" and values.min(initial=0) < 0:
        return _signed(values, name)
    values, scale = as_whole(values)
    found = distinct_values(values)
    v = found.values
    if len(v) == 1:
        every = int(v[0])
        return from_index(name, np.full(values.shape, int(every != 0), np.int32), [str(every)])
    if is_ramp(found):
        middle = (int(v[0]) + int(v[-1])) / 2
        note = f"the edges of {name} are soft; it was cut at half of its range"
        return _binary(name, values > middle, _spelled(int(v[-1]), scale), _spelled(int(v[0]), scale), note)
    if len(v) > MOST_LABELS or is_photo(found):
        raise ValueError(_photo_message(name, f"{len(v)} grey values"))
    return _index_mask(name, found, scale)


def is_soft(values: np.ndarray) -> bool:
    """Return whether whole numbers (H, W) are a black-and-white mask with soft edges, up to 200 or more."""
    found = distinct_values(values)
    return bool(len(found.values) > 2 and found.values[-1] >= 200 and is_ramp(found))


def _signed(values: np.ndarray, name: str) -> MaskFile:
    """Read numbers (H, W) on both sides of 0: scores, or class indices with -1 for the background or for void."""
    if values.dtype.kind == "f" and len(np.unique(values[np.isfinite(values)])) > 3:
        return _binary(name, values > 0, ">0", "<=0", f"{name} holds scores; what is above 0 was taken")
    negative = values < 0
    if (values == 0).any():
        file = read_values(np.where(negative, 0, values), name)
        note = f"what is below 0 in {name} is left out as void"
        return replace(file, index=np.where(negative, VOID, file.index).astype(np.int32), notes=(*file.notes, note))
    return read_values(np.where(negative, 0, values), name)


def _index_mask(name: str, found: Values, scale: float) -> MaskFile:
    """Make labels of whole numbers: 0 is the background, 255 beside other labels is void."""
    v = found.values
    names = [_spelled(int(value), scale) for value in v]
    if len(v) == 2 and (v[0] == 0 or (0 < v[0] <= BLACK and 255 - BLACK <= v[1] < 255)):  # or nearly black and white
        return _binary(name, found.where == 1, names[1], names[0])
    if is_trimap(found):
        note = f"{name} is a trimap: white is the object, grey is left out"
        return from_index(name, np.array([BACKGROUND, VOID, 1])[found.where], ["255"], notes=(note,), background="0")
    numbers = np.arange(1, len(v) + 1)
    notes: tuple[str, ...] = ()
    numbers[v == 0] = BACKGROUND
    other_labels = ((v != 0) & (v != VOID_VALUE)).any()
    if other_labels and (v == VOID_VALUE).any() and scale == 1:
        numbers[v == VOID_VALUE] = VOID
        notes = (f"255 in {name} is left out as void",)
    return from_index(name, numbers[found.where], names, notes=notes, background="0" if v[0] == 0 else "")


def _binary(name: str, mask: np.ndarray, label: str, background: str, *notes: str) -> MaskFile:
    return from_index(name, mask.astype(np.int32), [label], notes=notes, background=background, binary=True)


def _palette(image: Image.Image, name: str) -> MaskFile:
    """Read a palette picture: by brightness where its colours are grey, by index where the index means something."""
    index = np.asarray(image if image.mode == "P" else image.convert("P"))
    used = np.unique(index)
    table = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    table = np.vstack([table, np.zeros((256 - len(table), 3), np.uint8)]) if len(table) < 256 else table
    colours = table[used].astype(int)
    distinct = len(np.unique(colours, axis=0)) == len(used)
    if distinct and (np.ptp(colours, axis=1) == 0).all():
        return _brightness(table[index][..., 0], name)
    black = colours.max(axis=1) <= BLACK
    if distinct and black.any() and not black[used == 0].any():
        return _colours(name, table[index])  # pngquant and others sort colours as they like
    if len(used) > 2 and not _few_and_flat(index):
        return _colours(name, table[index])
    return read_values(index, name)


def _brightness(grey: np.ndarray, name: str) -> MaskFile:
    """Read a palette of greys: of two, the brighter one is the object, however bright it is."""
    values = np.unique(grey)
    if len(values) == 2:
        return _binary(name, grey == values[1], str(values[1]), str(values[0]))
    return read_values(grey, name)


def _few_and_flat(index: np.ndarray) -> bool:
    found = distinct_values(index)
    return bool(found.inside.sum() >= 0.5 * index.size or found.flat.all() or len(found.values) <= 8)


def _opaque(name: str, pixels: np.ndarray, grey: np.ndarray | None, alpha: np.ndarray) -> MaskFile:
    """Read a picture with transparent parts: what is opaque is the object, or holds labels in flat colours."""
    opaque = alpha > min(127, int(alpha.max()) // 2)
    rgb = (np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]).astype(np.uint8)
    colours = rgb[opaque]
    packed = np.unique(colours.astype(np.int64) @ np.array([65536, 256, 1])) if len(colours) else np.empty(0, int)
    if 1 < len(packed) <= MOST_COLOURS:
        try:
            file = _colours(name, np.where(opaque[..., None], rgb, 0), always=False)
        except ValueError:
            file = None
        if file is not None and file.labels and not (grey is not None and len(file.labels) > 1):
            return file
    note = f"what is opaque in {name} was taken"
    return _binary(name, opaque, "opaque", "transparent", note)


def _colours(name: str, rgb: np.ndarray, always: bool = True) -> MaskFile:
    """Read flat colours (H, W, 3) as labels; black is the background, white where there is no black and it surrounds.

    Pixels on soft edges go to the nearest flat colour. always: refuse a photo; else raise for it all the same.
    """
    found = distinct_values(rgb[..., :3].astype(np.int64) @ np.array([65536, 256, 1]))
    table = np.stack([found.values >> 16, found.values >> 8 & 255, found.values & 255], axis=1).astype(float)
    own = found.flat & (found.counts >= min(4, found.counts.max()))
    if len(found.values) <= MOST_COLOURS:
        own |= ~_blends(table, own)
    chosen = _merge(table, found.counts, own)
    covered = found.counts[own].sum() / found.counts.sum()
    scattered = len(found.values) > 16 and found.inside.sum() < 0.4 * found.counts.sum()
    if not 1 <= len(chosen) <= MOST_COLOURS or covered < FLAT_SHARE or scattered:
        raise ValueError(_photo_message(name, f"{len(found.values)} colours"))
    nearest = np.linalg.norm(table[:, None] - table[chosen][None], axis=2).argmin(axis=1)
    where = nearest[found.where]
    kept = table[chosen].astype(int)
    background = _background(kept, where)
    numbers = np.arange(1, len(chosen) + 1)
    notes = []
    if background is not None:
        numbers[background] = BACKGROUND
        void = (np.abs(kept - VOID_COLOUR).max(axis=1) <= 2) & (len(chosen) > 2)
        numbers[void] = VOID
        if void.any():
            notes.append(f"{colour_name(VOID_COLOUR)} in {name} is left out as void")
    names = [colour_name(colour) for colour in kept]
    title = "" if background is None else names[background]
    return from_index(name, numbers[where], names, notes=tuple(notes), background=title, binary=len(chosen) == 2)


def _background(colours: np.ndarray, where: np.ndarray) -> int | None:
    """Return which colour is the background: black, else white where it fills most of the picture's border."""
    black = np.flatnonzero(colours.max(axis=1) <= BLACK)
    if len(black):
        return int(black[0])
    border = np.concatenate([where[0], where[-1], where[:, 0], where[:, -1]])
    most = int(np.bincount(border).argmax())
    white = colours[most].min() >= 255 - BLACK
    return most if white and (border == most).mean() > 0.5 else None


def _blends(table: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return which colours (n, 3) lie on the line between two of the flat ones: (n,) bool."""
    anchors = table[own]
    result = np.zeros(len(table), bool)
    for i, a in enumerate(anchors):
        for b in anchors[i + 1 :]:
            line = b - a
            along = np.clip((table - a) @ line / max(line @ line, 1), 0, 1)
            result |= np.linalg.norm(table - a - along[:, None] * line, axis=1) < BLEND
    return result & ~own


def _merge(table: np.ndarray, counts: np.ndarray, own: np.ndarray) -> list[int]:
    """Return the colours that stand for all flat ones: near ones are one colour where losses made them differ."""
    order = sorted(np.flatnonzero(own), key=lambda i: -counts[i])
    chosen: list[int] = []
    lossy = len(order) > 64 or counts[own].sum() < counts.sum()
    for i in order:
        distances = [float(np.linalg.norm(table[i] - table[j])) for j in chosen]
        if not chosen or min(distances) > (SAME_COLOUR if lossy else 0):
            chosen.append(int(i))
        if len(chosen) > MOST_COLOURS:
            break
    return chosen


def _spelled(value: int, scale: float) -> str:
    return str(value) if scale == 1 else f"{value * scale:.3g}"


def _alpha(image: Image.Image) -> np.ndarray | None:
    """Return the opacity (H, W) uint8 of a picture that has transparent parts, else None."""
    if not image.has_transparency_data:
        return None
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    return alpha if alpha.min() < 255 and alpha.any() else None


def _pixels(image: Image.Image) -> np.ndarray:
    """Return a picture as (H, W) numbers of its own kind, or (H, W, 3) uint8."""
    if image.mode in ("P", "PA") or image.mode not in ("L", "LA", "I", "F", "RGB", "RGBA"):
        if image.mode.startswith("I;16"):
            return np.asarray(image)
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    array = np.asarray(image)
    return array[..., 0] if image.mode == "LA" else array[..., :3] if array.ndim == 3 else array


def _as_grey(rgb: np.ndarray) -> np.ndarray | None:
    """Return one channel where all three are equal, else None."""
    return rgb[..., 0] if (rgb == rgb[..., :1]).all() else None


def _photo_message(name: str, content: str) -> str:
    return (
        f"{name} looks like a photo, not a mask ({content}, no flat areas); give a mask that is white, coloured or "
        "opaque on the object, a picture of class indices or flat colours, or a file of annotations"
    )
