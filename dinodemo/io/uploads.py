"""Files that a person sent: where the server keeps them, and how they are put into a folder under their own names."""

import hashlib
import os
import shutil
from pathlib import Path, PurePosixPath

from .archives import open_entries
from .files import is_photo

Uploaded = list[tuple[Path, PurePosixPath]]  # where the server keeps a file, what it is called with its folders


def put_into(uploaded: Uploaded, folder: Path) -> None:
    """Put uploaded files into a folder under their own names, linked where that is possible; a taken name is kept.

    Args:
        uploaded: The files.
        folder: To fill.

    Raises:
        ValueError: When a file is called as another's folder is.
    """
    copies: dict[PurePosixPath, _Copies] = {}
    for source, name in uploaded:
        try:
            copies.setdefault(name, _Copies(folder / name)).add(source)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise ValueError(f"{str(name)[:80]!r} is the name of a file and of a folder; rename one") from error


class _Copies:
    """The files of one name: different ones are numbered, the same one is kept once."""

    def __init__(self, first: Path):
        self._first, self._count = first, 0
        self._digests: set[bytes] = set()
        self._unread: list[Path] = []  # read only when another file of the name comes

    def add(self, source: Path) -> None:
        """Put a file beside those that there are."""
        while (target := self._next_target()).exists():
            self._count += 1
            self._unread.append(target)
        if self._count:
            self._digests |= {_digest(path) for path in self._unread}
            self._unread.clear()
            if _digest(source) in self._digests:
                return
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(source, target)

    def _next_target(self) -> Path:
        return self._first if not self._count else self._first.with_stem(f"{self._first.stem} ({self._count + 1})")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def photos_in(folder: Path) -> Uploaded:
    """Return a folder's photos as if they had been uploaded; links that lead out of it are left out."""
    if not folder.is_dir():
        return []
    with open_entries(folder, accept=lambda name: None if is_photo(name) else "") as (entries, _):
        found = [(entry.path, entry.name) for entry in entries if entry.path is not None]
        return [(path.resolve(), PurePosixPath(folder.name) / name) for path, name in found]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that cannot link
        shutil.copyfile(source, target)
