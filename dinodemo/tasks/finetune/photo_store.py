"""Where a person's training photos lie, and what can be said of them."""

import re
import secrets
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ...io.archives import BadFile, Problem, open_entries
from ...io.files import is_photo, write_file
from ...io.uploads import Uploaded, place
from ...io.zips import Limits

if TYPE_CHECKING:
    from ...jobs.runs import Runs

PHOTOS = "photos"  # beside a person's runs
MOST_BYTES = 5_000_000_000  # that a zip unpacks to
_TOKEN = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Photos:
    """Hold a folder of uploaded photos."""

    token: str
    folder: Path
    paths: tuple[Path, ...]
    size: int  # bytes
    classes: dict[str, int]  # photos of each first folder, where every photo lies in one of two or more


class PhotoStore:
    """Keep each person's uploaded photos in folders of unguessable names beside the runs."""

    def __init__(self, runs: "Runs"):
        self._runs = runs

    def new(self) -> str:
        """Make up the token of a new folder."""
        return secrets.token_hex(8)

    def current(self, owner: str) -> str | None:
        """Return the token of the photos that a person added last and has not put away; None if there are none."""
        folders = [p for p in self._folders(owner) if not _mark(p).exists()]
        return max(folders, key=lambda p: p.stat().st_mtime).name if folders else None

    def put_away(self, owner: str, token: str) -> None:
        """Forget photos: they are removed, or kept unseen while a run of theirs may still be resumed."""
        folder = self.folder(owner, token)
        _mark(folder).touch()
        self._sweep(owner)

    def _sweep(self, owner: str) -> None:
        """Remove photos that were put away or are too old, unless a run needs them."""
        needed = [Path(folder) for folder in self._runs.folders_of(owner)]
        for folder in self._folders(owner):
            if any(path.is_relative_to(folder.resolve()) for path in needed):
                continue
            if _mark(folder).exists() or time.time() - folder.stat().st_mtime > self._runs.limits.age_days * 86400:
                shutil.rmtree(folder, ignore_errors=True)
                _mark(folder).unlink(missing_ok=True)

    def _folders(self, owner: str) -> list[Path]:
        return [path for path in (self._runs.owner_folder(owner) / PHOTOS).glob("*") if path.is_dir()]

    def folder(self, owner: str, token: str | None) -> Path:
        """Return a folder of photos; raises ValueError for a token that is none."""
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError("there are no photos yet; choose a folder, photos or a zip first")
        return self._runs.owner_folder(owner) / PHOTOS / token

    def add(self, owner: str, token: str, uploaded: Uploaded) -> list[Problem]:
        """Add uploaded photos, zips unpacked; returns (name, reason) of what was left out."""
        folder, problems = self.folder(owner, token), []
        folder.mkdir(parents=True, exist_ok=True)
        zips = [one for one in uploaded if one[1].suffix.lower() == ".zip"]
        place([one for one in uploaded if one[1].suffix.lower() != ".zip"], folder)
        for source, name in zips:
            problems += [(f"{name.name}: {inner}", reason) for inner, reason in unpack(source, folder)]
        return problems

    def describe(self, owner: str, token: str | None) -> Photos:
        """List what a folder holds; raises ValueError when there is none."""
        folder = self.folder(owner, token)
        if not folder.is_dir():
            raise ValueError("these photos are gone; upload them again")
        paths = tuple(sorted(p for p in folder.rglob("*") if p.is_file() and is_photo(p)))
        root = _without_wrapper(folder)
        parts = [path.relative_to(root).parts for path in paths]
        classes = Counter(part[0] for part in parts if len(part) > 1)
        if len(classes) < 2 or any(len(part) == 1 for part in parts):
            classes = Counter()
        return Photos(folder.name, root, paths, sum(p.stat().st_size for p in paths), dict(classes))

    def select(self, owner: str, photos: Photos, left_out: set[Path]) -> Photos:
        """Make a folder of all photos but some, as links; nothing is deleted."""
        if not left_out:
            return photos
        token = self.new()
        target = self.folder(owner, token)
        for path in photos.paths:
            if path not in left_out:
                copy = target / path.relative_to(photos.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                try:
                    copy.hardlink_to(path)
                except OSError:
                    shutil.copyfile(path, copy)
        return self.describe(owner, token)


def unpack(path: Path, folder: Path, most_bytes: int = MOST_BYTES) -> list[Problem]:
    """Write a zip's photos into a folder, with their sub-folders.

    Args:
        path: The zip; nothing that it says is trusted, see `io.zips`.
        folder: Where the photos go. A taken name gets a number.
        most_bytes: That the zip may unpack to.

    Returns:
        (name, reason) of what was left out.

    Raises:
        ValueError: For a file that is no zip, holds too many files, or more bytes than it may.
    """
    used: Counter[PurePosixPath] = Counter()
    with open_entries(path, Limits(total_bytes=most_bytes), _reason_against) as (entries, problems):
        for entry in entries:
            try:
                write_file(_free_place(folder, _short(entry.name), used), entry.read())
            except BadFile as bad:
                problems.append((str(entry.name), bad.reason))
            except (FileExistsError, NotADirectoryError):
                problems.append((str(entry.name), "its folder is called as a file is; rename one"))
        return problems


def _free_place(folder: Path, name: PurePosixPath, used: Counter[PurePosixPath]) -> Path:
    """Return where a file may go; `used` counts how often a name was wanted, so that no place is looked at twice."""
    key = PurePosixPath(str(name).casefold())  # some file systems know no case
    while True:
        used[key] += 1
        number = used[key]
        target = folder / (name if number == 1 else name.with_stem(f"{name.stem} ({number})"))
        if not target.exists():
            return target


def _short(name: PurePosixPath) -> PurePosixPath:
    """Cut the parts of a path that are too long for a file system."""
    folders = [part[:100].strip() or "_" for part in name.parts[:-1]]
    return PurePosixPath(*folders, (name.stem[:100].strip() or "_") + name.suffix)


def _reason_against(name: PurePosixPath) -> str | None:
    return None if is_photo(name) else "is no photo that can be read"


def _mark(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.away")


def _without_wrapper(folder: Path) -> Path:
    """Step into folders that hold nothing but one folder: an uploaded folder comes with its own name around it."""
    while True:
        inside = list(folder.iterdir())
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]
