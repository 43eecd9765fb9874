"""A folder of photos: listed, divided into those trained on and those measured, decoded once into a bounded cache."""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import torch
from torch import Tensor

from ..io.files import is_photo
from ..io.images import load_image
from .config import FinetuneConfig

LEAST_PHOTOS = 8
LEAST_HELD_OUT = 8  # with fewer, the photos of the training are measured instead
LONGEST = 3  # times the short side is kept of a panorama, from its middle
READERS = 4  # threads that decode; the decoders release Python's lock


@dataclass(frozen=True)
class PhotoSet:
    """The photos of a folder."""

    paths: list[Path]
    labels: list[int] | None  # index into class_names for each photo; None where there are no class folders
    class_names: list[str]
    problems: list[tuple[str, str]]  # (file, reason) of what was left out


def scan(folder: str | Path) -> PhotoSet:
    """List the photos of a folder of any depth, sorted; hidden files and links that lead out of it are ignored.

    Args:
        folder: To search.

    Returns:
        The photos; labels are the first folders' names, where every photo lies in one of two or more.

    Raises:
        ValueError: The folder does not exist or holds fewer than 8 photos.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ValueError(f"{folder} is no folder; name a folder of photos")
    root = root.resolve()
    paths, problems = [], []
    for current, folders, files in os.walk(root):  # does not follow links to folders
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(files):
            path = Path(current, name)
            reason = _reason_against(path, root)
            if reason:
                problems.append((path.relative_to(root).as_posix(), reason))
            elif reason is None:
                paths.append(path)
    if len(paths) < LEAST_PHOTOS:
        raise ValueError(f"{folder} holds {len(paths)} photos; training needs {LEAST_PHOTOS} or more, better hundreds")
    labels, names = _labels(root, paths)
    return PhotoSet(paths, labels, names, problems)


def _reason_against(path: Path, root: Path) -> str | None:
    """Return why a file is left out; None when it is used, "" when it is ignored silently."""
    if path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini"):
        return ""
    if not is_photo(path):
        return f"is no photo that can be read ({path.suffix or 'no suffix'})"
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return "is a link that leads out of the folder"
    if not path.is_file():
        return "is no regular file"
    return None if path.stat().st_size else "is empty"


def _labels(root: Path, paths: list[Path]) -> tuple[list[int] | None, list[str]]:
    parts = [path.relative_to(root).parts for path in paths]
    names = sorted({part[0] for part in parts if len(part) > 1})
    if len(names) < 2 or any(len(part) == 1 for part in parts):
        return None, []
    return [names.index(part[0]) for part in parts], names


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the photos that are trained on, and of those that are measured."""

    training: list[int]
    queries: list[int]  # measured
    held_out: bool  # whether queries are excluded from training
    labels: Tensor | None  # (n,) int64 of all photos


def split(photos: PhotoSet, config: FinetuneConfig) -> Split:
    """Hold out a share of the photos, the same of every class, drawn from the seed.

    Args:
        photos: All photos.
        config: Gives seed, holdout and eval_images, the most that are held out.

    Returns:
        The division; with fewer than 8 held out, photos of the training are measured instead.
    """
    n = len(photos.paths)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(config.seed)).tolist()
    labels = None if photos.labels is None else torch.as_tensor(photos.labels)
    share = min(config.holdout, config.eval_images / n)
    classes = [0] * n if labels is None else labels.tolist()
    queries, seen, taken = [], dict.fromkeys(classes, 0), dict.fromkeys(classes, 0)
    for i in order:  # of each class the first, then as many as keep its share
        seen[classes[i]] += 1
        if taken[classes[i]] + 0.5 < share * seen[classes[i]]:
            taken[classes[i]] += 1
            queries.append(i)
    if len(queries) < LEAST_HELD_OUT:
        return Split(list(range(n)), sorted(order[: config.eval_images]), False, labels)
    return Split(sorted(set(order) - set(queries)), sorted(queries), True, labels)


