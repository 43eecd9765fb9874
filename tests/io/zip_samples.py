"""Good, evil and damaged zips, and every reader of zips."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(kind: str, pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


PHOTO = picture("JPEG", np.full((8, 8, 3), 90, np.uint8))
MASK = picture("PNG", np.arange(64, dtype=np.uint8).reshape(8, 8) // 32 * 255)
DEPTH = picture("PNG", np.arange(600, 664, dtype=np.uint16).reshape(8, 8))
GOOD = {"images/good.jpg": PHOTO, "depth/good.png": DEPTH, "masks/good.png": MASK}
HUGE = 1 << 62
METHODS = {"bzip2": 12, "lzma": 14, "unknown": 99}


def member(name: bytes | str, data: bytes, **told) -> dict:
    """Describe a member; what it tells of itself may be lies: size, packed, crc, flags, method, kind, at, extra."""
    return {"name": name.encode() if isinstance(name, str) else name, "data": data, **told}


def build(members: list[dict], tail: bytes = b"") -> bytes:
    """Write a zip byte by byte (APPNOTE 4.3), as no library would."""
    body, directory = b"", b""
    for one in members:
        data, name, method = one["data"], one["name"], one.get("method", 0)
        packed = zlib.compress(data, 9)[2:-4] if method == 8 and not one.get("raw") else data
        size, length = one.get("size", len(data)), one.get("packed", len(packed))
        crc, flags, extra = one.get("crc", zlib.crc32(data)), one.get("flags", 0), one.get("extra", b"")
        at = one.get("at", len(body))
        fields = struct.pack(
            "<HHHHLLLHH", flags, method, 0, 0, crc, min(length, 2**32 - 1), min(size, 2**32 - 1), len(name), len(extra)
        )
        if "at" not in one:
            body += b"PK\3\4" + struct.pack("<H", 45) + fields[:-2] + b"\0\0" + name + packed
        directory += b"PK\1\2" + struct.pack("<HH", 0x032D, 45) + fields
        directory += struct.pack("<HHHLL", 0, 0, 0, one.get("kind", 0o100644) << 16, min(at, 2**32 - 1)) + name + extra
    end = struct.pack("<HHHHLLH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end + tail


def zip64(*values: int) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)


def crc_of_a_prefix(data: bytes, size: int) -> dict:
    return {"size": size, "crc": zlib.crc32(data[:size])}


EVIL = {  # what it is -> the member, which follows the good ones
    "leads up": member("../evil.jpg", PHOTO),
    "leads up inside": member("a/../../evil.jpg", PHOTO),
    "leads up with backslashes": member("..\\evil.jpg", PHOTO),
    "is absolute": member("/etc/evil.jpg", PHOTO),
    "is on a share": member("//server/evil.jpg", PHOTO),
    "is on a drive": member("C:\\evil.jpg", PHOTO),
    "leads up once cleaned": member(".\n./evil.jpg", PHOTO),
    "has a folder of dots and spaces": member("a/.. /evil.jpg", PHOTO),
    "has no name": member("", PHOTO),
    "is a link": member("evil.jpg", b"/etc/passwd", kind=0o120777),
    "is a pipe": member("evil.jpg", b"", kind=0o010644),
    "is a device": member("evil.jpg", b"", kind=0o020644),
    "is a folder that is none": member("evil.jpg", b"", kind=0o040755),
    "is encrypted": member("evil.jpg", PHOTO, flags=1),
    "is encrypted strongly": member("evil.jpg", PHOTO, flags=0x40),
    **{f"is packed by {name}": member("evil.jpg", PHOTO, method=number) for name, number in METHODS.items()},
    "is called as a device": member("images/CON.jpg", PHOTO),
    "is called as another device": member("com1/evil.jpg", PHOTO),
    "lies too deep": member("d/" * 40 + "evil.jpg", PHOTO),
    "has a name too long": member("x" * 2000 + ".jpg", PHOTO),
    "is a zip": member("evil.zip", build([member("inner.jpg", PHOTO)])),
    "is another archive": member("evil.tar.gz", b"\x1f\x8b"),
    "is larger than a file may be": member("evil.jpg", PHOTO, size=600_000_000),
    "unpacks to too much": member("evil.jpg", PHOTO, size=100_000_000),
    "lies beyond the end": member("evil.jpg", PHOTO, at=1 << 30),
    "reaches into the directory": member("evil.jpg", PHOTO, packed=1 << 20),
    "lies inside another": member("images/evil.jpg", PHOTO, at=40, packed=9),
    "lies beyond the end by 64 bits": member("evil.jpg", PHOTO, at=HUGE, extra=zip64(HUGE)),
    "is packed to more than there is by 64 bits": member("evil.jpg", PHOTO, packed=HUGE, extra=zip64(HUGE)),
}
DAMAGED = {  # what can only be seen when it is read
    "is larger than it says": member("images/evil.jpg", PHOTO, size=len(PHOTO) - 5),
    "is smaller than it says": member("images/evil.jpg", PHOTO, size=len(PHOTO) + 5),
    "is packed larger than it says": member("images/evil.jpg", b"\0" * 9_000_000, method=8, size=10),
    "has another checksum": member("images/evil.jpg", PHOTO, crc=1),
    "is not packed as it says": member("images/evil.jpg", b"\xff" * 99, method=8, raw=True),
    "has a name that is not UTF-8": member(b"images/\xff.jpg", PHOTO, flags=0x800),
    "is patched data": member("images/evil.jpg", PHOTO, flags=0x20),
}


def as_finetune(path: Path, folder: Path) -> tuple[list[str], list]:
    from dinodemo.tasks.finetune.photo_store import unpack

    problems = unpack(path, folder / "out")
    return sorted(p.name for p in (folder / "out").rglob("*") if p.is_file() and "good" in p.name), problems


def as_depth(path: Path, folder: Path) -> tuple[list[str], list]:
    from dinodemo.tasks.depth import read_pairs

    pairs, problems = read_pairs(path)
    return [pair.name for pair in pairs], problems


def as_masks(path: Path, folder: Path) -> tuple[list[str], list]:
    from dinodemo.tasks.segmentation_head import read_pairs

    pairs, problems = read_pairs(path, out=folder / "out")
    return [photo.name for photo, _ in pairs], problems


def as_retrieval(path: Path, folder: Path) -> tuple[list[str], list]:
    from dinodemo.tasks.retrieval.sources import open_source

    with open_source(path) as (items, problems):
        read = []
        for item in items:
            try:
                read.append(item.read())
            except ValueError as error:
                problems.append((item.path, str(error)))
    return [data for data in read if data == PHOTO], problems


READERS = {"depth": as_depth, "masks": as_masks, "retrieval": as_retrieval, "finetune": as_finetune}


def good_for(reader: str) -> list[dict]:
    """Return the good members that a reader makes something of, and no others."""
    kinds = {"depth": ("images", "depth"), "masks": ("images", "masks")}.get(reader, ("images",))
    return [member(name, data) for name, data in GOOD.items() if name.startswith(kinds)]


def about(problems: list) -> list[str]:
    """Return what was said, but for what each says of a photo that lacks its partner."""
    return [reason for _, reason in problems if "of the same name" not in reason]


def pack(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
