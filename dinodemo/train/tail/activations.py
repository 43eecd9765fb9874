"""The activations that enter the tail: V views of each photo, computed once, in a memory-mapped file."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...io.files import read_json, write_json
from ...io.images import load_image
from ..augment import MultiCrop
from ..config import FinetuneConfig
from ..data import PhotoCache
from ..evaluate import centre
from ..loader import seed_of
from ..network import StartingBackbone, autocast
from ..planning import TRUNK_SHARE, Clock, plan_views
from .blocks import run_trunk

CHUNK = 32  # photos that the trunk sees at once
LEAST = 4  # chunks, whatever the time: two views of 64 photos
SAVED = 20  # chunks between two notes of how far the file is filled
VIEWS = 4  # of each photo in a run without a time budget


class ActivationCache:
    """Keep the trunk's activations of V views of n photos in one memory-mapped file, (V, n, T, D).

    float16: 11 bits of the value, of which training notices nothing. Rows are filled in chunks of photos: two views of
    every chunk first, so that whenever the time is up the photos seen so far can be trained on, then one view after the
    other. `done` counts the chunks that a run has gone through, and `stored` those that the file holds: a resumed run
    finds those of before in it.

    Args:
        folder: Of the file.
        shape: (V, n, T, D).
        chunk: Photos that are filled at once.
        size: Side of the pictures, px; noted beside the file.

    Raises:
        RuntimeError: The disk has no room for the file.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int], chunk: int = CHUNK, size: int = 0):
        self.folder, self.shape, self.size = folder, shape, size
        views, n = shape[:2]
        parts = [range(first, min(first + chunk, n)) for first in range(0, n, chunk)]
        self.schedule = [(view, part) for part in parts for view in range(min(2, views))]
        self.schedule += [(view, part) for view in range(2, views) for part in parts]
        self.views_of = np.zeros(n, int)  # views of each photo that the run has gone through
        self.done = self.stored = 0
        folder.mkdir(parents=True, exist_ok=True)
        path, about = folder / "activations.npy", read_json(folder / "activations.json")
        same = about.get("shape") == list(shape) and path.is_file()
        try:
            self._rows = np.lib.format.open_memmap(
                path, mode="r+" if same else "w+", dtype=np.float16, shape=None if same else shape
            )
        except OSError as error:
            raise RuntimeError(f"the activations do not fit on the disk ({error.strerror}); lower views") from error
        if same:
            self.stored = int(about["stored"])

    @property
    def complete(self) -> bool:
        """Return whether all rows are filled."""
        return self.done >= len(self.schedule)

    def next_rows(self) -> tuple[int, list[int]]:
        """Return the view and the photos (0 to n - 1) of the next chunk."""
        view, photos = self.schedule[self.done]
        return view, list(photos)

    def pass_over(self) -> Tensor | None:
        """Go on to the next chunk and return its rows (B, T, D), None where the file does not hold them."""
        if self.done >= self.stored:
            return None
        view, photos = self.next_rows()
        self._advance()
        return self.get(np.full(len(photos), view), np.array(photos))

    def fill(self, hidden: Tensor) -> None:
        """Store activations (B, T, D) as the next chunk."""
        view, photos = self.next_rows()
        self._rows[view, photos[0] : photos[-1] + 1] = hidden.float().cpu().numpy()
        self._advance()

    def save(self) -> None:
        """Note on the disk how far the file is filled."""
        self._rows.flush()
        write_json(
            self.folder / "activations.json", {"shape": list(self.shape), "size": self.size, "stored": self.stored}
        )

    def get(self, views: Tensor | np.ndarray, photos: Tensor | np.ndarray) -> Tensor:
        """Return the activations of some views of photos.

        Args:
            views: (B,), 0 to V - 1.
            photos: (B,), 0 to n - 1.

        Returns:
            (B, T, D) float32.
        """
        return torch.from_numpy(np.asarray(self._rows[np.asarray(views), np.asarray(photos)])).float()

    def _advance(self) -> None:
        self.views_of[self.next_rows()[1]] += 1
        self.done += 1
        self.stored = max(self.stored, self.done)


