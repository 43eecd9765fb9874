"""Figures against slow references."""

import math

import numpy as np
import pytest
import torch

from dinodemo.io import vectors
from dinodemo.train import metrics


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def slow_knn(gallery, labels, query, k, temperature):
    cosines = [float(np.dot(g, query) / np.linalg.norm(g) / np.linalg.norm(query)) for g in gallery.numpy()]
    votes: dict[int, float] = {}
    for i in sorted(range(len(cosines)), key=lambda i: -cosines[i])[:k]:
        votes[int(labels[i])] = votes.get(int(labels[i]), 0) + math.exp(cosines[i] / temperature)
    return max(votes, key=votes.get)


def test_knn_votes_as_a_slow_loop_does(monkeypatch):
    monkeypatch.setattr(vectors, "CHUNK", 7)
    gallery, labels = rows(40, 8), torch.arange(40) % 5
    queries, truth = rows(20, 8, seed=1), torch.arange(20) % 5
    expected = [slow_knn(gallery, labels, q, 6, 0.07) == int(t) for q, t in zip(queries.numpy(), truth, strict=True)]
    assert metrics.knn_hits(gallery, labels, queries, truth, k=6).tolist() == expected
    without = [torch.arange(40) != i for i in range(40)]
    alone = [slow_knn(gallery[w], labels[w], gallery[i].numpy(), 6, 0.07) == labels[i] for i, w in enumerate(without)]
    hits = metrics.knn_hits(gallery, labels, gallery, labels, k=6, leave_one_out=True)
    assert hits.tolist() == [bool(a) for a in alone]


def test_knn_needs_a_gallery():
    with pytest.raises(ValueError, match="empty"):
        metrics.knn_hits(rows(0, 4), torch.zeros(0, dtype=torch.long), rows(2, 4), torch.zeros(2, dtype=torch.long))


def test_recall_counts_rows_that_find_themselves():
    gallery = torch.eye(4)
    queries = torch.eye(4)[[0, 1, 3, 2]] * 5 + 0.1
    assert metrics.recall_hits(gallery, queries).tolist() == [True, True, False, False]


def test_effective_rank_of_known_spectra():
    assert metrics.effective_rank(torch.ones(9, 5)) == 1
    directions = torch.linalg.qr(rows(64, 64)).Q[:, :8]
    features = torch.linalg.qr(rows(64, 9) - rows(64, 9).mean(0)).Q[:, :8]
    features = features - features.mean(0)
    expected = np.linalg.svd(features.double().numpy() @ directions.double().numpy().T, compute_uv=False)
    shares = expected / expected.sum()
    slow = math.exp(-sum(s * math.log(s + 1e-12) for s in shares))
    assert metrics.effective_rank(features @ directions.T + 3) == pytest.approx(slow, rel=1e-4)
    assert 7 < slow <= 8


def test_mean_cosine_of_all_pairs():
    features = rows(6, 4)
    unit = features / features.norm(dim=1, keepdim=True)
    pairs = [float(unit[i] @ unit[j]) for i in range(6) for j in range(6) if i != j]
    assert metrics.mean_cosine(features) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert metrics.mean_cosine(torch.ones(3, 2)) == pytest.approx(1)


def test_entropies_tell_the_two_collapses_from_health():
    sharp = 100 * torch.eye(16)
    each, mean = metrics.entropies(sharp, 0.1)
    assert each == pytest.approx(0, abs=1e-6) and mean == pytest.approx(1)
    assert metrics.entropies(torch.zeros(5, 16), 0.1) == pytest.approx((1, 1))
    assert metrics.entropies(sharp[:1].expand(5, 16), 0.1) == pytest.approx((0, 0), abs=1e-6)


def test_drift_is_the_mean_change_of_patch_cosines():
    before, after = rows(6, 4).view(2, 3, 4), rows(6, 4, seed=1).view(2, 3, 4)
    total = 0.0
    for image in range(2):
        for i in range(3):
            for j in range(3):
                a, b = (torch.cosine_similarity(p[image, i], p[image, j], dim=0) for p in (after, before))
                total += abs(float(a - b))
    assert metrics.patch_drift(after, before) == pytest.approx(total / 18, abs=1e-6)
    assert metrics.patch_drift(before, before) == 0


def test_a_paired_change_has_the_error_of_the_differences():
    before, after = torch.tensor([1, 0, 0, 0]).bool(), torch.tensor([1, 1, 1, 0]).bool()
    change = metrics.paired_change(before, after)
    assert (change.before, change.after, change.difference) == (0.25, 0.75, 0.5)
    assert change.error == pytest.approx(np.std([0, 1, 1, 0]) / 2)
