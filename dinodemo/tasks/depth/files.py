"""Where RGB-D files come from: a folder, a zip, or lists of files, as entries that nothing was read from yet."""

import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}
PHOTO_TYPES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".heic", ".heif", ".avif", ".bmp", ".tif", ".tiff",
               ".ppm"}  # fmt: skip
DEPTH_TYPES = {".png", ".tif", ".tiff", ".npy", ".exr"}
TABLE = "depth.json"
MAX_FILES = 20_000
MAX_TOTAL_BYTES = 8_000_000_000  # of a zip when unpacked
MAX_FILE_BYTES = 500_000_000
ZIP_DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
              ValueError)  # fmt: skip

Problem = tuple[str, str]  # file, reason


@dataclass(frozen=True)
class Entry:
    """Name a file by its path inside the folder or zip, and say how to get its bytes."""

    name: PurePosixPath
    read: Callable[[], bytes]
    path: Path | None = None  # where it lies on the disk


class BadFile(ValueError):
    """Carry which file is bad, and why."""

    def __init__(self, entry: Entry, reason: str):
        super().__init__(reason)
        self.entry, self.reason = entry, reason


def read_bytes(entry: Entry) -> bytes:
    """Return a file's bytes; raises BadFile when it cannot be read or is too large."""
    try:
        if entry.path is not None and entry.path.stat().st_size > MAX_FILE_BYTES:
            raise BadFile(entry, f"is larger than {MAX_FILE_BYTES // 1_000_000} MB; scale it down")
        return entry.read()
    except BadFile:
        raise
    except ZIP_DAMAGE as error:
        raise BadFile(entry, f"cannot be read ({error}); copy or pack it again") from error


def list_entries(paths: Iterable[str | Path]) -> list[Entry]:
    """Make entries of single files, named by their file names."""
    return [Entry(PurePosixPath(Path(path).name), Path(path).read_bytes, Path(path)) for path in paths]


def folder_entries(folder: Path) -> tuple[list[Entry], list[Problem]]:
    """List a folder with those inside it; raises ValueError for more than `MAX_FILES` files."""
    entries, problems = [], []
    for root, _, files in os.walk(folder):  # does not follow links to folders
        for file in files:
            path = Path(root, file)
            name = PurePosixPath(path.relative_to(folder).as_posix())
            if reason := _refuse(name):
                problems.append((str(name), reason))
            elif not _is_unrelated(name):
                entries.append(Entry(name, path.read_bytes, path))
            if len(entries) > MAX_FILES:
                raise ValueError(f"{folder.name} holds more than {MAX_FILES} files; split it")
    return entries, problems


def zip_entries(archive: zipfile.ZipFile, title: str) -> tuple[list[Entry], list[Problem]]:
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
        elif not _is_unrelated(name):
            entries.append(Entry(name, lambda member=member: archive.read(member)))
    return entries, problems


def _refuse_member(member: zipfile.ZipInfo, name: PurePosixPath, seen: set[PurePosixPath]) -> str | None:
    if not name.parts or name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        return "its path leads out of the archive; not read"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link; put the file itself into the archive"
    if member.flag_bits & 1:
        return "is encrypted; pack it without a password"
    if member.file_size > MAX_FILE_BYTES:
        return f"is larger than {MAX_FILE_BYTES // 1_000_000} MB; scale it down"
    return "occurs twice in the archive; keep one" if name in seen else None


def _refuse(name: PurePosixPath) -> str | None:
    if _is_unrelated(name) or name.name == TABLE:
        return None
    if name.suffix.lower() in ARCHIVES:
        return "is an archive inside; unpack it first"
    if name.suffix.lower() not in PHOTO_TYPES | DEPTH_TYPES:
        return "is neither a photo nor a depth map; left out"
    return None


def _is_unrelated(name: PurePosixPath) -> bool:
    """Tell what comes along and harms nobody: what systems leave behind, licences and read-me files."""
    hidden = any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini") for part in name.parts)
    return hidden or name.stem.upper() in ("README", "LICENSE", "LICENCE", "CREDITS")
