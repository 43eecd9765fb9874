"""The linear depth head and its losses, against slow and independent references."""

import math

import numpy as np
import pytest
import torch

from dinodemo.tasks.depth import losses
from dinodemo.tasks.depth.head import LinearDepthHead, bin_centres, expected_depth, layer_indices, upsampled


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(3)
    return lambda *shape: torch.randn(shape, generator=generator)


@pytest.mark.parametrize(
    ("depth", "count", "expected"),
    [
        (12, 4, (2, 5, 8, 11)),
        (24, 4, (4, 11, 17, 23)),
        (40, 4, (9, 19, 29, 39)),
        (32, 4, (7, 15, 23, 31)),
        (12, 1, (11,)),
        (3, 1, (2,)),
        (4, 4, (0, 1, 2, 3)),
    ],
)
def test_layers_are_the_published_ones(depth, count, expected):
    assert layer_indices(depth, count) == expected


@pytest.mark.parametrize(("depth", "count"), [(12, 2), (3, 4)])
def test_other_counts_of_layers_are_refused(depth, count):
    with pytest.raises(ValueError, match="1 or 4 layers"):
        layer_indices(depth, count)


def test_bins_are_uniform_and_hold_both_ends():
    centres = bin_centres(0.5, 8.0, 4)
    assert torch.allclose(centres, torch.tensor([0.5, 3.0, 5.5, 8.0]))


def test_expected_depth_agrees_with_a_loop(draw):
    logits, centres = 3 * draw(5, 2, 3), torch.linspace(1, 9, 5)
    for y in range(2):
        for x in range(3):
            weights = [max(float(logits[k, y, x]), 0.0) + 0.1 for k in range(5)]
            slow = sum(w * float(c) for w, c in zip(weights, centres, strict=True)) / sum(weights)
            assert math.isclose(float(expected_depth(logits, centres)[y, x]), slow, rel_tol=1e-5)


def published_forward(patches, cls, weight, bias, low, high):
    """Do what the published head does, in its order: each layer (1, D, h, w) is upsampled, then all are convolved."""
    joined = [torch.cat([p, c[:, :, None, None].expand_as(p)], 1) for p, c in zip(patches, cls, strict=True)]
    size = [4 * side for side in joined[0].shape[2:]]
    fine = [torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False) for x in joined]
    logits = torch.nn.functional.conv2d(torch.cat(fine, 1), weight[:, :, None, None], bias)
    weights = torch.relu(logits) + 0.1
    weights = weights / weights.sum(1, keepdim=True)
    return torch.einsum("bkhw,k->bhw", weights, torch.linspace(low, high, len(bias)))[0]


@pytest.mark.parametrize("layers", [1, 4])
def test_the_head_gives_what_the_published_order_of_steps_gives(draw, layers):
    head = LinearDepthHead(width=6, layers=layers, bins=16, low=0.001, high=10)
    with torch.no_grad():
        head.weight.copy_(draw(16, layers * 12))
        head.bias.copy_(draw(16))
    patches, cls = [draw(1, 6, 3, 5) for _ in range(layers)], [draw(1, 6) for _ in range(layers)]
    expected = published_forward(patches, cls, head.weight, head.bias, 0.001, 10)
    tokens = torch.cat([p[0].permute(1, 2, 0) for p in patches], -1), torch.cat([c[0] for c in cls])
    assert head(*tokens).shape == (12, 20)
    torch.testing.assert_close(head(*tokens), expected, rtol=1e-4, atol=1e-4)


def test_the_mean_patch_is_one_more_part_of_every_layer(draw):
    head = LinearDepthHead(width=6, layers=2, bins=16, low=1, high=10, mean=True)
    with torch.no_grad():
        head.weight.copy_(draw(16, 2 * 18))
        head.bias.copy_(draw(16))
    patches, cls = draw(3, 5, 12), draw(12)
    joined = [
        torch.cat([patches[..., part], cls[part].expand(3, 5, 6), patches[..., part].mean((0, 1)).expand(3, 5, 6)], -1)
        for part in (slice(0, 6), slice(6, 12))
    ]
    logits = (torch.cat(joined, -1) @ head.weight.T + head.bias).permute(2, 0, 1)
    torch.testing.assert_close(
        head(patches, cls), expected_depth(upsampled(logits), head.centres), rtol=1e-4, atol=1e-4
    )


def test_upsampling_by_one_changes_nothing(draw):
    logits = draw(2, 3, 4)
    assert torch.equal(upsampled(logits, 1), logits)


