"""The activations that enter the tail: V views of each photo, computed once, in a memory-mapped file."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..io.files import read_json, write_json
from ..io.images import load_image
from .augment import MultiCrop
from .budget import TRUNK_SHARE, Clock, plan_views
from .config import FinetuneConfig
from .data import PhotoCache
from .evaluate import centre
from .loader import seed_of
from .network import StartingBackbone, autocast
from .trunk import run_trunk

CHUNK = 32  # photos that the trunk sees at once
SAVED = 20  # chunks between two notes of how far the file is filled
VIEWS = 4  # of each photo in a run without a time budget


class ActivationCache:
    """Keep the trunk's activations of V views of n photos in one memory-mapped file, (V, n, T, D).

    float16: 11 bits of the value, of which training notices nothing. `done` counts the rows that a run has gone
    through, view by view, and `stored` those that the file holds: a resumed run finds the rows of before in it.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int], dtype: Any = np.float16):
        self.folder, self.shape = folder, shape
        self.done = self.stored = 0
        folder.mkdir(parents=True, exist_ok=True)
        path, about = folder / "activations.npy", read_json(folder / "activations.json")
        same = about.get("shape") == list(shape) and path.is_file()
        try:
            self._rows = np.lib.format.open_memmap(
                path, mode="r+" if same else "w+", dtype=dtype, shape=None if same else shape
            )
        except OSError as error:
            raise RuntimeError(f"the activations do not fit on the disk ({error.strerror}); lower views") from error
        if same:
            self.stored = int(about["stored"])

    @property
    def total(self) -> int:
        """Return how many rows there are to fill."""
        return self.shape[0] * self.shape[1]

    @property
    def complete(self) -> bool:
        """Return whether all rows are filled."""
        return self.done >= self.total

    def next_rows(self, most: int) -> tuple[int, list[int]]:
        """Return the view and the photos (0 to n - 1) of the next rows to fill, at most `most`."""
        view, first = divmod(self.done, self.shape[1])
        return view, list(range(first, min(first + most, self.shape[1])))

    def pass_over(self, count: int) -> Tensor | None:
        """Return the next rows (B, T, D) where the file holds them, None where they are still to be filled."""
        if self.done + count > self.stored:
            return None
        view, first = divmod(self.done, self.shape[1])
        self.done += count
        return self.get(np.full(count, view), np.arange(first, first + count))

    def fill(self, hidden: Tensor) -> None:
        """Store activations (B, T, D) as the next rows."""
        view, first = divmod(self.done, self.shape[1])
        self._rows[view, first : first + len(hidden)] = hidden.float().cpu().numpy()
        self.done += len(hidden)
        self.stored = max(self.stored, self.done)

    def save(self) -> None:
        """Note on the disk how far the file is filled."""
        self._rows.flush()
        write_json(self.folder / "activations.json", {"shape": list(self.shape), "stored": self.stored})

    def get(self, views: Tensor | np.ndarray, photos: Tensor | np.ndarray) -> Tensor:
        """Return activations (B, T, D) float32 of rows by view and photo, (B,) each."""
        return torch.from_numpy(np.asarray(self._rows[np.asarray(views), np.asarray(photos)], np.float32))

    @property
    def views_of(self) -> np.ndarray:
        """Return how many views of each photo the run has gone through, (n,)."""
        whole, rest = divmod(self.done, self.shape[1])
        return whole + (np.arange(self.shape[1]) < rest)


