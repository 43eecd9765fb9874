"""Batches for the training step: which photos come next, read one batch ahead, as crops and masks on the device."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch
from torch import Tensor

from . import distributed
from .augment import MultiCrop
from .config import FinetuneConfig
from .data import PhotoCache
from .masking import block_masks
from .network import StartingBackbone


@dataclass
class Sampler:
    """Yield n photos in batches, each once before any repeats.

    Every epoch is shuffled by the seed and its own number; batches continue across epochs, so none is short. With world
    ranks each takes its own slice of a common batch of batch_size * world. weights (n,): draw in proportion instead,
    with replacement, n to an epoch.
    """

    n: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1
    weights: Sequence[float] | None = None
    position: int = 0  # photos given out so far, by all ranks together

    def __post_init__(self) -> None:
        if self.n < 1 or self.batch_size < 1:
            raise ValueError(f"a sampler needs a photo and a batch of 1 or more, got {self.n} and {self.batch_size}")
        if self.weights is not None and len(self.weights) != self.n:
            raise ValueError(f"weights must be given for each of the {self.n} photos, got {len(self.weights)}")
        self._order: tuple[int, list[int]] = (-1, [])

    def next(self) -> list[int]:
        """Return this rank's indices of the next batch, 0 to n - 1."""
        start = self.position + self.rank * self.batch_size
        self.position += self.batch_size * self.world
        return [self._at(position) for position in range(start, start + self.batch_size)]

    def state_dict(self) -> dict[str, int]:
        """Return what a new sampler of the same settings needs to continue."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from what `state_dict` returned."""
        self.position = state["position"]

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self.n)
        if self._order[0] != epoch:
            self._order = (epoch, self._shuffled(epoch))
        return self._order[1][offset]

    def _shuffled(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % (1 << 63))
        if self.weights is None:
            return torch.randperm(self.n, generator=generator).tolist()
        weights = torch.as_tensor(self.weights, dtype=torch.float64)
        return torch.multinomial(weights, self.n, replacement=True, generator=generator).tolist()


class BatchLoader:
    """Load each step's crops and masks.

    All randomness of a step comes from the seed, the step and the rank, so that a resumed run draws what an
    uninterrupted one would have drawn. Use as a context manager: it holds a thread that reads one batch ahead.

    Args:
        cache: Of the photos.
        training: Indices of those that are trained on.
        config: Of the run.
        start: Gives patch size and normalisation.
        device: To which batches are moved.
    """

    def __init__(
        self,
        cache: PhotoCache,
        training: list[int],
        config: FinetuneConfig,
        start: StartingBackbone,
        device: torch.device,
    ):
        self.cache, self.training, self.config, self.device = cache, training, config, device
        self.sampler = Sampler(len(training), config.batch_size, config.seed, distributed.rank(), distributed.world())
        self._grid = (config.global_size // start.backbone.patch_size,) * 2
        self._crop = MultiCrop(
            n_global=2,
            global_size=config.global_size,
            global_scale=config.global_scale,
            n_local=config.n_local,
            local_size=config.local_size,
            local_scale=config.local_scale,
            mean=start.mean,
            std=start.std,
            flip=config.flip,
            colour=config.colour,
        )
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="photos")
        self._ahead = self._position = None

    def next(self, step: int, part: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the next batch.

        Args:
            step: Number of the optimiser step.
            part: Which of the batches that add up to the step.

        Returns:
            Global crops (2, B, 3, H, W), local crops (L, B, 3, h, w) or None, masks (2B, N) bool or None.
        """
        images, self._position = (self._ahead or self._read()).result()
        self._ahead = self._read()
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, step, part, distributed.rank()))
        global_crops, local_crops = self._crop(images, generator)
        masks = None
        if self.config.ibot_weight:
            masks = block_masks(
                2 * len(images), self._grid, self.config.mask_ratio, self.config.mask_probability, generator
            ).to(self.device)
        return global_crops, local_crops if self.config.n_local else None, masks

    def drain(self) -> None:
        """Wait until nothing is being read: the cache serves one thread at a time."""
        if self._ahead:
            wait([self._ahead])

    def state_dict(self) -> dict:
        """Return the position after the last batch that was returned."""
        return self._position or self.sampler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Continue after the batch after which `state_dict` was called."""
        self._ahead, self._position = None, None
        self.sampler.load_state_dict(state)

    def __enter__(self) -> "BatchLoader":
        return self

    def __exit__(self, *_error) -> None:
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _read(self):
        """Start reading the sampler's next batch; the result holds the sampler's state after it."""
        indices = [self.training[i] for i in self.sampler.next()]
        position = self.sampler.state_dict()
        return self._reader.submit(lambda: (self._load(indices), position))

    def _load(self, indices: list[int]) -> list[Tensor]:
        images = self.cache.batch(indices)
        if self.device.type == "cuda":
            return [image.pin_memory().to(self.device, non_blocking=True) for image in images]
        return [image.to(self.device) for image in images]


def seed_of(*parts: int) -> int:
    """Return one seed mixed from integers."""
    mixed = 0
    for part in parts:  # a linear congruence with Knuth's MMIX constants
        mixed = ((mixed ^ part) * 6364136223846793005 + 1442695040888963407) % (1 << 63)
    return mixed
