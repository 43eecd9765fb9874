"""Where a person's training photos lie, and what can be said of them."""

import contextlib
import math
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ...io import clock
from ...io.archives import BadFile, Entry, Problem, open_entries
from ...io.files import is_photo, looks_like_photo, write_file
from ...io.uploads import Uploaded, put_into
from ...io.zips import Limits

if TYPE_CHECKING:
    from ...jobs.runs import Limits as RunLimits
    from ...jobs.runs import Runs

PHOTOS = "photos"  # beside a person's runs
MOST_BYTES = 5_000_000_000  # that a zip unpacks to
ASK_DISK_EVERY = 50_000_000  # bytes written
NO_PHOTO = "is no photo, whatever its name says"
HEAD_BYTES = 16  # of a file, by which it is seen to be no photo
_TOKEN = re.compile(r"[0-9a-f]{16}")
Report = Callable[[int, int, str], None]  # (done, total, message)


def never() -> bool:
    """Return False: nobody asks to stop."""
    return False


def nobody(done: int, total: int, message: str) -> None:
    """Take a progress that nobody looks at."""


@dataclass(frozen=True)
class Photos:
    """A folder of uploaded photos."""

    token: str
    folder: Path
    paths: tuple[Path, ...]
    size: int  # bytes
    classes: dict[str, int]  # photos of each first folder, where every photo lies in one of two or more


class PhotoStore:
    """Each person's uploaded photos, in folders of unguessable names beside the runs.

    Whoever watches the runs sweeps the photos of all persons, too.
    """

    def __init__(self, runs: "Runs"):
        self._runs = runs
        runs.clean_with(self.sweep_all)

    def new(self) -> str:
        """Make up the token of a new folder."""
        return secrets.token_hex(8)

    def current(self, owner: str) -> str | None:
        """Return the token of the photos that a person added last and has not put away; None if there are none."""
        folders = [p for p in _folders(self._runs.owner_folder(owner)) if not _mark(p).exists()]
        return max(folders, key=lambda p: p.stat().st_mtime).name if folders else None

    def put_away(self, owner: str, token: str) -> None:
        """Forget photos: they are removed, or kept unseen while a run of theirs may still be resumed."""
        folder = self.folder(owner, token)
        _mark(folder).touch()
        self._sweep(self._runs.owner_folder(owner))

    def sweep_all(self) -> None:
        """Remove the photos of all persons that were put away or are too old, unless a run needs them."""
        for person in self._runs.root.glob("*/"):
            self._sweep(person)

    def _sweep(self, person: Path) -> None:
        needed = [folder.resolve() for folder in self._runs.folders_in(person)]
        for folder in _folders(person):
            if any(path.is_relative_to(folder.resolve()) for path in needed):
                continue
            if _mark(folder).exists() or clock.age(folder.stat().st_mtime) > self._runs.limits.age_days * 86400:
                shutil.rmtree(folder, ignore_errors=True)
                _mark(folder).unlink(missing_ok=True)
        for empty in (person / PHOTOS, person):
            with contextlib.suppress(OSError):  # it holds something, or is just being used
                empty.rmdir()

    def _room(self, owner: str) -> "_Room":
        """Return how much may still be written for a person, now."""
        own = self._runs.owner_folder(owner)
        sizes = {person: sum(map(_size, _folders(person))) for person in {*self._runs.root.glob("*/"), own}}
        return _Room(self._runs.root, self._runs.limits, sizes[own], sum(sizes.values()))

    def folder(self, owner: str, token: str | None) -> Path:
        """Return a folder of photos; raises ValueError for a token that is none."""
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError("there are no photos yet; choose a folder, photos or a zip first")
        return self._runs.owner_folder(owner) / PHOTOS / token

    def add(
        self, owner: str, token: str, uploaded: Uploaded, stopped: Callable[[], bool] = never, report: Report = nobody
    ) -> list[Problem]:
        """Add uploaded photos, zips unpacked.

        Args:
            owner: The person's key.
            token: Of the folder that they go to.
            uploaded: Where the server keeps the files, and what they are called.
            stopped: Asked before each file of a zip whether to stop; what was unpacked until then stays.
            report: Told a hundred times a zip at most how many of its files are done.

        Returns:
            (name, reason) of what was left out.

        Raises:
            ValueError: When the person, or all persons together, would keep too much.
            RuntimeError: When the disk is nearly full. What was written until then stays.
        """
        folder, room = self.folder(owner, token), self._room(owner)
        zips = [one for one in uploaded if one[1].suffix.lower() == ".zip"]
        photos, problems = _photos_of([one for one in uploaded if one[1].suffix.lower() != ".zip"])
        room.take(sum(source.stat().st_size for source, _ in photos))
        folder.mkdir(parents=True, exist_ok=True)
        put_into(photos, folder)
        for source, name in zips:
            found = unpack(source, folder, admit=room.admit, stopped=stopped, report=report)
            problems += [(f"{name.name}: {inner}", reason) for inner, reason in found]
        _make_latest(folder)  # its age counts from now
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
        _make_latest(target)
        return self.describe(owner, token)


