"""Which files make RGB-D pairs: photos, depth maps, and the tables that name them."""

from pathlib import PurePosixPath

from ...io.archives import BadFile, Entry, Problem
from ...io.files import DEPTH_SUFFIXES as DEPTH_TYPES
from ...io.files import is_photo
from ...io.zips import Limits

__all__ = [
    "DEPTH_TYPES",
    "LIMITS",
    "LIST_TYPES",
    "TABLE",
    "BadFile",
    "Entry",
    "Problem",
    "read_bytes",
    "reason_against",
]

TABLE = "depth.json"
LIST_TYPES = {".csv", ".txt"}  # that may name pairs
LIMITS = Limits()


def read_bytes(entry: Entry) -> bytes:
    """Return a file's bytes; raises BadFile when it cannot be read or is too large."""
    return entry.read()


def reason_against(name: PurePosixPath) -> str | None:
    """Return why a file is left out; None for one that may belong to a pair, "" for read-me files and licences."""
    if name.stem.upper() in ("README", "LICENSE", "LICENCE", "CREDITS"):
        return ""
    if name.name == TABLE or name.suffix.lower() in LIST_TYPES or name.suffix.lower() in DEPTH_TYPES or is_photo(name):
        return None
    return "is neither a photo nor a depth map (16-bit PNG, TIFF or PGM, PFM, npy, exr); left out"
