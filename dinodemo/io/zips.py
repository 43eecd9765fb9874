"""What a zip may hold: every check of one that comes from anybody, and the only way to its members' bytes.

What a zip declares bounds what is read of it: sizes are checked before anything is read, and zipfile gives no byte of
a member beyond the size that it declares.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path, PurePosixPath

DEVICES = frozenset(
    {
        "CON",
        "PRN",
        "AUX",
        "NUL",
        "CONIN$",
        "CONOUT$",
        *(f"{port}{i}" for port in ("COM", "LPT") for i in "0123456789¹²³"),
    }
)
WAY_OUT = "its path leads out of the archive; not read"
ENCRYPTED = 0x2041  # flags: a password, strong encryption, a masked directory
UTF8 = 0x800  # flag: the name is UTF-8
HEADER_BYTES = 30  # before a member's name, of a fixed size
ENTRY_BYTES = 512  # that a member may take in a zip's directory, on average
# what reading a damaged zip or a disk can raise; RuntimeError includes NotImplementedError
DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError, struct.error)


@dataclass(frozen=True)
class Limits:
    """What is read of one source at most."""

    files: int = 20_000
    file_bytes: int = 500_000_000
    total_bytes: int = 8_000_000_000  # of a zip when unpacked
    ratio: int = 200  # a zip's member unpacks to so many times its size at most, if it is large:
    ratio_from: int = 32_000_000  # bytes
    total_ratio: int = 100  # a whole zip unpacks to so many times its size at most, if that is large:
    total_ratio_from: int = 300_000_000  # bytes
    depth: int = 32  # folders in one another
    name: int = 1024  # letters of a path


@contextmanager
def open_zip(path: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Open a zip and check what it declares of itself.

    Args:
        path: The zip.
        limits: What is read at most.

    Yields:
        The open archive. `member_reason` and `misplaced_members` tell which of its members must not be read.

    Raises:
        ValueError: When it is no zip, or holds more files or bytes than the limits allow.
    """
    try:
        file = _Reader(FileIO(path), limits.files)
    except OSError as error:
        raise _no_zip(path, error) from error
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except _TooLong as error:
            raise ValueError(f"{path.name} lists more than the {limits.files} files that are read; split it") from error
        except DAMAGE as error:
            raise _no_zip(path, error) from error
        file.most = None
        with archive:
            members = files_in(archive)
            total = sum(info.file_size for info in members)
            if len(members) > limits.files or total > limits.total_bytes:
                raise ValueError(
                    f"{path.name} holds {len(members)} files, {total / 1e9:.1f} GB unpacked; at most {limits.files} "
                    f"files and {limits.total_bytes / 1e9:.1f} GB are read; split it"
                )
            readable = sum(info.file_size for info in members if member_reason(info, limits) is None)
            if readable > max(limits.total_ratio_from, limits.total_ratio * path.stat().st_size):
                raise ValueError(
                    f"{path.name} unpacks to more than {limits.total_ratio} times its size, as no photos do; give the "
                    "folder itself, or split it"
                )
            yield archive


def unpacked_size(source: Path | bytes, most: int) -> int:
    """Return the bytes that an archive of arrays (.npz) unpacks to, by what it declares.

    Args:
        source: The file, or its content.
        most: Arrays that it may hold, about: a longer list is not read.

    Raises:
        BadZipFile: It is no archive, or its list is too long; the damage of one may raise the others of `DAMAGE`.
    """
    raw = FileIO(source) if isinstance(source, Path) else BytesIO(source)
    with _Reader(raw, most) as file, zipfile.ZipFile(file) as archive:
        return sum(info.file_size for info in archive.infolist())


