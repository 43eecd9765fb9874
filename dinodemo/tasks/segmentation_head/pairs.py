"""Read photos with index masks from a folder or a zip: what fits together is returned, the rest is named."""

import io
import re
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ...io.archives import BadFile, Entry, Problem, open_entries
from ...io.files import MASK_SUFFIXES, PHOTO_SUFFIXES, is_photo
from ...io.images import DAMAGE, MAX_PIXELS, load_photo
from ...io.zips import Limits
from .training import IGNORE

PHOTO_FOLDERS = {"images", "image", "imgs", "img", "photos", "jpegimages"}
MASK_FOLDERS = {"masks", "mask", "labels", "annotations", "segmentationclass"}
MASK_SUFFIX = re.compile(r"[_-](mask|masks|label|labels|seg)$", re.IGNORECASE)
LIMITS = Limits()
MAX_MASK_BYTES = 2_000_000_000  # of all masks together, they are held in memory

Pair = tuple[Path | bytes, np.ndarray]  # photo, mask (H, W) uint8


def read_pairs(source: str | Path, out: str | Path | None = None) -> tuple[list[Pair], list[Problem]]:
    """Read photos and their index masks: `images/x.jpg` + `masks/x.png`, or `x.jpg` + `x_mask.png` or `x.png`.

    source: a folder (with those inside it), or a zip. out: where the photos of a zip are written; without it they
    are returned as encoded bytes. Returns pairs (path or bytes, (H, W) uint8), sorted by name, and problems
    (file, reason) for all that was left out. Masks: grey or palette pictures with 0 for background, 255 for ignore;
    where no mask holds another label than these two, they are black-and-white masks and 255 is returned as 1.
    Raises ValueError when no pair is left.
    """
    source = Path(source)
    with open_entries(source, LIMITS, _reason_against) as (entries, problems):
        pairs = _read_all(entries, problems, None if out is None else Path(out))
    problems.sort()
    if not pairs:
        shown = "; ".join(f"{name}: {reason}" for name, reason in problems[:5])
        raise ValueError(
            f"{source.name} holds no usable pair of photo and mask; expected images/x.jpg with masks/x.png, or x.jpg "
            f"with x_mask.png{f' ({shown})' if shown else ''}"
        )
    return pairs, problems


def _reason_against(name: PurePosixPath) -> str | None:
    return None if is_photo(name) or name.suffix.lower() in MASK_SUFFIXES else "is neither a photo nor a mask; left out"


def _read_all(entries: list[Entry], problems: list[Problem], out: Path | None) -> list[Pair]:
    pairs: list[Pair] = []
    held = 0
    for photo, mask in _match(entries, problems):
        try:
            labels = _read_mask(mask)
            data = photo.read()
            size = load_photo(data).size
            if labels.shape != size:
                raise BadFile(mask, _size_mismatch(labels.shape, photo, size))
            held += labels.nbytes
            if held > MAX_MASK_BYTES:
                most = MAX_MASK_BYTES // 10**9
                raise BadFile(mask, f"more than {most} GB of masks; scale them and their photos down")
        except BadFile as bad:
            problems.append((str(bad.entry.name), bad.reason))
            continue
        except ValueError as error:
            problems.append((str(photo.name), str(error)))
            continue
        pairs.append((photo.path or (data if out is None else _write(out, len(pairs), photo, data)), labels))
    return _binary_to_index(pairs)


def _size_mismatch(mask: tuple[int, int], photo: Entry, size: tuple[int, int]) -> str:
    return (
        f"the mask is {mask[1]} x {mask[0]} but {photo.name} is {size[1]} x {size[0]} (upright); "
        "draw it on this photo or rotate it"
    )


def _binary_to_index(pairs: list[Pair]) -> list[Pair]:
    if any(((mask > 0) & (mask < IGNORE)).any() for _, mask in pairs):
        return pairs
    return [(photo, (mask > 0).astype(np.uint8)) for photo, mask in pairs]


