"""Losses against the published implementation's numbers, and against plain loops in float64."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dinodemo.train.heads import DINOHead
from dinodemo.train.losses import (
    dino_loss,
    gram_loss,
    ibot_loss,
    koleo_loss,
    sinkhorn_knopp,
    softmax_center,
    update_center,
)

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "ssl_losses.safetensors"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_file():
        pytest.skip("the published implementation's numbers are not on this machine")
    return load_file(GOLDEN)


def close(ours, reference):
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-6)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestGolden:
    """Agreement with the values of the published code."""

    def test_centring(self, golden):
        logits = golden["teacher_logits"]
        close(softmax_center(logits, golden["center"], 0.05), golden["teacher_probs_centered_t0.05"])
        close(update_center(golden["center"], logits.flatten(0, -2), 0.9), golden["center_after_update_m0.9"])

    def test_sinkhorn(self, golden):
        ours = sinkhorn_knopp(golden["teacher_logits"].flatten(0, -2), 0.06)
        close(ours, golden["teacher_probs_sinkhorn_t0.06"].flatten(0, -2))

    @pytest.mark.parametrize(
        ("probs", "loss"),
        [
            ("teacher_probs_centered_t0.05", "dino_loss_centered"),
            ("teacher_probs_sinkhorn_t0.06", "dino_loss_sinkhorn"),
        ],
    )
    def test_dino(self, golden, probs, loss):
        student = golden["student_logits"]
        teacher = golden[probs].reshape(-1, *student.shape[1:])
        close(dino_loss(student, teacher), golden[loss].squeeze())

    def test_ibot(self, golden):
        zero = torch.zeros(1, golden["ibot_teacher_logits"].shape[-1])
        probs = softmax_center(golden["ibot_teacher_logits"], zero, 0.05)
        close(probs, golden["ibot_teacher_probs_zero_center_t0.05"])
        close(ibot_loss(golden["ibot_student_logits"], probs, golden["mask"].bool()), golden["ibot_loss"].squeeze())

    def test_koleo_and_gram(self, golden):
        close(koleo_loss(golden["koleo_input"]), golden["koleo_loss"].squeeze())
        close(gram_loss(golden["gram_student"], golden["gram_teacher"]), golden["gram_loss"].squeeze())

    def test_head(self, golden):
        head = DINOHead(24, 96, hidden_dim=32, bottleneck_dim=8)
        head.load_state_dict({k.removeprefix("head."): v for k, v in golden.items() if k.startswith("head.")})
        close(head(golden["head_input"]), golden["head_output"])


def slow_cross_entropy(logits, probs, temp):
    scaled = [v / temp for v in logits]
    total = math.log(sum(math.exp(v - max(scaled)) for v in scaled)) + max(scaled)
    return -sum(p * (v - total) for p, v in zip(probs, scaled, strict=True))


@pytest.mark.parametrize(("students", "teachers"), [(5, 2), (2, 2), (4, 1), (1, 2)])
def test_dino_loss_is_the_mean_over_pairs_of_different_crops(students, teachers):
    logits, probs = rows(students, 3, 7), rows(teachers, 3, 7, seed=1).softmax(-1)
    pairs = [(s, t) for s in range(students) for t in range(teachers) if s != t]
    slow = np.mean(
        [slow_cross_entropy(logits[s, b].tolist(), probs[t, b].tolist(), 0.1) for s, t in pairs for b in range(3)]
    )
    assert float(dino_loss(logits, probs)) == pytest.approx(slow, rel=1e-5)


def test_dino_loss_without_a_pair_says_so():
    with pytest.raises(ValueError, match="different crops"):
        dino_loss(rows(1, 2, 3), rows(1, 2, 3).softmax(-1))


def test_ibot_loss_weighs_every_picture_alike_and_counts_unmasked_ones():
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0]]).bool()
    logits, probs = rows(4, 6), rows(4, 6, seed=1).softmax(-1)
    each = [slow_cross_entropy(x.tolist(), p.tolist(), 0.1) for x, p in zip(logits, probs, strict=True)]
    assert float(ibot_loss(logits, probs, mask)) == pytest.approx((np.mean(each[:3]) + each[3]) / 3, rel=1e-5)
    with pytest.raises(ValueError, match="4 patches, but there are 3"):
        ibot_loss(logits[:3], probs[:3], mask)


def test_ibot_loss_of_no_mask_is_zero_and_differentiable():
    logits = torch.zeros(0, 6, requires_grad=True)
    loss = ibot_loss(logits, torch.zeros(0, 6), torch.zeros(2, 4).bool())
    loss.backward()
    assert loss.item() == 0


def test_sinkhorn_rows_sum_to_one_and_prototypes_are_used_alike():
    probs = sinkhorn_knopp(rows(64, 8) + 0.2 * torch.arange(8), 0.3, n_iterations=50)
    torch.testing.assert_close(probs.sum(1), torch.ones(64))
    torch.testing.assert_close(probs.sum(0), torch.full((8,), 8.0), rtol=1e-3, atol=0)


def test_sinkhorn_is_the_plain_loop():
    logits = rows(5, 4).double()
    q = np.exp(logits.numpy() / 0.3)
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(axis=0, keepdims=True) * 4
        q /= q.sum(axis=1, keepdims=True) * 5
    np.testing.assert_allclose(sinkhorn_knopp(logits.float(), 0.3), q * 5, rtol=1e-5)


def test_sinkhorn_stays_finite_with_huge_logits_and_takes_no_rows():
    assert torch.isfinite(sinkhorn_knopp(1e4 * rows(8, 4), 0.04)).all()
    assert sinkhorn_knopp(torch.zeros(0, 4), 0.04).shape == (0, 4)


def test_centre_follows_the_mean_and_stays_without_rows():
    centre, logits = rows(1, 5), rows(7, 5, seed=1)
    assert torch.equal(update_center(centre, logits, 1.0), centre)
    close(update_center(centre, logits, 0.0), logits.mean(0, keepdim=True))
    assert torch.equal(update_center(centre, logits[:0]), centre)


def test_koleo_is_the_log_of_the_nearest_distance():
    tokens = rows(6, 5).double().numpy()
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    nearest = [min(np.linalg.norm(a - b) for j, b in enumerate(unit) if j != i) for i, a in enumerate(unit)]
    assert float(koleo_loss(torch.tensor(tokens).float())) == pytest.approx(-np.mean(np.log(nearest)), rel=1e-4)


def test_koleo_of_equal_or_single_tokens_is_finite():
    same = torch.ones(4, 5, requires_grad=True)
    koleo_loss(same).backward()
    assert torch.isfinite(same.grad).all()
    assert float(koleo_loss(torch.ones(1, 5))) == 0


def test_koleo_is_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(koleo_loss(rows(6, 5))) == pytest.approx(float(koleo_loss(rows(6, 5))), rel=1e-6)
        assert koleo_loss(rows(6, 5)).dtype == torch.float32


def test_gram_compares_clipped_cosines():
    a, b = rows(2, 3, 4), rows(2, 3, 4, seed=1)
    slow = []
    for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True):
        for i in range(3):
            for j in range(3):
                cosines = [max(0.0, v[i] @ v[j] / np.linalg.norm(v[i]) / np.linalg.norm(v[j])) for v in (x, y)]
                slow.append((cosines[0] - cosines[1]) ** 2)
    assert float(gram_loss(a, b)) == pytest.approx(np.mean(slow), rel=1e-5)
    assert float(gram_loss(a, 3 * a)) < 1e-12


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: dino_loss(x.reshape(3, 2, 4), rows(2, 2, 4, seed=1).softmax(-1)),
        lambda x: ibot_loss(x.reshape(6, 4), rows(6, 4, seed=1).softmax(-1), torch.ones(2, 3).bool()),
        lambda x: koleo_loss(x.reshape(6, 4)),
        lambda x: gram_loss(x.reshape(2, 3, 4), rows(2, 3, 4, seed=1)),
    ],
)
def test_gradients_agree_with_finite_differences(loss):
    point, direction, step = rows(24), rows(24, seed=2), 1e-2
    leaf = point.clone().requires_grad_()
    loss(leaf).backward()
    numeric = (loss(point + step * direction) - loss(point - step * direction)) / (2 * step)
    assert float(leaf.grad @ direction) == pytest.approx(float(numeric), rel=2e-2, abs=1e-3)