class Trunk:
    """Compute the activations of a run's photos, a chunk at a time.

    View 0 is the centre of a photo, as evaluations see it; the others are random crops. `size` is their side in pixels:
    the configured one, or half of it where the time would not suffice for two views of each photo. `order` lists the
    photos in use (indices into the cache of photos), shuffled, so that any beginning of it is a fair sample. Rows whose
    photo cannot be read are False in `readable`. `seconds_of_steps`, once it is set, is the time that the tail needs:
    what a budget leaves beyond it goes to further views.

    Args:
        cache: Of the photos.
        photos: Indices into the cache that may be used.
        config: Of the run.
        start: The backbone.
        device: That it runs on.
        folder: Of the file of activations.
        clock: Of the budget of time.

    Raises:
        RuntimeError: None of the photos can be read.
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
        self._means = start.mean, start.std
        self.size, self._patch = config.global_size, start.backbone.patch_size
        generator = torch.Generator().manual_seed(seed_of(config.seed, len(photos)))
        shuffled = [photos[i] for i in torch.randperm(len(photos), generator=generator).tolist()]
        self.size = read_json(folder / "activations.json").get("size") or self._affordable_size(shuffled)
        shape = self._shape(shuffled)
        views, n = self._plan(len(photos), shape)
        self.order = shuffled[:n]
        self.rows = ActivationCache(folder, (views, n, *shape), size=self.size)
        self.readable = np.ones(n, bool)
        self.seconds_of_steps = float("inf")

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
        late = self.clock.elapsed > TRUNK_SHARE * 60 * self.clock.minutes and self.clock.left < self.seconds_of_steps
        return bool(self.clock.minutes) and late and self.has_some

    @property
    def has_some(self) -> bool:
        """Return whether there is enough to train and to measure on, whatever the time."""
        return self.rows.done >= LEAST

    @property
    def chunks(self) -> int:
        """Return into how many chunks the rows are divided."""
        return len(self.rows.schedule)

    def fill(self) -> tuple[int, list[int], Tensor]:
        """Compute the next chunk; returns its view, its readable rows (indices into `order`) and their activations."""
        view, rows = self.rows.next_rows()
        found = self.rows.pass_over()
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
        if self.rows.complete or self.rows.done % SAVED == 0:
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
            pixels = self._crop()(images, generator)[0][0]
        else:
            pixels = self._centres(images)
        return self._run(pixels)

    def _centres(self, images: list[Tensor]) -> Tensor:
        pixels = torch.stack([centre(image, self.size) for image in images])
        return (pixels - self._mean) / self._std

    def _run(self, pixels: Tensor) -> Tensor:
        with autocast(self.device, self.config.precision, trunk=True):
            hidden, self.context = run_trunk(self.module, pixels, self.config.tail_blocks)
        return hidden.float().cpu()

    def _crop(self) -> MultiCrop:
        config, (mean, std) = self.config, self._means
        return MultiCrop(
            n_global=1,
            global_size=self.size,
            global_scale=config.global_scale,
            n_local=0,
            mean=mean,
            std=std,
            flip=config.flip,
            colour=config.colour,
            blur=False,
        )

    def _affordable_size(self, photos: list[int]) -> int:
        """Return the configured size, or half of it where two views of half of the photos would take too long.

        Fewer photos at full size teach more than all of them at half of it: on solar cells k-NN rose by 3 points with
        630 photos at 224 px, and by less than one with 708 at 112 px.
        """
        tried = self.cache.readable(photos[:CHUNK])[:8]
        if not self.clock.minutes or not tried:
            return self.size
        seconds = []
        for _ in range(3):  # the first pass is slower than those that follow, and the machine may be busy for a moment
            began = time.perf_counter()
            self._encode(0, tried)
            seconds.append((time.perf_counter() - began) / len(tried))
        half = max(1, self.size // 2 // self._patch) * self._patch
        return self.size if min(seconds) * len(photos) <= TRUNK_SHARE * self.clock.left else half

    def _shape(self, photos: list[int]) -> tuple[int, int]:
        """Return tokens and width of a photo's activations, by the first photo that can be read."""
        for i in range(0, len(photos), CHUNK):
            chunk = self.cache.readable(photos[i : i + CHUNK])
            if chunk:
                _, tokens, width = self._encode(0, chunk[:1]).shape
                return tokens, width
        raise RuntimeError(f"none of the {len(photos)} photos can be read; the first: {self.cache.problems[0][1]}")

    def _plan(self, photos: int, shape: tuple[int, int]) -> tuple[int, int]:
        """Return views and photos: those of a run that is resumed, or as many as the disk allows."""
        before = read_json(self.folder / "activations.json").get("shape")
        if before and before[2:] == list(shape):
            return before[0], before[1]
        self.folder.mkdir(parents=True, exist_ok=True)
        free = 0.5 * shutil.disk_usage(self.folder).free
        rows = min(self.config.activation_bytes, free) / (2 * shape[0] * shape[1])
        wanted = self.config.views or (0 if self.clock.minutes else VIEWS)
        return plan_views(photos, rows, min(wanted, max(2, int(rows // photos))))
