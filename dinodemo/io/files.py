"""Files: what ships with the package, suffixes, writes that are whole or not there, locks, names of downloads."""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from filelock import FileLock, Timeout

REPOSITORY = Path(__file__).resolve().parents[2]
PHOTO_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jfif",
        ".jpe",
        ".mpo",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
        ".j2k",
        ".ppm",
        ".pgm",
        ".pbm",
        ".ico",
    }
)
PHOTO_HEADS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"BM",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"II+\0",  # TIFF of more than 4 GB
    b"MM\0+",
    b"\0\0\0\x0cjP  ",  # JPEG 2000
    b"\xff\x4f\xff\x51",
    b"\0\0\1\0",  # ICO
)
MASK_SUFFIXES = frozenset({".png", ".gif", ".bmp", ".tif", ".tiff"})  # pictures that keep whole numbers
DEPTH_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".pgm", ".pfm", ".npy", ".exr"})


def resource_folder(name: str) -> Path:
    """Return the folder of what ships with the package.

    Args:
        name: "assets" or "weights": a folder of the repository, package data where the package is installed.
    """
    return REPOSITORY / name if is_checkout() else Path(str(files("dinodemo") / name))


def is_checkout() -> bool:
    """Return whether the package runs from its repository, where a user's files may lie beside the code."""
    return (REPOSITORY / "weights" / "manifest.json").is_file()


def is_photo(name: str | PurePath) -> bool:
    """Return whether a file's name ends as those of photos that can be read do."""
    return PurePath(name).suffix.lower() in PHOTO_SUFFIXES


def looks_like_photo(head: bytes) -> bool:
    """Return whether a file begins as pictures that can be read do; at least 12 bytes of it decide.

    It is a cheap look before a file is kept: only decoding tells whether it is a good one.
    """
    if head[4:8] == b"ftyp":  # HEIC, AVIF
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    return head.startswith(PHOTO_HEADS) or (head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace())


def refusal_of(error: OSError) -> str:
    """Return in a sentence what the system refused, and where."""
    where = f"{error.filename}: " if error.filename else ""
    reason = (error.strerror or str(error)).lower()
    return f"{where}{reason}; check the folder, its permissions and the free space"


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, with the folders above it.

    Args:
        path: To write.
        content: Of the file.

    Raises:
        OSError: It cannot be written.
    """
    with whole_file(path) as part:
        part.write_bytes(content)


@contextmanager
def whole_file(path: Path, suffix: str = ".part", durable: bool = False) -> Iterator[Path]:
    """Yield a path to write to, which becomes the file when the block ends well and is removed when it does not.

    Args:
        path: The file. The folders above it are made.
        suffix: How the name of the place ends, for writers that go by it; the name begins with a dot.
        durable: Wait until the disk holds the file, so that it also survives a power cut.

    Yields:
        A path beside the file that nobody else writes to.

    Raises:
        OSError: When the file cannot be written.
    """
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if durable:
            sync(part)
        part.replace(path)
        if durable:
            sync(path.parent)
    finally:
        with suppress(OSError):  # the folder itself may be what is wrong
            part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the disk holds a file, or a folder's names; systems that cannot open folders do so by themselves."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_folder(made: Path, target: Path) -> None:
    """Put a finished folder in another's place; the former one comes back when that fails.

    Args:
        made: The new folder, on the same disk. Its name with `.former` added must be free.
        target: The folder that it takes the place of, if there is one.

    Raises:
        OSError: When the folder cannot be moved.
    """
    former = made.with_name(f"{made.name}.former")
    if target.exists():
        target.replace(former)
    try:
        made.replace(target)
    except OSError:
        if former.exists():
            former.replace(target)
        raise
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def lock(path: Path, timeout: float = 0) -> Iterator[bool]:
    """Lock a file. The lock ends with the process, however it ends; it excludes whoever uses flock, too.

    Args:
        path: The lock's file. It is made, stays when the lock is let go, and says nothing of who holds the lock.
        timeout: Seconds to wait while somebody else holds it.

    Yields:
        Whether it is held now.

    Raises:
        OSError: When the file cannot be opened for writing.
    """
    holder = FileLock(path)
    try:
        holder.acquire(timeout=timeout)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        holder.release()


@contextmanager
def tensors_written(path: Path) -> Iterator[None]:
    """Turn what safetensors says while a file is written into the OSError that it was.

    Args:
        path: The file, which the error names.

    Raises:
        OSError: With the number that it tells, or EIO.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all.

    Args:
        path: To write.
        content: What JSON can represent.

    Raises:
        OSError: It cannot be written.
    """
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where the file is missing, cut off or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line, up to the first line that is none; an empty list where it is missing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(content, dict):
            break
        lines.append(content)
    return lines


def stem(name: str) -> str:
    """Return a file name's stem, safe to use in a download's name."""
    kept = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(name).stem)
    return kept[:60] or "picture"


def plural(count: int, noun: str) -> str:
    """Return a number and its noun: "1 photo", "2 photos".

    Args:
        count: How many.
        noun: In the singular.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