class Trunk:
    """Compute the activations of a run's photos, a chunk at a time.

    View 0 is the centre of a photo, as evaluations see it; the others are random crops. `order` lists the photos in use
    (indices into the cache of photos), shuffled, so that any beginning of it is a fair sample. Rows whose photo cannot
    be read are False in `readable`.
    """

    def __init__(
        self,
        cache: PhotoCache,
        photos: Sequence[int],
        config: FinetuneConfig,
        start: StartingBackbone,
        device: torch.device,
        folder: Path,
        clock: Clock,
    ):
        self.cache, self.config, self.device, self.folder, self.clock = cache, config, device, folder, clock
        self.module = start.module
        self._mean, self._std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (start.mean, start.std))
        self._crop = MultiCrop(
            n_global=1,
            global_size=config.global_size,
            global_scale=config.global_scale,
            n_local=0,
            mean=start.mean,
            std=start.std,
            flip=config.flip,
            colour=config.colour,
            blur=False,
        )
        generator = torch.Generator().manual_seed(seed_of(config.seed, len(photos)))
        shuffled = [photos[i] for i in torch.randperm(len(photos), generator=generator).tolist()]
        first, seconds = self._first(shuffled)
        views, n = self._plan(len(photos), first.shape, seconds)
        self.order = shuffled[:n]
        self.rows = ActivationCache(folder, (views, n, *first.shape[1:]))
        self.readable = np.ones(n, bool)

    @property
    def views(self) -> int:
        """Return how many views each photo will have."""
        return self.rows.shape[0]

    @property
    def width(self) -> int:
        """Return the width of the tokens."""
        return self.rows.shape[3]

    @property
    def complete(self) -> bool:
        """Return whether the trunk's work is done: all rows are filled, or its share of the time is used up."""
        if self.rows.complete:
            return True
        late = self.clock.elapsed > TRUNK_SHARE * 60 * self.clock.minutes
        return bool(self.clock.minutes) and late and self.rows.done > 0

    @property
    def chunks(self) -> int:
        """Return into how many chunks the rows are divided."""
        return self.views * -(-self.rows.shape[1] // CHUNK)

    def fill(self) -> tuple[int, list[int], Tensor]:
        """Compute the next chunk; returns its view, its readable rows (indices into `order`) and their activations."""
        view, rows = self.rows.next_rows(CHUNK)
        found = self.rows.pass_over(len(rows))
        if found is not None:  # of a run that is resumed
            seen = found.flatten(1).any(dim=1)
            self.readable[rows] = seen.numpy()
            return view, [row for row, good in zip(rows, seen.tolist(), strict=True) if good], found[seen]
        kept = self.cache.readable([self.order[row] for row in rows])
        self.readable[[row for row in rows if self.order[row] not in kept]] = False
        good = [row for row in rows if self.readable[row]]
        hidden = torch.zeros(len(rows), *self.rows.shape[2:])
        if good:
            hidden[[row - rows[0] for row in good]] = self._encode(view, [self.order[row] for row in good])
        self.rows.fill(hidden)
        if self.rows.complete or self.rows.done // CHUNK % SAVED == 0:
            self.rows.save()
        return view, good, self.rows.get(np.full(len(good), view), np.array(good, int))

    def look_at(self, paths: Sequence[Path]) -> Tensor:
        """Return the activations of other photos' centres (n, T, D)."""
        images = [torch.tensor(load_image(path)).permute(2, 0, 1).to(self.device) for path in paths]
        return self._run(self._centres(images))

    def remove(self) -> None:
        """Delete the file of activations."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _encode(self, view: int, photos: list[int]) -> Tensor:
        images = [image.to(self.device) for image in self.cache.batch(photos)]
        if view:
            generator = torch.Generator().manual_seed(seed_of(self.config.seed, view, photos[0]))
            pixels = self._crop(images, generator)[0][0]
        else:
            pixels = self._centres(images)
        return self._run(pixels)

    def _centres(self, images: list[Tensor]) -> Tensor:
        pixels = torch.stack([centre(image, self.config.global_size) for image in images])
        return (pixels - self._mean) / self._std

    def _run(self, pixels: Tensor) -> Tensor:
        with autocast(self.device, self.config.precision, trunk=True):
            hidden, self.context = run_trunk(self.module, pixels, self.config.tail_blocks)
        return hidden.float().cpu()

    def _first(self, photos: list[int]) -> tuple[Tensor, float]:
        """Return the activations of the first readable photos, and the seconds that one photo takes."""
        for i in range(0, len(photos), CHUNK):
            chunk = self.cache.readable(photos[i : i + CHUNK])
            if chunk:
                self._encode(0, chunk[:2])  # the first pass is slower than those that follow
                began = time.perf_counter()
                return self._encode(0, chunk), (time.perf_counter() - began) / len(chunk)
        raise RuntimeError(f"none of the {len(photos)} photos can be read; the first: {self.cache.problems[0][1]}")

    def _plan(self, photos: int, shape: torch.Size, seconds: float) -> tuple[int, int]:
        """Return views and photos: those of a run that is resumed, or as many as time and disk allow."""
        before = read_json(self.folder / "activations.json").get("shape")
        if before and before[2:] == list(shape[1:]):
            return before[0], before[1]
        size = 2 * shape[1] * shape[2]
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = min(self.config.activation_bytes, 0.5 * shutil.disk_usage(self.folder).free) / size
        if not self.clock.minutes:
            return plan_views(photos, rows, self.config.views or min(VIEWS, max(2, int(rows // photos))))
        return plan_views(photos, min(rows, TRUNK_SHARE * max(self.clock.left, 1) / seconds), self.config.views)
