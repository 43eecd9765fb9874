"""Block masks and schedules."""

import math

import pytest
import torch
from scipy import ndimage

from dinodemo.train.masking import block_masks
from dinodemo.train.optim import cosine, warmup


def masks(seed=0, **options):
    return block_masks(
        options.pop("batch", 40),
        options.pop("grid", (16, 16)),
        **options,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_exactly_the_asked_number_of_pictures_is_masked(probability):
    assert int(masks(probability=probability).any(dim=1).sum()) == round(40 * probability)


def test_shares_are_spread_over_the_bounds():
    shares = masks(batch=200, probability=1.0).float().mean(dim=1).sort().values
    assert shares[0] < 0.13 and shares[-1] > 0.42 and shares.max() <= 0.5
    assert shares.mean() == pytest.approx(0.3, abs=0.03)


def test_masks_come_in_blocks():
    for mask in masks(probability=1.0, ratio=(0.3, 0.3)).reshape(-1, 16, 16):
        _, pieces = ndimage.label(mask.numpy())
        assert pieces <= 12 < int(mask.sum()), "single patches strewn about would be some sixty pieces"


def test_the_generator_decides():
    assert torch.equal(masks(3), masks(3)) and not torch.equal(masks(3), masks(4))


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (1, 7), (7, 7), (5, 31)])
def test_small_and_odd_grids_still_mask(grid):
    found = masks(grid=grid, probability=1.0)
    assert found.shape == (40, grid[0] * grid[1]) and found.any(dim=1).all()


@pytest.mark.parametrize("options", [{"ratio": (0.5, 0.1)}, {"ratio": (0.1, 1.5)}, {"probability": -0.1}])
def test_impossible_bounds_are_refused(options):
    with pytest.raises(ValueError, match="0 to 1"):
        masks(**options)


def test_cosine_goes_from_start_to_end_after_its_warmup():
    schedule = cosine(1.0, 0.2, total=110, warmup=10, warmup_start=0.5)
    assert schedule(0) == 0.5 and schedule(5) == pytest.approx(0.75) and schedule(10) == 1.0
    assert schedule(109) == pytest.approx(0.2) and schedule(1000) == 0.2
    along = 30 / 99
    assert schedule(40) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * along)) / 2)


def test_warmup_rises_and_stays():
    schedule = warmup(0.04, 0.07, 30)
    assert [schedule(s) for s in (0, 15, 30, 500)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert warmup(0.04, 0.07, 0)(0) == 0.07


def test_impossible_lengths_are_refused():
    with pytest.raises(ValueError, match="warmup"):
        cosine(1, 0, total=5, warmup=6)
    with pytest.raises(ValueError, match="0 steps"):
        warmup(0, 1, -1)
