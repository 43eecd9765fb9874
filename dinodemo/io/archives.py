"""One safe reader of folders, zips and lists of files: entries with clean names, and what was left out with a reason.

A zip may come from anybody. Nothing of it is unpacked to the disk here, no name in it can lead out of a folder, and
what it declares bounds what is read of it: the sizes that it declares are checked before anything is read, and
zipfile gives no byte of a member beyond them. What breaks a rule is named and left out; the rest goes on.
"""

import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .zips import (
    DAMAGE,
    WAY_OUT,
    Limits,
    clean_name,
    files_in,
    member_reason,
    misplaced_members,
    name_reason,
    open_zip,
    reason_of,
    too_deep,
    too_large,
    unpack_member,
)

ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})

MOST_LETTERS = 500  # of a reason: readers quote what they find in a file

Problem = tuple[str, str]  # file, reason
Source = str | Path | Iterable[str | Path | tuple[str, bytes]]
Accept = Callable[[PurePosixPath], str | None]


@dataclass(frozen=True)
class Entry:
    """A file, by its path inside the folder or zip, and how to get its bytes; nothing was read yet."""

    name: PurePosixPath  # relative, without `..` and control characters
    load: Callable[[], bytes]
    path: Path | None = None  # where it lies on the disk, None for what lies in a zip or in memory
    archive: Path | None = None  # the zip it lies in
    size: int | None = None  # bytes
    mtime_ns: int | None = None  # of a file on the disk

    @property
    def where(self) -> str:
        """Return the file's path; for a zip's member the zip's path, a slash, its name in there."""
        if self.path is not None:
            return self.path.as_posix()
        return str(self.name) if self.archive is None else f"{self.archive.as_posix()}/{self.name}"

    def read(self) -> bytes:
        """Return the bytes; raises BadFile when they cannot be read or are more than is allowed."""
        try:
            return self.load()
        except DAMAGE as error:
            raise BadFile(self, f"cannot be read ({reason_of(error)}); copy or pack it again") from error


class BadFile(ValueError):
    """An entry that is bad, and why.

    Args:
        entry: The entry.
        reason: Why, in words.
    """

    def __init__(self, entry: Entry, reason: str):
        reason = reason if len(reason) <= MOST_LETTERS else f"{reason[:MOST_LETTERS]}..."
        super().__init__(reason)
        self.entry, self.reason = entry, reason


class Entries(NamedTuple):
    """What a source gives: the entries, and (file, reason) for what was left out."""

    entries: list[Entry]
    problems: list[Problem]


@dataclass(frozen=True)
class _Listing:
    """What a source gives, gathered under one set of rules."""

    limits: Limits
    accept: Accept
    hidden: Callable[[str], bool]
    stack: ExitStack
    found: Entries = field(default_factory=lambda: Entries([], []))

    def leave_out(self, name: str, reason: str | None) -> None:
        """Note what was left out; an empty reason is one that nobody needs to know."""
        if reason:
            self.found.problems.append((printable(name), reason))


def take_all(name: PurePosixPath) -> str | None:
    """Return None for every name: every file is taken."""
    return None


def is_hidden(part: str) -> bool:
    """Return whether a file or folder is one that systems leave behind, or a hidden one."""
    return part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini")


def printable(name: str) -> str:
    """Return a name as it can be shown: on one line, of a sensible length, and in UTF-8."""
    return "".join(c if c.isprintable() else "?" for c in name[:300])


@contextmanager
def open_entries(
    source: Source, limits: Limits | None = None, accept: Accept = take_all, hidden: Callable[[str], bool] = is_hidden
) -> Iterator[Entries]:
    """List the files of a folder (with those inside), of a zip, or of a list, without reading them.

    Args:
        source: A folder, a zip, another file, or a list of these and of (name, bytes). In a list a zip is a file.
        limits: What is read at most; the usual limits by default.
        accept: Returns why a file with this name is left out: None takes it, "" leaves it out without a word.
        hidden: Tells of a file's or folder's name whether it is passed over without a word.

    Yields:
        The entries and the problems. Each folder's own files come first, sorted, then its folders; a zip's entries
        come in its order. Entries of a zip can be read inside the `with` only, by several threads too.

    Raises:
        ValueError: When the source does not exist, is no zip though it is called one, or goes beyond the limits.
    """
    with ExitStack() as stack:
        listing = _Listing(limits or Limits(), accept, hidden, stack)
        if not isinstance(source, str | Path):
            _list_files(source, listing)
        elif (path := Path(source)).is_dir():
            _list_folder(path, listing)
        elif not path.is_file():
            raise ValueError(f"{path.name} does not exist; give a folder, a zip or photos")
        elif path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
            _list_zip(path, listing)
        else:
            _list_files([path], listing)
        yield listing.found


