"""Outputs of the network that stay on disk: what the page opens with is computed once, not at every start.

Only work inside of `keeping(folder)` is kept; everything else asks the network as ever.
"""

import contextlib
import contextvars
import hashlib
import logging
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..io.files import whole_file

if TYPE_CHECKING:  # it brings torch, and the page knows of this folder before it does
    from .raw import Raw

MOST_BYTES = 400_000_000  # of the folder; the files unused for longest go first
log = logging.getLogger(__name__)
_folder: contextvars.ContextVar[Path | None] = contextvars.ContextVar("kept_folder", default=None)


@contextlib.contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Let what engines compute inside of this block come from a folder, or be written there.

    Args:
        folder: Made when it is needed. Where it cannot be written, everything is computed anew.
    """
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)
        _tidy(folder)


def through_disk(name: Callable[[], tuple], compute: Callable[[], "Raw"]) -> "Raw":
    """Return what the folder holds under a name, else compute it and write it; outside of `keeping` just compute.

    Args:
        name: Makes what tells the output from all others: weights, input, what was asked. Called only when needed.
        compute: Runs the network.
    """
    folder = _folder.get()
    if folder is None:
        return compute()
    path = folder / f"{hashlib.sha256(repr(name()).encode()).hexdigest()[:40]}.npz"
    raw = _read(path)
    if raw is None:
        raw = compute()
        _write(path, raw)
    return raw


def _read(path: Path) -> "Raw | None":
    from .raw import Raw

    try:
        with np.load(path, allow_pickle=False) as content:
            path.touch()
            arrays = {key: content[key] for key in content.files}
        for array in arrays.values():
            array.flags.writeable = False
        layers = {int(key.removeprefix("layer")): array for key, array in arrays.items() if key.startswith("layer")}
        return Raw(layers, arrays.get("rows"), arrays["norms"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("a kept output is damaged and is made again (%s)", type(error).__name__)
        return None


def _write(path: Path, raw: "Raw") -> None:
    arrays = {f"layer{index}": values for index, values in raw.layers.items()} | {"norms": raw.norms}
    if raw.rows is not None:
        arrays["rows"] = raw.rows
    try:
        with whole_file(path, ".npz") as part:
            np.savez(part, **arrays)  # type: ignore[arg-type]  # its stubs take no names from a dictionary
    except OSError as error:
        log.warning("outputs cannot be kept: %s", error.strerror or error)


def _tidy(folder: Path) -> None:
    with contextlib.suppress(OSError):
        files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.npz"))
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= MOST_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= size