def _write(out: Path, i: int, photo: Entry, data: bytes) -> Path:
    # a name of our own making: nothing of the archive's path but the letters of its last part
    stem = re.sub(r"[^\w.-]", "_", photo.name.stem)[-80:]
    path = out / f"{i + 1:05d}-{stem}{photo.name.suffix.lower()}"
    out.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _match(entries: list[Entry], problems: list[Problem]) -> list[tuple[Entry, Entry]]:
    """Find each photo's mask by name; what has no partner, or too many, becomes a problem."""
    photos: dict[tuple, list[Entry]] = {}
    masks: dict[tuple, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        role, key = _role(entry.name)
        (masks if role == "mask" else photos).setdefault(key, []).append(entry)
    for key in [key for key in masks if key not in photos]:  # masks/x_mask.png for images/x.jpg
        short = (*key[:-1], MASK_SUFFIX.sub("", key[-1]))
        if short != key:
            masks.setdefault(short, []).extend(masks.pop(key))
    pairs = []
    for key in sorted(photos.keys() | masks.keys()):
        found, partners = _split_twins(photos.get(key, []), masks.get(key, []))
        if len(found) == len(partners) == 1:
            pairs.append((found[0], partners[0]))
        elif not found or not partners:
            problems += [(str(e.name), "has no photo of the same name; add it") for e in partners]
            problems += [(str(e.name), "has no mask of the same name; add it") for e in found]
        else:
            several = [str(e.name) for e in found + partners]
            reason = f"{', '.join(several)} share one name; keep one photo and one mask"
            problems += [(name, reason) for name in several]
    return pairs


def _role(name: PurePosixPath) -> tuple[str, tuple]:
    """Tell mask from photo, and the key that both share: the path without images/ or masks/, and the stem."""
    folders = list(name.parts[:-1])
    for i in reversed(range(len(folders))):
        if folders[i].lower() in MASK_FOLDERS | PHOTO_FOLDERS:
            role = "mask" if folders[i].lower() in MASK_FOLDERS else "photo"
            return role, (*folders[:i], *folders[i + 1 :], name.stem)
    if MASK_SUFFIX.search(name.stem):
        return "mask", (*folders, MASK_SUFFIX.sub("", name.stem))
    return "photo", (*folders, name.stem)


def _split_twins(photos: list[Entry], masks: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Take x.png for the mask of x.jpg when both lie in one folder and no other mask is there."""
    lossy = [e for e in photos if e.name.suffix.lower() in PHOTO_SUFFIXES - MASK_SUFFIXES]
    exact = [e for e in photos if e.name.suffix.lower() in MASK_SUFFIXES]
    return (lossy, exact) if not masks and len(lossy) == len(exact) == 1 else (photos, masks)


def _read_mask(entry: Entry) -> np.ndarray:
    """Read an index mask as (H, W) uint8; raises BadFile."""
    if entry.name.suffix.lower() not in MASK_SUFFIXES:
        raise BadFile(entry, "a mask of this type loses its labels; save it as PNG")
    data = entry.read()
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "GIF", "BMP", "TIFF")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFile(entry, f"has more than {MAX_PIXELS // 1_000_000} million pixels; scale it down")
            image.load()
            upright = ImageOps.exif_transpose(image)
            labels = np.asarray(upright)
    except BadFile:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadFile(entry, "is not a picture that can be read; save the mask as PNG") from error
    except DAMAGE as error:
        raise BadFile(entry, f"is truncated or damaged ({error}); export it again") from error
    return _to_labels(labels, upright.mode, entry)


def _to_labels(pixels: np.ndarray, mode: str, entry: Entry) -> np.ndarray:
    if mode in ("LA", "RGB", "RGBA", "PA"):  # grey saved as colour is common and harmless
        colours = pixels[..., : 3 if mode.startswith("RGB") else 1]
        if mode == "PA" or (colours != colours[..., :1]).any():
            raise BadFile(entry, "is a colour picture, no index mask; save it as grey or palette PNG")
        pixels = colours[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "biu" or pixels.min() < 0 or pixels.max() > IGNORE:
        wanted = f"values must be whole numbers from 0 to {IGNORE}"
        raise BadFile(entry, f"is no index mask ({mode}, {wanted}); save it as PNG")
    labels = pixels.astype(np.uint8)
    if labels.min() == IGNORE:
        raise BadFile(entry, f"every pixel is {IGNORE} (ignore); draw on it or leave the pair out")
    return labels
