"""Read photos with index masks from a folder or a zip: what fits together is returned, the rest is named."""

import io
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ...io.images import DAMAGE, MAX_PIXELS, load_photo
from .training import IGNORE

PHOTO_FOLDERS = {"images", "image", "imgs", "img", "photos", "jpegimages"}
MASK_FOLDERS = {"masks", "mask", "labels", "annotations", "segmentationclass"}
MASK_SUFFIX = re.compile(r"[_-](mask|masks|label|labels|seg)$", re.IGNORECASE)
MASK_TYPES = {".png", ".gif", ".bmp", ".tif", ".tiff"}  # that keep whole numbers
LOSSY_TYPES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".heic", ".heif", ".avif", ".jp2"}
PICTURE_TYPES = MASK_TYPES | LOSSY_TYPES | {".ppm", ".pgm", ".ico"}
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}
MAX_FILES = 20_000
MAX_TOTAL_BYTES = 4_000_000_000  # of a zip when unpacked
MAX_FILE_BYTES = 500_000_000
MAX_MASK_BYTES = 2_000_000_000  # of all masks together, they are held in memory
ZIP_DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
              ValueError)  # fmt: skip

Problem = tuple[str, str]  # file, reason
Pair = tuple[Path | bytes, np.ndarray]  # photo, mask (H, W) uint8


@dataclass(frozen=True)
class Entry:
    """Name a file by its path inside the folder or zip, and say how to get its bytes."""

    name: PurePosixPath
    read: Callable[[], bytes]
    path: Path | None = None  # in a folder


def read_pairs(source: str | Path, out: str | Path | None = None) -> tuple[list[Pair], list[Problem]]:
    """Read photos and their index masks: `images/x.jpg` + `masks/x.png`, or `x.jpg` + `x_mask.png` or `x.png`.

    source: a folder (with those inside it), or a zip. out: where the photos of a zip are written; without it they
    are returned as encoded bytes. Returns pairs (path or bytes, (H, W) uint8), sorted by name, and problems
    (file, reason) for all that was left out. Masks: grey or palette pictures with 0 for background, 255 for ignore;
    where no mask holds another label than these two, they are black-and-white masks and 255 is returned as 1.
    Raises ValueError when no pair is left.
    """
    source = Path(source)
    if source.is_dir():
        entries, problems = _folder_entries(source)
        pairs = _read_all(entries, problems, None)
    elif source.is_file():
        try:
            with zipfile.ZipFile(source) as archive:
                entries, problems = _zip_entries(archive, source.name)
                pairs = _read_all(entries, problems, None if out is None else Path(out))
        except zipfile.BadZipFile as error:
            raise ValueError(f"{source.name} is not a zip ({error}); give a folder or a zip of photos") from error
    else:
        raise ValueError(f"{source.name} does not exist; give a folder or a zip of photos and masks")
    problems.sort()
    if not pairs:
        shown = "; ".join(f"{name}: {reason}" for name, reason in problems[:5])
        raise ValueError(
            f"{source.name} holds no usable pair of photo and mask; expected images/x.jpg with masks/x.png, or x.jpg "
            f"with x_mask.png{f' ({shown})' if shown else ''}"
        )
    return pairs, problems


def _folder_entries(folder: Path) -> tuple[list[Entry], list[Problem]]:
    entries, problems = [], []
    for root, _, files in os.walk(folder):  # does not follow links to folders
        for file in files:
            path = Path(root, file)
            name = PurePosixPath(path.relative_to(folder).as_posix())
            if reason := _refuse(name):
                problems.append((str(name), reason))
            elif not _is_hidden(name):
                entries.append(Entry(name, path.read_bytes, path))
            if len(entries) > MAX_FILES:
                raise ValueError(f"{folder.name} holds more than {MAX_FILES} files; split it")
    return entries, problems


def _zip_entries(archive: zipfile.ZipFile, title: str) -> tuple[list[Entry], list[Problem]]:
    """List a zip's files without unpacking; what could do harm becomes a problem and is never read."""
    entries, problems, seen = [], [], set()
    members = [member for member in archive.infolist() if not member.is_dir()]
    total = sum(member.file_size for member in members)  # zipfile reads no more of a file than is declared here
    if len(members) > MAX_FILES or total > MAX_TOTAL_BYTES:
        raise ValueError(
            f"{title} holds {len(members)} files, {total / 1e9:.1f} GB unpacked; at most {MAX_FILES} files and "
            f"{MAX_TOTAL_BYTES / 1e9:.0f} GB are read; split it"
        )
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        reason = _refuse_member(member, name, seen) or _refuse(name)
        seen.add(name)
        if reason:
            problems.append((member.filename, reason))
        elif not _is_hidden(name):
            entries.append(Entry(name, lambda member=member: archive.read(member)))
    return entries, problems