def read_member(archive: Path, name: PurePosixPath, limits: Limits | None = None) -> bytes:
    """Return the bytes of one member of a zip.

    Args:
        archive: The zip.
        name: That its entry had.
        limits: Of what may be read.

    Raises:
        ValueError: When the zip or the member is gone, damaged, or must not be read.
    """
    with open_entries(archive, limits, lambda other: None if other == name else "") as (entries, problems):
        if entries:
            return entries[0].read()
        reason = dict(problems).get(printable(str(name)), "is no longer there")
        raise ValueError(f"{name} in {archive.name}: {reason}")


def _list_files(files: Iterable[str | Path | tuple[str, bytes]], listing: _Listing) -> None:
    for one in files:
        if isinstance(one, tuple):
            name, data = clean_name(str(one[0])), bytes(one[1])
            reason = name_reason(name, listing.limits)
            reason = _kind_reason(name, listing.accept) if reason is None else reason
            if reason is None and len(data) > listing.limits.file_bytes:
                reason = too_large(listing.limits)
            listing.leave_out(str(one[0]), reason)
            if reason is None:
                listing.found.entries.append(Entry(name, partial(bytes, data), size=len(data)))
        else:
            _add_file(Path(one), PurePosixPath(Path(one).name), None, listing)
        _check_count("the list", listing)


def _list_folder(folder: Path, listing: _Listing) -> None:
    root = os.path.realpath(folder)

    def failed(error: OSError) -> None:
        listing.leave_out(os.path.relpath(error.filename, folder), f"cannot be read ({error.strerror}); check it")

    for current, folders, files in os.walk(folder, onerror=failed):  # does not follow links to folders
        inside = PurePosixPath(Path(current).relative_to(folder).as_posix())
        # in place: os.walk goes into them in this order
        folders[:] = sorted(name for name in folders if not listing.hidden(name))
        for file in sorted(name for name in files if not listing.hidden(name)):
            _add_file(Path(current, file), inside / file, root, listing)
            _check_count(folder.name, listing)
        if folders and len(inside.parts) >= listing.limits.depth:
            listing.leave_out(str(inside / folders[0]), too_deep(listing.limits))
            folders.clear()


def _add_file(path: Path, name: PurePosixPath, root: str | None, listing: _Listing) -> None:
    """List a file of the disk; root: the folder that links may not lead out of."""
    reason = _kind_reason(name, listing.accept)
    if reason is not None:
        listing.leave_out(str(name), reason)
    elif root is not None and path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
        listing.leave_out(str(name), "is a link that leads out of the folder; put the file itself there")
    else:
        try:
            status = path.stat()
            str(name).encode()
        except OSError as error:
            listing.leave_out(str(name), f"cannot be read ({reason_of(error)}); check it")
        except UnicodeError:
            listing.leave_out(str(name), "its name is not UTF-8; rename it")
        else:
            if not stat.S_ISREG(status.st_mode):
                listing.leave_out(str(name), "is no regular file; left out")
            elif status.st_size > listing.limits.file_bytes:
                listing.leave_out(str(name), too_large(listing.limits))
            else:
                load = partial(_read_file, path, listing.limits.file_bytes)
                entry = Entry(name, load, path, size=status.st_size, mtime_ns=status.st_mtime_ns)
                listing.found.entries.append(entry)


def _list_zip(path: Path, listing: _Listing) -> None:
    limits = listing.limits
    archive = listing.stack.enter_context(open_zip(path, limits))
    by_name: dict[PurePosixPath, list[zipfile.ZipInfo]] = {}
    for info in files_in(archive):
        by_name.setdefault(clean_name(info.filename), []).append(info)
    misplaced = misplaced_members(archive)
    for name, (info, *others) in by_name.items():
        reason = name_reason(name, limits)
        if reason != WAY_OUT and any(listing.hidden(part) for part in name.parts):
            continue
        reason = reason or member_reason(info, limits) or misplaced.get(info.header_offset)
        reason = _kind_reason(name, listing.accept) if reason is None else reason
        if reason is None:
            load = partial(unpack_member, archive, info)
            listing.found.entries.append(Entry(name, load, archive=path, size=info.file_size))
            if others:
                times = "twice" if len(others) == 1 else f"{len(others) + 1} times"
                listing.leave_out(info.filename, f"occurs {times} in the archive; keep one")
        else:
            for spelling in dict.fromkeys(one.filename for one in (info, *others)):
                listing.leave_out(spelling, reason)


def _kind_reason(name: PurePosixPath, accept: Accept) -> str | None:
    reason = accept(name)
    archive = name.suffix.lower() in ARCHIVE_SUFFIXES
    return "is an archive inside; unpack it first" if archive and reason != "" else reason


def _read_file(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most // 1_000_000} MB")
    return data


def _check_count(title: str, listing: _Listing) -> None:
    if len(listing.found.entries) > listing.limits.files:
        raise ValueError(f"{title} holds more than {listing.limits.files} files; split it")
