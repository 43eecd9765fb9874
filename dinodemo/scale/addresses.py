"""Photos in an object store: listed and read by addresses such as s3://bucket/folder, gs://... or file:///..."""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def is_address(path: object) -> bool:
    """Return whether a path is the address of an object store."""
    return isinstance(path, str) and "://" in path


def list_files(address: str) -> list[tuple[str, PurePosixPath, tuple[int, int] | None]]:
    """List the files below an address.

    Args:
        address: Of a folder, or of one file. Keys and endpoints come from the store's usual environment variables.

    Returns:
        (address, path as seen from there, (bytes, time of change in ns) where the store knows), sorted by path.

    Raises:
        ValueError: With what to do, when there is nothing or the store refuses.
    """
    from pyarrow.fs import FileSelector, FileType

    address = address.rstrip("/")
    try:
        store, root = _open(address)
        found = store.get_file_info(root)
        infos = [found] if found.type == FileType.File else store.get_file_info(FileSelector(root, recursive=True))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{address} cannot be listed ({error}); check the address and the store's environment variables"
        ) from error
    above = root if found.type != FileType.File else str(PurePosixPath(root).parent)
    folder = address if found.type != FileType.File else address.rsplit("/", 1)[0]
    names = [(PurePosixPath(info.path).relative_to(above), info) for info in infos if info.type == FileType.File]
    return [
        (f"{folder}/{name}", name, None if info.mtime_ns is None else (info.size, info.mtime_ns))
        for name, info in sorted(names, key=lambda pair: pair[0].parts)
    ]


def read_file(address: str) -> bytes:
    """Return the content of one file.

    Raises:
        OSError: When it is gone or the store refuses.
        ValueError: For a malformed address.
    """
    store, path = _open(address)
    with store.open_input_stream(path) as stream:
        return stream.read()


def _open(address: str) -> tuple[FileSystem, str]:
    scheme, _, rest = address.partition("://")
    where, _, path = rest.partition("/")
    if "@" in where or "?" in where:  # an index keeps addresses, and shows them to whoever searches
        raise ValueError("an address may hold no keys and no options; set the store's environment variables instead")
    store, root = _connect(f"{scheme}://{where}" if where else f"{scheme}:///")
    return store, f"{root.rstrip('/')}/{path}"


@cache  # a connection looks for keys and asks for the region: too slow to do for each photo
def _connect(authority: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(authority)