class PhotoCache:
    """Decode each photo once and keep it as bytes. Use as a context manager, from one thread.

    A photo that cannot be read is listed in `problems`; in a batch the next readable one takes its place.

    Args:
        paths: Of the photos; batches name them by their indices.
        short_side: To which photos are scaled down, px.
        max_bytes: That stay in memory; the rest goes to an unnamed file.
        folder: Of that file, the system's temporary one by default.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        short_side: int = 256,
        max_bytes: int = 4 << 30,
        folder: str | Path | None = None,
    ):
        self.paths, self.short_side, self.max_bytes = [Path(path) for path in paths], short_side, max_bytes
        self.folder = None if folder is None else Path(folder)
        self.problems: list[tuple[str, str]] = []
        self._memory: dict[int, np.ndarray] = {}
        self._on_disk: dict[int, tuple[int, tuple[int, ...]]] = {}  # position in the file, shape
        self._broken: set[int] = set()
        self._held = 0  # bytes in memory
        self._file: IO[bytes] | None = None
        self._readers = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="decoder")

    def batch(self, indices: Sequence[int]) -> list[Tensor]:
        """Return photos as (3, H, W) uint8 tensors, in order; raises RuntimeError when none can be read."""
        self._load(indices)
        return [self._photo(i) for i in indices]

    def readable(self, indices: Sequence[int]) -> list[int]:
        """Return those of the indices whose photos can be read, in order; decodes the ones not seen before."""
        self._load(indices)
        return [i for i in indices if i not in self._broken]

    def close(self) -> None:
        """Stop the threads and close the file."""
        self._readers.shutdown(wait=True, cancel_futures=True)
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "PhotoCache":
        return self

    def __exit__(self, *_error) -> None:
        self.close()

    def _load(self, indices: Sequence[int]) -> None:
        missing = [i for i in dict.fromkeys(indices) if not self._known(i)]
        for i, rgb in zip(missing, self._readers.map(self._decode, missing), strict=True):
            self._keep(i, rgb)

    def _known(self, i: int) -> bool:
        return i in self._memory or i in self._on_disk or i in self._broken

    def _decode(self, i: int) -> np.ndarray | ValueError:
        try:
            return shrink(load_image(self.paths[i]), self.short_side)
        except ValueError as error:
            return error

    def _keep(self, i: int, rgb: np.ndarray | ValueError) -> None:
        if isinstance(rgb, ValueError):
            self._broken.add(i)
            self.problems.append((str(self.paths[i]), str(rgb)))
        elif self._held + rgb.nbytes <= self.max_bytes:
            self._memory[i] = rgb
            self._held += rgb.nbytes
        else:
            self._on_disk[i] = (self._append(rgb), rgb.shape)

    def _append(self, rgb: np.ndarray) -> int:
        file = self._opened()
        try:
            position = file.seek(0, os.SEEK_END)
            file.write(rgb.tobytes())
            file.flush()
        except OSError as error:
            raise RuntimeError(
                f"the decoded photos do not fit on the disk ({error.strerror}); free some space, or raise cache_bytes "
                "to keep more in memory"
            ) from error
        return position

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self.folder, prefix="photos-")  # noqa: SIM115 (`close` does)
        return self._file

    def _photo(self, i: int) -> Tensor:
        for shift in range(len(self.paths)):
            j = (i + shift) % len(self.paths)
            if not self._known(j):
                self._keep(j, self._decode(j))
            if j not in self._broken:
                return _as_tensor(self._memory[j] if j in self._memory else self._from_disk(j))
        raise RuntimeError(f"none of the {len(self.paths)} photos can be read; the first: {self.problems[0][1]}")

    def _from_disk(self, i: int) -> np.ndarray:
        position, shape = self._on_disk[i]
        data = os.pread(self._opened().fileno(), int(np.prod(shape)), position)
        return np.frombuffer(bytearray(data), np.uint8).reshape(shape)


def shrink(rgb: np.ndarray, short_side: int) -> np.ndarray:
    """Scale a picture down to a short side, never up; of a panorama the middle is kept.

    Args:
        rgb: (H, W, 3) uint8.
        short_side: Pixels of the result's shorter side.

    Returns:
        (h, w, 3) uint8.
    """
    h, w = rgb.shape[:2]
    longest = LONGEST * min(h, w)
    top, left = max(0, (h - longest) // 2), max(0, (w - longest) // 2)
    rgb = rgb[top : top + min(h, longest), left : left + min(w, longest)]
    scale = short_side / min(h, w)
    if scale >= 1:
        return np.ascontiguousarray(rgb)
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _as_tensor(rgb: np.ndarray) -> Tensor:
    """View (H, W, 3) as (3, H, W); memory stays pixel-interleaved, which is fastest to resample."""
    return torch.from_numpy(np.require(rgb, requirements="W")).permute(2, 0, 1)
