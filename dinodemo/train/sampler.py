"""Which photos make up the next batch: shuffled epochs without end, the same after a restart."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass
class Sampler:
    """Deal n photos out in batches, all of them once before any comes again.

    Every epoch is shuffled by the seed and its own number; batches run on over its end, so none is short. With world
    ranks each takes its own slice of a common batch of batch_size * world. weights (n,): draw in proportion instead,
    with replacement, n to an epoch.
    """

    n: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1
    weights: Sequence[float] | None = None
    position: int = 0  # photos dealt out so far, by all ranks together

    def __post_init__(self):
        if self.n < 1 or self.batch_size < 1:
            raise ValueError(f"a sampler needs a photo and a batch of 1 or more, got {self.n} and {self.batch_size}")
        if self.weights is not None and len(self.weights) != self.n:
            raise ValueError(f"weights must be given for each of the {self.n} photos, got {len(self.weights)}")
        self._order: tuple[int, list[int]] = (-1, [])

    def next(self) -> list[int]:
        """Return this rank's indices of the next batch, 0 to n - 1."""
        start = self.position + self.rank * self.batch_size
        self.position += self.batch_size * self.world
        return [self._at(place) for place in range(start, start + self.batch_size)]

    def state_dict(self) -> dict[str, int]:
        """Return what a new sampler of the same settings needs to go on."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a state."""
        self.position = state["position"]

    def _at(self, place: int) -> int:
        epoch, offset = divmod(place, self.n)
        if self._order[0] != epoch:
            self._order = (epoch, self._shuffled(epoch))
        return self._order[1][offset]

    def _shuffled(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % (1 << 63))
        if self.weights is None:
            return torch.randperm(self.n, generator=generator).tolist()
        weights = torch.as_tensor(self.weights, dtype=torch.float64)
        return torch.multinomial(weights, self.n, replacement=True, generator=generator).tolist()
