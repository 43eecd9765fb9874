"""Feed the step: photos out of the cache, one batch ahead, crops and masks made on the training device."""

from concurrent.futures import ThreadPoolExecutor, wait

import torch
from torch import Tensor

from . import distributed
from .augment import MultiCrop
from .config import FinetuneConfig
from .data import PhotoCache, Sampler
from .masking import block_masks
from .network import Start


class Feed:
    """Give each step its crops and masks.

    All chance of a step comes from the seed, the step and the rank, so that a resumed run draws what the uninterrupted
    one would have drawn. Use as a context manager: it holds a thread that reads one batch ahead.
    """

    def __init__(
        self, cache: PhotoCache, training: list[int], config: FinetuneConfig, start: Start, device: torch.device
    ):
        self.cache, self.training, self.config, self.device = cache, training, config, device
        self.sampler = Sampler(len(training), config.batch_size, config.seed, distributed.rank(), distributed.world())
        self._grid = (config.global_size // start.backbone.patch_size,) * 2
        self._crop = MultiCrop(
            n_global=2, global_size=config.global_size, global_scale=config.global_scale, n_local=config.n_local,
            local_size=config.local_size, local_scale=config.local_scale, mean=start.mean, std=start.std,
            flip=config.flip, colour=config.colour,
        )  # fmt: skip
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="photos")
        self._ahead = self._position = None

    def next(self, step: int, part: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return a batch: global crops (2, B, 3, H, W), local crops (L, B, 3, h, w), masks (2B, N); or None for each.

        part: which of the batches that add up to the step.
        """
        images, self._position = (self._ahead or self._read()).result()
        self._ahead = self._read()
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, step, part, distributed.rank()))
        global_crops, local_crops = self._crop(images, generator)
        masks = None
        if self.config.ibot_weight:
            masks = block_masks(2 * len(images), self._grid, self.config.mask_ratio, self.config.mask_probability,
                                generator).to(self.device)  # fmt: skip
        return global_crops, local_crops if self.config.n_local else None, masks

    def settle(self) -> None:
        """Wait until nothing is being read: the cache serves one thread at a time."""
        if self._ahead:
            wait([self._ahead])

    def state_dict(self) -> dict:
        """Return the position behind the last batch that was given out."""
        return self._position or self.sampler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Go on behind the batch after which `state_dict` was asked."""
        self._ahead, self._position = None, None
        self.sampler.load_state_dict(state)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_error) -> None:
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _read(self):
        """Start reading the sampler's next batch; the result holds the sampler's state behind it."""
        indices = [self.training[i] for i in self.sampler.next()]
        position = self.sampler.state_dict()
        return self._reader.submit(lambda: (self._load(indices), position))

    def _load(self, indices: list[int]) -> list[Tensor]:
        images = self.cache.batch(indices)
        if self.device.type == "cuda":
            return [image.pin_memory().to(self.device, non_blocking=True) for image in images]
        return [image.to(self.device) for image in images]


def seed_of(*parts: int) -> int:
    """Mix whole numbers into one seed."""
    mixed = 0
    for part in parts:  # a linear congruence with Knuth's MMIX constants
        mixed = ((mixed ^ part) * 6364136223846793005 + 1442695040888963407) % (1 << 63)
    return mixed
