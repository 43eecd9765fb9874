"""Where photos come from: folders, zips and lists become items, each with a path, a label and a way to its bytes."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ...io.archives import Entry, Problem, is_hidden, open_entries, printable, read_member
from ...io.files import is_photo
from ...io.zips import Limits
from ...scale.addresses import is_address, list_files, read_file

NO_CLASS = {
    "images",
    "image",
    "imgs",
    "img",
    "photos",
    "photo",
    "pictures",
    "jpegimages",
    "dcim",
    "data",
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "test",
    "gallery",
    "query",
    "queries",
}
LIMITS = Limits(files=1_000_000, total_bytes=1_000_000_000_000)  # photos are read one by one
FOLDER_LIMITS = Limits(files=1_000_000_000)
HELD_LIMITS = Limits(total_bytes=500_000_000)  # of a zip that came from anybody, and whose photos are held in memory

if TYPE_CHECKING:
    from typing import TypeGuard

PathLike = str | Path
Source = PathLike | tuple[str, bytes] | Sequence[PathLike | tuple[str, bytes]]


@dataclass(frozen=True)
class Item:
    """A photo to be added."""

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
def open_source(source: Source, limits: Limits = LIMITS) -> Iterator[tuple[list[Item], list[Problem]]]:
    """List the photos of a source. Zips stay open inside the `with`. Hidden files are passed over.

    Args:
        source: A folder (with those inside), a zip, one photo, (name, bytes), or a list of these. A folder or photo may
            lie in an object store (s3://bucket/folder).
        limits: Of a zip.

    Yields:
        Items sorted by name within each folder or zip, and problems (file, reason) of what was left out.

    Raises:
        ValueError: A source does not exist.
    """
    sources = [source] if isinstance(source, str | Path) or _is_named_bytes(source) else list(source)
    items: list[Item] = []
    problems: list[Problem] = []
    with ExitStack() as stack:
        for one in sources:
            if _is_named_bytes(one):
                name, data = one
                items.append(Item(str(name), partial(bytes, data), only_here=True))
            elif isinstance(one, str) and is_address(one):
                _list_address(one, items, problems)
            elif isinstance(one, str | Path):
                _list_path(Path(one), items, problems, stack, limits)
            else:
                raise ValueError(f"a source must be a path or (name, bytes), got {type(one).__name__}")
        yield items, problems


def read_again(path: str, sha256: str) -> bytes:
    """Return a photo's bytes from the path that an index holds, also out of a zip.

    Args:
        path: That the index holds.
        sha256: Of the content when it was added.

    Raises:
        ValueError: When it is gone, or the file holds something else than when it was added.
    """
    data = _read_path(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path} has changed since it was added; add it or its folder again")
    return data


def _read_path(path: str) -> bytes:
    file = Path(path)
    try:
        if is_address(path):
            return read_file(path)
        if file.is_file():
            return file.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); put it back, or remove it from the index") from error
    archive = next((parent for parent in file.parents if parent.is_file()), None)
    if archive is None:
        raise ValueError(
            f"{path} is gone; put it back, add the folder where it lies now, or tell the index where that is "
            "(`dinodemo index --relocate OLD NEW`)"
        )
    return read_member(archive, PurePosixPath(file.relative_to(archive).as_posix()), LIMITS)


def class_label(name: PurePosixPath) -> str | None:
    """Return the folder that a file lies in, seen from the folder or zip that was given, if it names a class."""
    parent = name.parent.name
    return parent if parent and parent.lower() not in NO_CLASS else None


def _is_named_bytes(source: object) -> "TypeGuard[tuple[str, bytes]]":
    return isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], bytes | bytearray)


def _list_path(path: Path, items: list[Item], problems: list[Problem], stack: ExitStack, limits: Limits) -> None:
    path = path.expanduser().absolute()
    folder, archive = path.is_dir(), path.suffix.lower() == ".zip"
    if not path.exists():
        raise ValueError(f"{printable(str(path))} does not exist; give a folder, a zip or photos")
    if not _is_utf8(path):  # no table can hold the paths of what lies in it
        problems.append((printable(str(path)), "its path is not UTF-8; rename it"))
        return
    found = open_entries(
        path if folder or archive else [path],
        FOLDER_LIMITS if folder else limits,
        _reason_against if folder or archive else _reason_against_named,
        _is_hidden,
    )
    entries, left_out = stack.enter_context(found)
    if archive and not folder:
        entries = sorted(entries, key=lambda entry: str(entry.name))
    for entry in entries:
        items.append(_item(entry, path))
    above = path if folder or archive else path.parent
    problems += [(f"{above.as_posix()}/{name}", reason) for name, reason in left_out]


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _item(entry: Entry, source: Path) -> Item:
    if entry.path is None:
        name, wrapper = entry.name, entry.name.parts[0] == source.stem
        return Item(entry.where, entry.read, class_label(name.relative_to(name.parts[0]) if wrapper else name))
    stamp = None if entry.size is None or entry.mtime_ns is None else (entry.size, entry.mtime_ns)
    return Item(entry.where, entry.read, class_label(entry.name), stamp)


def _list_address(address: str, items: list[Item], problems: list[Problem]) -> None:
    for path, name, stamp in list_files(address):
        if any(_is_hidden(part) for part in name.parts):
            continue
        if reason := _reason_against(name):
            problems.append((path, reason))
        else:
            items.append(Item(path, partial(read_file, path), class_label(name), stamp))


def _reason_against(name: PurePosixPath) -> str | None:
    return None if is_photo(name) else f"is no photo that can be read ({name.suffix or 'no suffix'}); left out"


def _reason_against_named(name: PurePosixPath) -> str | None:
    return _reason_against(name) if name.suffix else None  # phones upload photos without one


def _is_hidden(part: str) -> bool:
    return is_hidden(part) or part.endswith(".lance")  # an index that lies inside is no photo
