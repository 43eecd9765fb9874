"""Files: what ships with the package, suffixes, writes that are whole or not there, names of downloads."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PHOTO_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif",
    ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".ico",
})  # fmt: skip


def resource_folder(name: str) -> Path:
    """Return the folder of what ships with the package.

    Args:
        name: "assets" or "weights": a folder of the repository, package data where the package is installed.
    """
    own = REPOSITORY / name
    return own if own.is_dir() and (REPOSITORY / "pyproject.toml").is_file() else Path(str(files("dinodemo") / name))


def is_checkout() -> bool:
    """Return whether the package runs from its repository, where a user's files may lie beside the code."""
    return (REPOSITORY / "pyproject.toml").is_file() and (REPOSITORY / "weights").is_dir()


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, with the folders above it; raises OSError when that cannot be."""
    with whole_file(path) as part:
        part.write_bytes(content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a place to write to, which becomes the file when the block ends well and is removed when it does not."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):  # the folder itself may be what is wrong
            part.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; raises OSError."""
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where the file is missing, cut off or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def stem(name: str) -> str:
    """Make a file name's stem safe to use in a download's name."""
    kept = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(name).stem)
    return kept[:60] or "picture"
