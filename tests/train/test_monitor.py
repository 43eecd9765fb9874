"""The collapse monitor: what counts as collapse, as a fall, as progress, and what the report says."""

import pytest
import torch

from dinodemo.train import FinetuneConfig
from dinodemo.train.monitor import CollapseMonitor

HEALTHY = {"rank": 40.0, "mean_cosine": 0.3, "entropy": 0.4, "mean_entropy": 0.9, "knn": 0.5}


def hits(right: int, of: int = 400) -> torch.Tensor:
    return torch.arange(of) < right


def make(measure="knn", prefer_later=False, **settings) -> CollapseMonitor:
    monitor = CollapseMonitor(FinetuneConfig(**settings), measure, settled=10, prefer_later=prefer_later)
    assert monitor.judge(0, HEALTHY, hits(200)).action == "continue"
    return monitor


def test_progress_is_the_best_so_far_and_the_report_says_so():
    monitor = make()
    assert monitor.judge(10, HEALTHY, hits(220)).action == "best"
    assert monitor.judge(20, HEALTHY, hits(215)).action == "continue"
    assert monitor.better and monitor.best_step == 10
    report = monitor.verdict("400 held-out photos")
    assert report["better"] and report["best_step"] == 10
    assert "Better: k-NN accuracy on 400 held-out photos rose from 50.0% to 55.0% (+5.0%" in report["sentence"]
    assert report["before"]["step"] == 0 and report["after"]["step"] == 10


def test_weights_that_have_settled_win_unless_they_are_clearly_worse_than_the_highest():
    monitor = make(prefer_later=True)
    assert monitor.judge(10, HEALTHY, hits(200)).action == "continue"  # the start is replaced by what is better only
    # against the highest, 20, 20 and 40 are lost, and 15, 15 and 31 won; the last is less far from the one before it
    others = [torch.roll(hits(215), 20), torch.roll(hits(215), 20), torch.roll(hits(211), 40)]
    actions = [monitor.judge(20 + i, HEALTHY, found).action for i, found in enumerate((hits(220), *others))]
    assert actions == ["best", "best", "best", "continue"] and monitor.best_step == 22
    assert "step 22, within a standard error of the best of 5 evaluations" in monitor.verdict("photos")["sentence"]
    resumed = make(prefer_later=True)
    resumed.load_state_dict(monitor.state_dict())
    assert resumed.judge(30, HEALTHY, others[2]).action == "continue"  # against the highest, not the kept one


def test_a_gain_within_two_errors_is_only_probable_and_within_one_none():
    swapped = torch.roll(hits(200), 30)  # 30 lost, 30 won
    for gained, word in ((2, "Not better"), (12, "Probably better")):
        monitor = make()
        after = swapped.clone()
        after[-gained:] = True
        monitor.judge(10, HEALTHY, after)
        assert monitor.verdict("photos")["sentence"].startswith(word)
        assert monitor.better == (word != "Not better")


def test_without_progress_the_start_is_kept():
    monitor = make()
    monitor.judge(10, HEALTHY, hits(195))
    report = monitor.verdict("400 held-out photos")
    assert not report["better"] and report["best_step"] == 0 and report["after"] == report["before"]
    assert "the start is kept" in report["sentence"]


@pytest.mark.parametrize(
    ("change", "step", "reason"),
    [
        ({"rank": 8.0}, 1, "effective rank"),
        ({"mean_entropy": 0.05, "entropy": 0.01}, 1, "one prototype"),
        ({"mean_cosine": 0.999}, 10, "look alike"),
        ({"mean_entropy": 1.0, "entropy": 0.999}, 10, "same answer"),
        ({"rank": float("nan")}, 1, "rank of the teacher is not a finite number"),
    ],
)
def test_collapse_ends_the_run(change, step, reason):
    decision = make().judge(step, HEALTHY | change, hits(200))
    assert decision.action == "collapsed" and reason in decision.reason
    ignored = make(on_fall="continue").judge(step, HEALTHY | change, hits(200))
    assert ignored.action == "continue" and reason in ignored.reason


def test_heads_may_be_undecided_before_they_have_learnt():
    metrics = HEALTHY | {"mean_entropy": 1.0, "entropy": 0.999}
    assert make().judge(9, metrics, hits(200)).action == "continue"


def test_a_fall_rolls_back_after_patience_and_stops_in_the_end():
    monitor = make(patience=2)
    actions = [monitor.judge(step, HEALTHY, hits(100)).action for step in range(1, 8)]
    assert actions == ["continue", "rollback", "continue", "rollback", "continue", "stop", "stop"]
    assert make(on_fall="stop", patience=1).judge(1, HEALTHY, hits(100)).action == "stop"
    assert make(on_fall="continue", patience=1).judge(1, HEALTHY, hits(100)).action == "continue"


def test_a_fall_within_tolerance_or_noise_is_none():
    monitor = make(patience=1, fall_tolerance=0.1)
    assert monitor.judge(1, HEALTHY, hits(165)).action == "continue"
    noisy = make(patience=1, fall_tolerance=0.0)
    assert noisy.judge(1, HEALTHY, torch.roll(hits(195), 50)).action == "continue"


def test_indirect_evidence_needs_rich_features_and_is_called_so():
    monitor = make("crop_recall")
    assert monitor.judge(1, HEALTHY | {"rank": 30.0}, hits(300)).action == "continue"
    assert monitor.judge(2, HEALTHY, hits(300)).action == "best"
    assert "indirect" in monitor.verdict("photos")["sentence"]


def test_its_state_goes_on_where_it_was():
    monitor, other = make(), make()
    monitor.judge(1, HEALTHY, hits(100))
    other.load_state_dict(monitor.state_dict())
    assert other.judge(2, HEALTHY, hits(100)).action == monitor.judge(2, HEALTHY, hits(100)).action == "rollback"
    assert other.verdict("photos") == monitor.verdict("photos")
