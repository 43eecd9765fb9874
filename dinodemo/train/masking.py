"""Which patches iBOT masks for the student: blocks of them, in some of the crops."""

import math
import random

import torch
from torch import Tensor

LEAST_ASPECT = 0.3  # of a block, and its inverse at most
LEAST_PATCHES = 4  # of a block, where so many are still wanted
TRIES = 10


def block_masks(
    batch: int,
    grid: tuple[int, int],
    ratio: tuple[float, float] = (0.1, 0.5),
    probability: float = 0.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mask patches of some pictures in blocks.

    The shares are spread evenly over the bounds of `ratio` and assigned to the pictures at random, as in DINOv2's
    collate; blocks as in Bao et al. 2022 (BEiT, arXiv:2106.08254), algorithm 1. A masked picture has 1 patch at least.

    Args:
        batch: Number of pictures.
        grid: Patches (h, w) of each.
        ratio: Bounds of the share of a picture's patches that is masked, 0 to 1.
        probability: Share of the pictures that are masked, 0 to 1.
        generator: On the CPU; torch's own by default.

    Returns:
        (batch, h * w) bool on the CPU, True for masked patches, in round(batch * probability) of the rows.

    Raises:
        ValueError: A bound is outside 0 to 1.
    """
    low, high = ratio
    if not 0 <= low <= high <= 1 or not 0 <= probability <= 1:
        raise ValueError(f"mask ratio and probability must lie in 0 to 1, got {ratio} and {probability}")
    h, w = grid
    # plain Python draws, a hundred times as fast as one-number tensors, seeded by the generator
    draw = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
    masked = round(batch * probability)
    masks = torch.zeros(batch, h * w, dtype=torch.bool)
    rows = draw.sample(range(batch), masked)
    for i, row in enumerate(rows):
        step = (high - low) / masked
        share = draw.uniform(low + i * step, low + (i + 1) * step)
        masks[row] = torch.tensor(_mask(h, w, max(1, int(h * w * share)), draw))
    return masks


def _mask(h: int, w: int, wanted: int, draw: random.Random) -> list[bool]:
    """Mask blocks until `wanted` patches are hidden, or no block fits any more; row by row."""
    mask = [[False] * w for _ in range(h)]
    count = 0
    while count < wanted:
        added = _add_block(mask, wanted - count, draw)
        if not added:
            break
        count += added
    if not count:
        mask[draw.randrange(h)][draw.randrange(w)] = True
    return [patch for row in mask for patch in row]


def _add_block(mask: list[list[bool]], most: int, draw: random.Random) -> int:
    """Mask one random block of at most `most` new patches; returns how many are new."""
    h, w = len(mask), len(mask[0])
    for _ in range(TRIES):
        area = draw.uniform(min(LEAST_PATCHES, most), most)
        aspect = math.exp(draw.uniform(math.log(LEAST_ASPECT), -math.log(LEAST_ASPECT)))
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < tall < h and 0 < wide < w):
            continue
        top, left = draw.randint(0, h - tall), draw.randint(0, w - wide)
        block = [(r, c) for r in range(top, top + tall) for c in range(left, left + wide) if not mask[r][c]]
        if 0 < len(block) <= most:
            for r, c in block:
                mask[r][c] = True
            return len(block)
    return 0