class _Room:
    """Counts what is written against what a person, all persons, and the disk may hold."""

    def __init__(self, root: Path, limits: "RunLimits", own: int, total: int):
        self._root, self._limits, self._own, self._total = root, limits, own, total
        self._unseen = math.inf  # bytes since the disk was asked

    def admit(self, content: bytes) -> str | None:
        """Return why a file of a zip is left out, None for a photo that may be written."""
        if not looks_like_photo(content[:HEAD_BYTES]):
            return NO_PHOTO
        self.take(len(content))
        return None

    def take(self, size: int) -> None:
        """Note that `size` bytes are about to be written; raises ValueError or RuntimeError where they may not be."""
        limits = self._limits
        self._own, self._total, self._unseen = self._own + size, self._total + size, self._unseen + size
        if self._own > limits.person_bytes:
            raise ValueError(
                f"one person's photos may take {limits.person_bytes / 1e9:g} GB on this server; put some away, or run "
                "dinodemo on your own machine"
            )
        if self._total > limits.all_bytes:
            raise ValueError("the photos of all visitors fill what this server keeps for them; try again in some days")
        if self._unseen > ASK_DISK_EVERY:
            self._unseen = 0
            self._root.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._root).free - size
            if free < limits.free_disk:
                raise RuntimeError(
                    f"the server's disk has {max(0, free) / 1e9:.1f} GB left, too little; try again later"
                )


def unpack(
    path: Path,
    folder: Path,
    most_bytes: int = MOST_BYTES,
    admit: Callable[[bytes], str | None] = lambda content: None,
    stopped: Callable[[], bool] = never,
    report: Report = nobody,
) -> list[Problem]:
    """Write a zip's photos into a folder, with their sub-folders.

    Args:
        path: The zip; nothing that it says is trusted, see `io.zips`.
        folder: Where the photos go. A taken name gets a number.
        most_bytes: That the zip may unpack to.
        admit: Returns of a file's content why it is left out, None to write it; what it raises ends the work.
        stopped: Asked before each file whether to stop.
        report: Told a hundred times at most how many files are done.

    Returns:
        (name, reason) of what was left out.

    Raises:
        ValueError: For a file that is no zip, holds too many files, or more bytes than it may.
    """
    used: Counter[PurePosixPath] = Counter()
    with open_entries(path, Limits(total_bytes=most_bytes), _reason_against) as (entries, problems):
        for number, entry in enumerate(entries):
            if stopped():
                problems.append((str(entry.name), "stopped here; the rest was left out"))
                break
            if number % max(1, len(entries) // 100) == 0:
                report(number, len(entries), f"{number} of {len(entries)} files")
            if reason := _unpack_one(entry, folder, admit, used):
                problems.append((str(entry.name), reason))
        return problems


def _unpack_one(
    entry: Entry, folder: Path, admit: Callable[[bytes], str | None], used: Counter[PurePosixPath]
) -> str | None:
    """Write a file of a zip into a folder; returns why it is left out, None when it is there."""
    try:
        content = entry.read()
    except BadFile as bad:
        return bad.reason
    if reason := admit(content):
        return reason
    try:
        write_file(_free_path(folder, _short(entry.name), used), content)
    except (FileExistsError, NotADirectoryError):
        return "its folder is called as a file is; rename one"
    return None


def _photos_of(uploaded: Uploaded) -> tuple[Uploaded, list[Problem]]:
    """Split files into those that begin as photos do, and (name, reason) of the others."""
    photos: Uploaded = []
    problems: list[Problem] = []
    for source, name in uploaded:
        with source.open("rb") as file:
            if looks_like_photo(file.read(HEAD_BYTES)):
                photos.append((source, name))
            else:
                problems.append((str(name), NO_PHOTO))
    return photos, problems


def _folders(person: Path) -> list[Path]:
    return [path for path in (person / PHOTOS).glob("*") if path.is_dir()]


def _make_latest(folder: Path) -> None:
    """Date a folder after its person's others: the latest is the current one, clocks are coarse, and they are set."""
    others = (path.stat().st_mtime_ns for path in _folders(folder.parent.parent) if path != folder)
    later = max(time.time_ns(), max(others, default=0) + 1_000_000)
    os.utime(folder, ns=(later, later))


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _free_path(folder: Path, name: PurePosixPath, used: Counter[PurePosixPath]) -> Path:
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