def _refuse_member(member: zipfile.ZipInfo, name: PurePosixPath, seen: set[PurePosixPath]) -> str | None:
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        return "its path leads out of the archive; not read"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link; put the file itself into the archive"
    if member.flag_bits & 1:
        return "is encrypted; pack it without a password"
    if member.file_size > MAX_FILE_BYTES:
        return f"is larger than {MAX_FILE_BYTES // 1_000_000} MB; scale it down"
    return "occurs twice in the archive; keep one" if name in seen else None


def _refuse(name: PurePosixPath) -> str | None:
    if _is_hidden(name):
        return None
    if name.suffix.lower() in ARCHIVES:
        return "is an archive inside; unpack it first"
    if name.suffix.lower() not in PICTURE_TYPES:
        return "is neither a photo nor a mask; left out"
    return None


def _is_hidden(name: PurePosixPath) -> bool:
    """Tell what systems leave behind: .DS_Store, __MACOSX, Thumbs.db."""
    return any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini") for part in name.parts)


def _read_all(entries: list[Entry], problems: list[Problem], out: Path | None) -> list[Pair]:
    pairs, held = [], 0
    for photo, mask in _match(entries, problems):
        try:
            labels = _read_mask(mask)
            data = _read_bytes(photo)
            size = load_photo(data).size
            if labels.shape != size:
                raise _Bad(mask, _size_mismatch(labels.shape, photo, size))
            held += labels.nbytes
            if held > MAX_MASK_BYTES:
                raise _Bad(mask, f"more than {MAX_MASK_BYTES // 10**9} GB of masks; scale them and their photos down")
        except _Bad as bad:
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


class _Bad(ValueError):
    """Carry which file is bad, and why."""

    def __init__(self, entry: Entry, reason: str):
        super().__init__(reason)
        self.entry, self.reason = entry, reason


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
    lossy = [e for e in photos if e.name.suffix.lower() in LOSSY_TYPES]
    exact = [e for e in photos if e.name.suffix.lower() in MASK_TYPES]
    return (lossy, exact) if not masks and len(lossy) == len(exact) == 1 else (photos, masks)


def _read_bytes(entry: Entry) -> bytes:
    try:
        return entry.read()
    except ZIP_DAMAGE as error:
        raise _Bad(entry, f"cannot be read ({error}); copy or pack it again") from error


def _read_mask(entry: Entry) -> np.ndarray:
    """Read an index mask as (H, W) uint8; raises _Bad."""
    if entry.name.suffix.lower() not in MASK_TYPES:
        raise _Bad(entry, "a mask of this type loses its labels; save it as PNG")
    data = _read_bytes(entry)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "GIF", "BMP", "TIFF")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _Bad(entry, f"has more than {MAX_PIXELS // 1_000_000} million pixels; scale it down")
            image.load()
            upright = ImageOps.exif_transpose(image)
            labels = np.asarray(upright)
    except _Bad:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise _Bad(entry, "is not a picture that can be read; save the mask as PNG") from error
    except DAMAGE as error:
        raise _Bad(entry, f"is truncated or damaged ({error}); export it again") from error
    return _to_labels(labels, upright.mode, entry)


def _to_labels(pixels: np.ndarray, mode: str, entry: Entry) -> np.ndarray:
    if mode in ("LA", "RGB", "RGBA", "PA"):  # grey saved as colour is common and harmless
        colours = pixels[..., : 3 if mode.startswith("RGB") else 1]
        if mode == "PA" or (colours != colours[..., :1]).any():
            raise _Bad(entry, "is a colour picture, no index mask; save it as grey or palette PNG")
        pixels = colours[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "biu" or pixels.min() < 0 or pixels.max() > IGNORE:
        raise _Bad(entry, f"is no index mask ({mode}, values must be whole numbers from 0 to {IGNORE}); save it as PNG")
    labels = pixels.astype(np.uint8)
    if labels.min() == IGNORE:
        raise _Bad(entry, f"every pixel is {IGNORE} (ignore); draw on it or leave the pair out")
    return labels
