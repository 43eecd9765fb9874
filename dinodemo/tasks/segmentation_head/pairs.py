"""Read photos with masks or annotations from a folder or a zip: what fits together is returned, the rest is named."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...io.archives import BadFile, Entry, Problem, open_entries
from ...io.files import MASK_SUFFIXES, PHOTO_SUFFIXES, is_photo
from ...io.images import DAMAGE, MAX_PIXELS, Photo, load_photo
from ...io.zips import Limits
from ..segmentation.annotations import SUFFIXES as ANNOTATION_SUFFIXES
from ..segmentation.annotations import read_annotations, read_class_names
from ..segmentation.labels import MaskFile
from ..segmentation.mask_pictures import read_picture
from ..segmentation.masks import from_annotations, read_array
from ..segmentation.shapes import Annotated
from .renumber import Labelled, apply, find_classes, shorten
from .training import IGNORE

PHOTO_FOLDERS = {"images", "image", "imgs", "img", "photos", "jpegimages"}
MASK_FOLDERS = {"masks", "mask", "labels", "annotations", "segmentationclass"}
MASK_SUFFIX = re.compile(r"[_-](mask|masks|label|labels|seg)$", re.IGNORECASE)
ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
CLASS_FILES = frozenset({"classes.txt", "data.yaml", "data.yml", "dataset.yaml", "obj.names", "labels.txt"})
LIMITS = Limits()
MAX_MASK_BYTES = 2_000_000_000  # of all masks together, they are held in memory

Pair = tuple[Path | bytes, np.ndarray]  # photo, mask (H, W) uint8


@dataclass(frozen=True, eq=False)
class Dataset:
    """Represent photos with index masks.

    Attributes:
        pairs: (path or bytes of the photo, (H, W) uint8), sorted by name; 0 background, 255 ignored.
        problems: (file, reason) for all that was left out.
        classes: names of the labels 1, 2, ...; None where they have none but their numbers.
        notes: sentences on how masks were read, each said once.
    """

    pairs: list[Pair]
    problems: list[Problem]
    classes: list[str] | None
    notes: list[str]


@dataclass
class _Found:
    """Gather what was read so far."""

    photos: list[Path | bytes] = field(default_factory=list)
    masks: list[Labelled] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of the mask files
    soft: int = 0
    held: int = 0  # bytes of masks


def read_pairs(source: str | Path, out: str | Path | None = None) -> tuple[list[Pair], list[Problem]]:
    """Return the pairs and the problems of `read_dataset`.

    Args:
        source: As for `read_dataset`.
        out: As for `read_dataset`.
    """
    found = read_dataset(source, out)
    return found.pairs, found.problems


def read_dataset(source: str | Path, out: str | Path | None = None) -> Dataset:
    """Read photos and their masks from a folder (with those inside it) or a zip.

    `images/x.jpg` goes with `masks/x.png`, `x.jpg` with `x_mask.png` or `x.png`. Instead of a picture a mask may be
    `x.npy`, `x.json` (labelme), `x.txt` (YOLO polygons, with `classes.txt` or `data.yaml` beside), or one COCO json,
    CVAT xml or Label Studio json for all photos. Labels with gaps are renumbered; where all masks are black and white
    there is one class, else 255 is ignored.

    Args:
        source: the folder or zip.
        out: where the photos of a zip are written; without it they are returned as encoded bytes.

    Raises:
        ValueError: when no pair is left.
    """
    source = Path(source)
    with open_entries(source, LIMITS, _reason_against) as (entries, problems):
        found, order = _read_all(entries, problems, None if out is None else Path(out))
    pairs, classes, notes = _number(found, problems, order)
    problems.sort()
    if not pairs:
        shown = "; ".join(f"{name}: {reason}" for name, reason in problems[:5])
        raise ValueError(
            f"{source.name} holds no usable pair of photo and mask; expected images/x.jpg with masks/x.png, x.jpg "
            f"with x_mask.png, or photos with COCO, YOLO, labelme, CVAT or Label Studio files"
            f"{f' ({shown})' if shown else ''}"
        )
    return Dataset(pairs, problems, classes, notes)


def _reason_against(name: PurePosixPath) -> str | None:
    suffix = name.suffix.lower()
    known = MASK_SUFFIXES | ARRAY_SUFFIXES | ANNOTATION_SUFFIXES
    if is_photo(name) or suffix in known or name.name.lower() in CLASS_FILES:
        return None
    return "is neither a photo nor a mask; left out"


def _read_all(entries: list[Entry], problems: list[Problem], out: Path | None) -> tuple[_Found, list[str]]:
    """Read every pair; returns them and the classes that a YOLO set names."""
    found = _Found()
    order = _class_names(entries, problems)
    annotations = [e for e in entries if _is_annotation(e)]
    pictures = [e for e in entries if not _is_annotation(e) and e.name.name.lower() not in CLASS_FILES]
    annotated, pictures = _annotated(annotations, pictures, problems, order)
    for photo, mask, content in [*((p, m, None) for p, m in _match(pictures, problems)), *annotated]:
        try:
            data = photo.read()
            picture = load_photo(data, photo.name.name)
            file = _open_mask(mask) if content is None else from_annotations(content, picture, mask.name.name)
            if file.index.shape != picture.size:
                raise BadFile(mask, _size_mismatch(file.index.shape, photo, picture))
            labelled = shorten(file)
        except BadFile as bad:
            problems.append((str(bad.entry.name), bad.reason))
            continue
        except ValueError as error:
            problems.append((str(photo.name), str(error)))
            continue
        found.held += labelled.index.nbytes
        if found.held > MAX_MASK_BYTES:
            most = MAX_MASK_BYTES // 10**9
            problems.append((str(mask.name), f"more than {most} GB of masks; scale them and their photos down"))
            break
        found.soft += any("soft" in note for note in file.notes)
        found.photos.append(photo.path or (data if out is None else _write(out, len(found.photos), photo, data)))
        found.masks.append(labelled)
        found.names.append(str(mask.name))
    return found, order


def _number(found: _Found, problems: list[Problem], order: list[str]) -> tuple[list[Pair], list[str] | None, list[str]]:
    """Map the labels of all masks to common numbers; masks that are ignored as a whole are left out."""
    classes = find_classes(found.masks, order)
    pairs: list[Pair] = []
    for photo, mask, name in zip(found.photos, found.masks, found.names, strict=True):
        labels = apply(mask, classes)
        if labels.min() == IGNORE:
            problems.append((name, f"every pixel is {IGNORE} (ignore); draw on it or leave the pair out"))
        else:
            pairs.append((photo, labels))
    notes = list(classes.notes)
    if found.soft:
        notes.append(f"{found.soft} masks have soft edges; they were cut at half of their range")
    return pairs, classes.names, notes


def _is_annotation(entry: Entry) -> bool:
    return entry.name.suffix.lower() in ANNOTATION_SUFFIXES and entry.name.name.lower() not in CLASS_FILES


def _class_names(entries: list[Entry], problems: list[Problem]) -> list[str]:
    """Return the classes that a YOLO set names beside its files."""
    for entry in entries:
        if entry.name.name.lower() in CLASS_FILES:
            try:
                return read_class_names(entry.read(), entry.name.name)
            except ValueError as error:
                problems.append((str(entry.name), str(error)))
    return []


def _annotated(
    files: list[Entry], pictures: list[Entry], problems: list[Problem], order: Sequence[str]
) -> tuple[list[tuple[Entry, Entry, Annotated]], list[Entry]]:
    """Find the photos that annotation files speak of; returns (photo, file, what it says), and other pictures."""
    found: dict[str, tuple[Entry, Entry, Annotated]] = {}
    useless: set[str] = set()
    for file in files:
        try:
            contents = read_annotations(file.read(), file.name.name, order)
        except ValueError as error:
            problems.append((str(file.name), str(error)))
            continue
        for content in contents:
            photo = _photo_of(content, file, pictures)
            if photo is None:
                problems.append((content.photo, f"{file.name} speaks of it, but no photo has this name; add it"))
            elif content.shapes:  # a photo without shapes may be one that nobody looked at yet
                found[str(photo.name)] = (photo, file, content)
            elif content.left_out:
                kinds = ", ".join(sorted(set(content.left_out)))
                problems.append((str(photo.name), f"{file.name} holds only {kinds} on it; export polygons or masks"))
                useless.add(str(photo.name))
    rest = [e for e in pictures if str(e.name) not in found.keys() | useless]
    return sorted(found.values(), key=lambda one: one[0].name), rest


def _photo_of(content: Annotated, file: Entry, pictures: list[Entry]) -> Entry | None:
    """Return the photo that is meant: of this name or stem, the one whose folders are most like the file's.

    A file about one photo may also share its stem: labelme keeps the name that a photo had when it was drawn on.
    """
    wanted = PurePosixPath(content.photo.replace("\\", "/"))
    same = [e for e in pictures if e.name.name == wanted.name] or [
        e for e in pictures if e.name.stem.casefold() in (wanted.stem.casefold(), wanted.name.casefold())
    ]
    same = same or [e for e in pictures if content.alone and e.name.with_suffix("") == file.name.with_suffix("")]
    folders = set(file.name.parts) | set(wanted.parts)
    return max(same, key=lambda e: len(folders & set(e.name.parts[:-1])), default=None)


def _size_mismatch(mask: tuple[int, ...], photo: Entry, picture: Photo) -> str:
    height, width = picture.size
    return (
        f"the mask is {mask[1]} x {mask[0]} but {photo.name} is {width} x {height} (upright); "
        "draw it on this photo or rotate it"
    )


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
    """Return "mask" or "photo", and the key that both share: the path without images/ or masks/, and the stem."""
    folders = list(name.parts[:-1])
    for i in reversed(range(len(folders))):
        if folders[i].lower() in MASK_FOLDERS | PHOTO_FOLDERS:
            role = "mask" if folders[i].lower() in MASK_FOLDERS else "photo"
            return role, (*folders[:i], *folders[i + 1 :], name.stem)
    if MASK_SUFFIX.search(name.stem) or name.suffix.lower() in ARRAY_SUFFIXES:
        return "mask", (*folders, MASK_SUFFIX.sub("", name.stem))
    return "photo", (*folders, name.stem)


def _split_twins(photos: list[Entry], masks: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Take x.png for the mask of x.jpg when both lie in one folder and no other mask is there."""
    lossy = [e for e in photos if e.name.suffix.lower() in PHOTO_SUFFIXES - MASK_SUFFIXES]
    exact = [e for e in photos if e.name.suffix.lower() in MASK_SUFFIXES | ARRAY_SUFFIXES]
    return (lossy, exact) if not masks and len(lossy) == len(exact) == 1 else (photos, masks)


def _open_mask(entry: Entry) -> MaskFile:
    """Read a mask's labels from a picture or a NumPy file; raises BadFile."""
    data = entry.read()
    try:
        if entry.name.suffix.lower() in ARRAY_SUFFIXES:
            return read_array(data, entry.name.name)
        with Image.open(io.BytesIO(data), formats=("PNG", "GIF", "BMP", "TIFF", "JPEG", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFile(entry, f"has more than {MAX_PIXELS // 1_000_000} million pixels; scale it down")
            if (pages := getattr(image, "n_frames", 1)) > 1:
                raise BadFile(entry, f"holds {pages} pictures; save one mask a file")
            image.load()
            lossy = image.format in ("JPEG", "WEBP")
            file = read_picture(image, entry.name.name)
    except BadFile:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadFile(entry, "is not a picture that can be read; save the mask as PNG") from error
    except ValueError as error:
        raise BadFile(entry, str(error)) from error
    except DAMAGE as error:
        raise BadFile(entry, f"is truncated or damaged ({error}); export it again") from error
    if lossy and not file.binary:
        raise BadFile(entry, "a mask of this type loses its labels; save it as PNG")
    return file
