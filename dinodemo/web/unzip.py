"""Unpack an uploaded zip of photos without trusting anything it says."""

import re
import stat
import zipfile
from pathlib import Path, PurePosixPath

from ..io.images import DAMAGE

PHOTO = re.compile(r"\.(jpe?g|jpe|jfif|mpo|png|webp|gif|bmp|tiff?|heic|heif|avif|jp2)$", re.IGNORECASE)
MOST_FILES = 20_000
MOST_BYTES = 5_000_000_000  # of all files
MOST_OF_ONE = 500_000_000
CHUNK = 1 << 20


def unpack(path: Path, folder: Path, most_bytes: int = MOST_BYTES) -> list[tuple[str, str]]:
    """Write a zip's photos into a folder, with their sub-folders; returns (name, reason) of what was left out.

    Members that lead out of the folder, links, encrypted ones, archives in the archive and what is no photo are left
    out. Raises ValueError for a file that is no zip, holds too many files, or more bytes than it may (counted while
    they are written: what the zip declares is not believed).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MOST_FILES:
                raise ValueError(f"{path.name} holds {len(members)} files; {MOST_FILES} are the most that are taken")
            problems, left = [], most_bytes
            for member in members:
                if member.is_dir() or _is_hidden(member):
                    continue
                reason = _reason_against(member)
                if reason:
                    problems.append((_shown(member.filename), reason))
                    continue
                left = _write(archive, member, folder / _safe(member.filename), left, problems)
            return problems
    except (*DAMAGE, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{path.name} is no zip or damaged ({error}); pack it again") from error


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int, problems: list) -> int:
    """Copy one member; returns how many bytes may still come."""
    target.parent.mkdir(parents=True, exist_ok=True)
    number, stem = 1, target.stem
    while target.exists():  # two names that became the same
        number += 1
        target = target.with_stem(f"{stem} ({number})")
    try:
        with archive.open(member) as source, target.open("wb") as file:
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ValueError("the zip unpacks to more than is taken; leave some photos out")
                file.write(chunk)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        target.unlink(missing_ok=True)
        problems.append((_shown(member.filename), f"is damaged ({error})"))
    return left


def _reason_against(member: zipfile.ZipInfo) -> str | None:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        return "its path leads out of the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > MOST_OF_ONE:
        return f"is larger than {MOST_OF_ONE // 1_000_000} MB"
    return None if PHOTO.search(name.name) else "is no photo that can be read"


def _is_hidden(member: zipfile.ZipInfo) -> bool:
    parts = member.filename.replace("\\", "/").split("/")
    return any((part.startswith(".") and part != "..") or part in ("__MACOSX", "Thumbs.db") for part in parts)


def _safe(name: str) -> PurePosixPath:
    """Return a member's path without control characters and without parts too long for a file system."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    clean = ["".join(c for c in part if c.isprintable()).strip() or "_" for part in parts]
    last = PurePosixPath(clean[-1])
    return PurePosixPath(*(part[:100] for part in clean[:-1]), last.stem[:100] + last.suffix)


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:120]