def files_in(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return a zip's members but folders, in its order."""
    return [info for info in archive.infolist() if not info.filename.endswith(("/", "\\"))]


def clean_name(raw: str) -> PurePosixPath:
    """Return the path of a name in a zip or an upload, without control characters; it may still lead out."""
    return PurePosixPath("".join(c for c in raw.replace("\\", "/") if c >= " " and not "\x7f" <= c <= "\x9f"))


def name_reason(name: PurePosixPath, limits: Limits) -> str | None:
    """Return why a file of this name must not be read; None for a good name.

    Args:
        name: Of `clean_name`.
        limits: Of what may be read.
    """
    if not name.parts or name.is_absolute() or ":" in name.parts[0] or any(not p.strip(". ") for p in name.parts):
        return WAY_OUT
    if len(name.parts) > limits.depth:
        return too_deep(limits)
    if len(str(name)) > limits.name:
        return f"its name has more than {limits.name} letters; shorten it"
    if any(part.split(".")[0].strip().upper() in DEVICES for part in name.parts):
        return "is called as Windows calls a device; rename it"
    return None


def member_reason(info: zipfile.ZipInfo, limits: Limits) -> str | None:
    """Return why a member must not be read, by what the zip declares of it; None for a good one.

    Args:
        info: Of the member.
        limits: Of what may be read.
    """
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link; put the file itself into the archive"
    if kind not in (0, stat.S_IFREG):
        return "is no regular file; left out"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted; pack it without a password"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile bounds what these two unpack to
        return "is packed in an unusual way; pack it as a plain zip (deflate)"
    if info.file_size > limits.file_bytes:
        return too_large(limits)
    if info.file_size > max(limits.ratio_from, limits.ratio * info.compress_size):
        return f"unpacks to more than {limits.ratio} times its size; put the file itself where the archive is"
    return None


def misplaced_members(archive: zipfile.ZipFile) -> dict[int, str]:
    """Return what is wrong with where members lie, by their place: each needs bytes of its own before the directory."""
    reasons, end = {}, 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        start = info.header_offset
        name = info.orig_filename.encode("utf-8" if info.flag_bits & UTF8 else "cp437", "replace")
        stop = start + HEADER_BYTES + len(name) + info.compress_size
        if start < 0 or stop > archive.start_dir:
            reasons[start] = "lies outside of the archive; pack it again"
        elif start < end:
            reasons[start] = "shares its bytes with another file of the archive; pack it again"
        else:
            end = stop
    return reasons


def unpack_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a member's bytes, as many as it declares; raises one of `DAMAGE`.

    Args:
        archive: The open zip.
        info: Of the member.
    """
    try:
        stream = archive.open(info)
    except UnicodeDecodeError as error:
        raise zipfile.BadZipFile("its name is not UTF-8") from error
    with stream:
        data = stream.read(info.file_size + 1)  # without a number zipfile would unpack all before it counts
    if len(data) != info.file_size:
        raise zipfile.BadZipFile("its size is not what the archive says")
    return data


def too_large(limits: Limits) -> str:
    """Return the reason for a file that is too large."""
    return f"is larger than {limits.file_bytes // 1_000_000} MB; scale it down"


def too_deep(limits: Limits) -> str:
    """Return the reason for a file that lies too deep."""
    return f"lies in more than {limits.depth} folders, one in another; move it up"


def reason_of(error: BaseException) -> str:
    """Return what is wrong, without the path that the system's errors name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _no_zip(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path.name} is not a zip or damaged ({reason_of(error)}); pack it again")


class _TooLong(zipfile.BadZipFile):
    """Raised when a zip's list of members is longer than that of all that may be read."""


class _Reader(BufferedReader):
    """Read a zip's file; until its list of members is read, guard zipfile against what that may hold."""

    def __init__(self, raw: FileIO | BytesIO, files: int):
        super().__init__(raw)  # type: ignore[arg-type]  # whatever has readinto will do
        self.most: int | None = max(1 << 17, files * ENTRY_BYTES)  # bytes of the list

    def read(self, size: int | None = -1) -> bytes:
        if self.most is None:
            return super().read(size)
        if size is not None and size > self.most:
            raise _TooLong("it lists too many files")
        return _mend_names(super().read(size))


def _mend_names(directory: bytes) -> bytes:
    """Read names of a zip's directory that are not the UTF-8 they claim to be as code page 437, as of old.

    zipfile would refuse the whole archive for one of them; now it refuses this member alone, when it is read.
    """
    mended, at = bytearray(directory), 0
    while directory.startswith(b"PK\1\2", at) and at + 46 <= len(directory):
        flags, length, extra, comment = struct.unpack_from("<H18x3H", directory, at + 8)
        try:
            directory[at + 46 : at + 46 + length].decode("utf-8" if flags & UTF8 else "cp437")
        except UnicodeDecodeError:
            struct.pack_into("<H", mended, at + 8, flags & ~UTF8)
        at += 46 + length + extra + comment
    return bytes(mended)
