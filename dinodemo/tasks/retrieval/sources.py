"""Where photos come from: folders, zips and lists become items, each with a path, a label and a way to its bytes."""

import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from ...io.images import DAMAGE
from ...scale.addresses import is_address, list_files, read_file

PICTURE_TYPES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic",
                 ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".ico", ""}  # fmt: skip
NO_CLASS = {"images", "image", "imgs", "img", "photos", "photo", "pictures", "jpegimages", "dcim", "data", "train",
            "training", "val", "valid", "validation", "test", "gallery", "query", "queries"}  # fmt: skip
MAX_FILE_BYTES = 500_000_000
ZIP_DAMAGE = (*DAMAGE, zipfile.BadZipFile, NotImplementedError)

Problem = tuple[str, str]  # file, reason
PathLike = str | Path
Source = PathLike | tuple[str, bytes] | Sequence[PathLike | tuple[str, bytes]]


@dataclass(frozen=True)
class Item:
    """Name one photo to be added."""

    path: str  # absolute; for a zip's member the zip's path, a slash, its name in there; for bytes their name
    read: Callable[[], bytes]
    label: str | None = None
    stamp: tuple[int, int] | None = None  # (bytes, modification time in ns) of a file, None for others
    only_here: bool = False  # there is no file to read it from again

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rsplit("/", 1)[-1]


@contextmanager
def open_source(source: Source) -> Iterator[tuple[list[Item], list[Problem]]]:
    """List the photos of a folder (with those inside), a zip, one photo, (name, bytes), or a list of these.

    A folder or photo may lie in an object store (s3://bucket/folder). Gives items sorted by name within each folder or
    zip, and problems (file, reason) of what was left out. Zips stay open inside the `with`. Hidden files are passed
    over. Raises ValueError when a source does not exist.
    """
    sources = [source] if isinstance(source, str | Path) or _is_named_bytes(source) else list(source)
    items: list[Item] = []
    problems: list[Problem] = []
    with ExitStack() as stack:
        for one in sources:
            if _is_named_bytes(one):
                name, data = one
                items.append(Item(str(name), lambda data=data: data, only_here=True))
            elif is_address(one):
                _list_address(one, items, problems)
            else:
                _list_path(Path(one), items, problems, stack)
        yield items, problems


def read_again(path: str) -> bytes:
    """Read a photo from the path that an index holds, also out of a zip; raises ValueError when it is gone."""
    file = Path(path)
    try:
        if is_address(path):
            return read_file(path)
        if file.is_file():
            return file.read_bytes()
        archive = next((parent for parent in file.parents if parent.is_file()), None)
        if archive is None:
            raise ValueError(f"{path} is gone; put it back, or remove or rename it in the index")
        with zipfile.ZipFile(archive) as opened:
            return opened.read(file.relative_to(archive).as_posix())
    except ZIP_DAMAGE as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{path} cannot be read ({error}); put it back, or remove or rename it") from error


def class_label(name: PurePosixPath) -> str | None:
    """Return the folder that a file lies in, seen from the folder or zip that was given, if it names a class."""
    parent = name.parent.name
    return parent if parent and parent.lower() not in NO_CLASS else None


def _is_named_bytes(source) -> bool:
    return isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], bytes | bytearray)


def _list_path(path: Path, items: list[Item], problems: list[Problem], stack: ExitStack) -> None:
    path = path.expanduser().absolute()
    if path.is_dir():
        _list_folder(path, items, problems)
    elif path.suffix.lower() == ".zip" and path.is_file():
        _list_zip(path, items, problems, stack)
    elif path.is_file():
        _append(items, problems, path, None)
    else:
        raise ValueError(f"{path} does not exist; give a folder, a zip or photos")


def _list_folder(folder: Path, items: list[Item], problems: list[Problem]) -> None:
    for root, folders, files in os.walk(folder):  # does not follow links to folders
        # sorted in place: os.walk goes into them in this order. An index that lies inside is no photo.
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")) and not f.endswith(".lance"))
        for file in sorted(files):
            path = Path(root, file)
            if not _is_hidden(file):
                _append(items, problems, path, class_label(PurePosixPath(path.relative_to(folder).as_posix())))


def _list_address(address: str, items: list[Item], problems: list[Problem]) -> None:
    for path, name, stamp in list_files(address):
        if any(_is_hidden(part) or part.endswith(".lance") for part in name.parts):
            continue
        if name.suffix.lower() in PICTURE_TYPES:
            items.append(Item(path, partial(read_file, path), class_label(name), stamp))
        else:
            problems.append((path, _no_photo(name.suffix)))


def _append(items: list[Item], problems: list[Problem], path: Path, label: str | None) -> None:
    if path.suffix.lower() not in PICTURE_TYPES:
        problems.append((str(path), _no_photo(path.suffix)))
        return
    try:
        status = path.stat()
    except OSError as error:  # a link that leads nowhere
        problems.append((str(path), f"cannot be read ({error.strerror}); check it"))
        return
    if not stat.S_ISREG(status.st_mode):
        problems.append((str(path), "is no regular file; left out"))
        return
    items.append(Item(path.as_posix(), path.read_bytes, label, (status.st_size, status.st_mtime_ns)))


def _list_zip(path: Path, items: list[Item], problems: list[Problem], stack: ExitStack) -> None:
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except ZIP_DAMAGE as error:
        raise ValueError(f"{path.name} is no zip or damaged ({error}); pack it again") from error
    seen: set[PurePosixPath] = set()
    for member in sorted(archive.infolist(), key=lambda member: member.filename):
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if member.is_dir() or any(_is_hidden(part) for part in name.parts if part != ".."):
            continue
        reason = _refuse_member(member, name, seen)
        seen.add(name)
        if reason:
            problems.append((f"{path.as_posix()}/{name}", reason))
            continue
        inside = name.relative_to(name.parts[0]) if name.parts[0] == path.stem else name
        # the size bounds what is read: zipfile stops at what a member declares
        items.append(Item(f"{path.as_posix()}/{name}", lambda member=member: archive.read(member), class_label(inside)))


def _refuse_member(member: zipfile.ZipInfo, name: PurePosixPath, seen: set[PurePosixPath]) -> str | None:
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        return "its path leads out of the archive; not read"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link; put the file itself into the archive"
    if member.flag_bits & 1:
        return "is encrypted; pack it without a password"
    if member.file_size > MAX_FILE_BYTES:
        return f"is larger than {MAX_FILE_BYTES // 1_000_000} MB; scale it down"
    if name in seen:
        return "occurs twice in the archive; keep one"
    return None if name.suffix.lower() in PICTURE_TYPES else _no_photo(name.suffix)


def _no_photo(suffix: str) -> str:
    return f"is no photo that can be read ({suffix}); left out"


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini")