def maps(seed=0, height=14, width=11):
    rng = np.random.default_rng(seed)
    depth, truth = rng.uniform(0.5, 6, (2, height, width))
    truth[rng.random((height, width)) < 0.3] = 0
    return depth, truth


def as_tensors(depth, truth):
    return torch.tensor(depth), torch.tensor(truth), torch.tensor(truth > 0)


def test_scale_invariant_log_agrees_with_a_loop():
    depth, truth = maps()
    g = [math.log(d + 1e-3) - math.log(t + 1e-3) for d, t in zip(depth.flat, truth.flat, strict=True) if t > 0]
    mean = sum(g) / len(g)
    variance = sum((value - mean) ** 2 for value in g) / (len(g) - 1)
    slow = math.sqrt(variance + 0.15 * mean**2)
    assert math.isclose(float(losses.scale_invariant_log(*as_tensors(depth, truth))), slow, rel_tol=1e-6)


def slow_gradient(residual, valid, steps, reach):
    total = 0.0
    for step in steps:
        r, v, change = residual[::step, ::step], valid[::step, ::step], 0.0
        for y in range(r.shape[0]):
            for x in range(r.shape[1]):
                for other in ((y + reach, x), (y, x + reach)):
                    if other[0] < r.shape[0] and other[1] < r.shape[1] and v[y, x] and v[other]:
                        change += abs(r[other] - r[y, x])
        total += change / max(int(v.sum()), 1)
    return total


def test_log_gradient_agrees_with_loops():
    depth, truth = maps()
    residual = np.log(depth + 1e-3) - np.log(truth + 1e-3)
    slow = slow_gradient(residual, truth > 0, (1, 2, 4, 6), reach=2)
    assert math.isclose(float(losses.log_gradient(*as_tensors(depth, truth))), slow, rel_tol=1e-6)


def slow_normalised(depth, valid):
    values = sorted(1 / depth[valid])
    median = values[(len(values) - 1) // 2]
    spread = sum(abs(value - median) for value in values) / len(values)
    return (1 / depth - median) / spread


def test_relative_losses_agree_with_loops():
    depth, truth = maps()
    valid = truth > 0
    truth_or_one = np.where(valid, truth, 1)
    difference = slow_normalised(depth, valid) - slow_normalised(truth_or_one, valid)
    slow = sum(abs(value) for value in difference[valid]) / valid.sum()
    assert math.isclose(float(losses.scale_and_shift_free(*as_tensors(depth, truth))), slow, rel_tol=1e-5)
    slow = slow_gradient(difference, valid, (1, 2, 4, 8), reach=1)
    found = losses.scale_and_shift_free_gradient(*as_tensors(depth, truth))
    assert math.isclose(float(found), slow, rel_tol=1e-5)


def test_relative_loss_sees_neither_scale_nor_shift_of_inverse_depth():
    depth, truth = maps()
    other = np.where(truth > 0, 1 / (0.3 / np.maximum(truth, 1e-3) + 0.7), 0)
    one, two = (float(losses.scale_and_shift_free(*as_tensors(depth, t))) for t in (truth, other))
    assert math.isclose(one, two, rel_tol=1e-5)


ALL_LOSSES = [
    losses.scale_invariant_log,
    losses.log_gradient,
    losses.scale_and_shift_free,
    losses.scale_and_shift_free_gradient,
]


@pytest.mark.parametrize("loss", ALL_LOSSES)
@pytest.mark.parametrize("hole", [0.0, float("nan"), float("inf")])
def test_pixels_without_a_reading_change_neither_loss_nor_gradient(loss, hole):
    depth, truth = maps()
    valid = torch.tensor(truth > 0)
    results = []
    for filler in (0.0, hole):
        given = torch.tensor(depth, requires_grad=True)
        value = loss(given, torch.where(valid, torch.tensor(truth), filler), valid)
        value.backward()
        assert (given.grad[~valid] == 0).all() and given.grad[valid].abs().sum() > 0
        results.append((value.item(), given.grad))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_a_map_without_any_reading_costs_nothing(loss):
    depth = torch.rand(6, 6).add(1).requires_grad_()
    value = loss(depth, torch.zeros(6, 6), torch.zeros(6, 6, dtype=torch.bool))
    value.backward()
    assert value.item() == 0 and (depth.grad == 0).all()


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_a_perfect_map_costs_next_to_nothing_and_its_gradient_is_finite(loss):
    truth = torch.rand(8, 8, dtype=torch.float64).add(1)
    depth = truth.clone().requires_grad_()
    value = loss(depth, truth, torch.ones(8, 8, dtype=torch.bool))
    value.backward()
    assert value.item() < 1e-5 and depth.grad.isfinite().all()
