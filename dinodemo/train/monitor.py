"""Watch the teacher: detect collapse, a falling measure and progress; summarise the run in a verdict."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from .config import FinetuneConfig
from .metrics import Change, paired_change
from .planning import Worth

NAMES = {"knn": "k-NN accuracy", "crop_recall": "recall of a photo by a small crop of it"}
SAME_COSINE = 0.99  # all pictures look alike above this mean cosine, where the start's was lower
SAME_ANSWER = 0.002  # the heads distinguish pictures by less than this share of log K
LEAST_PROTOTYPES = 2.0  # in use by all pictures together
MOST_ROLLBACKS = 2


class Action(StrEnum):
    """What follows from an evaluation."""

    CONTINUE = "continue"
    BEST = "best"  # continue, and keep this teacher
    ROLLBACK = "rollback"
    STOP = "stop"
    COLLAPSED = "collapsed"


@dataclass(frozen=True)
class Decision:
    """What follows from an evaluation, and why."""

    action: Action
    reason: str = ""


class CollapseMonitor:
    """Judge evaluations of the teacher against the first one, which is of the start.

    Collapse: effective rank below rank_floor times the best so far; all pictures together use fewer than two
    prototypes (exp of the mean answer's entropy); or, once the warm-ups are over, mean cosine between pictures above
    0.99 when the start's was below, or the same answer for every picture (the entropy of the mean answer exceeds the
    mean entropy by less than 0.002 log K). A measure more than fall_tolerance and twice its standard error below the
    start in `patience` evaluations in a row has fallen.

    Args:
        config: Gives rank_floor, fall_tolerance, patience and on_fall.
        measure: Name of the deciding metric, "knn" or "crop_recall".
        settled: Step from which the heads must distinguish pictures.
        prefer_later: A later teacher also replaces the best where it is worse by less than a standard error: of a run
            whose learning rate falls to nothing, the last weights are the ones that have settled.
    """

    def __init__(self, config: FinetuneConfig, measure: str, settled: int, prefer_later: bool = False):
        self.config, self.measure, self.prefer_later = config, measure, prefer_later
        self.settled = settled  # step from which the heads must distinguish pictures
        self.worth: Worth | None = None  # of training on these photos, where it was asked
        self.history: list[dict[str, Any]] = []
        self.start_hits = self.best_hits = self.peak_hits = torch.zeros(0, dtype=torch.bool)
        self.best_step = self.fallen = self.rollbacks = 0

    def judge(self, step: int, metrics: dict[str, float], hits: Tensor) -> Decision:
        """Record an evaluation and decide what follows.

        Args:
            step: Number of optimiser steps done.
            metrics: With at least "rank", "mean_cosine", "entropy" and "mean_entropy".
            hits: (Q,) bool, the deciding measure of each query.

        Returns:
            The decision and its reason.
        """
        self.history.append({"step": step, **metrics})
        if len(self.history) == 1:
            self.start_hits = self.best_hits = self.peak_hits = hits
            self.best_step = step
            return Decision(Action.CONTINUE)
        collapse = self._collapse(step, metrics)
        if collapse:
            return Decision(Action.CONTINUE if self.config.on_fall == "continue" else Action.COLLAPSED, collapse)
        change = paired_change(self.start_hits, hits)
        allowed = max(self.config.fall_tolerance, 2 * change.error)
        self.fallen = self.fallen + 1 if -change.difference > allowed else 0
        if self.fallen >= self.config.patience:
            return self._fall(change)
        if self._is_best(metrics, hits):
            self.best_step, self.best_hits = step, hits
            self.peak_hits = max(self.peak_hits, hits, key=_mean)
            return Decision(Action.BEST, f"{NAMES[self.measure]} {hits.double().mean():.1%}")
        return Decision(Action.CONTINUE)

    def set_back(self, reason: str) -> Decision:
        """Return what follows a fall or non-finite numbers: roll back to the best, or stop when that has not helped."""
        if self.config.on_fall != "rollback" or self.rollbacks >= MOST_ROLLBACKS:
            return Decision(Action.STOP, reason)
        self.rollbacks += 1
        self.fallen = 0
        return Decision(Action.ROLLBACK, reason)

    @property
    def change(self) -> Change:
        """Compare the best teacher with the start on the same pictures."""
        return paired_change(self.start_hits, self.best_hits)

    @property
    def better(self) -> bool:
        """Return whether the best backbone counts as better than the start.

        The difference must exceed so many standard errors: 1, or what the photos promise. Where training is likely to
        help, any gain counts; where it is unlikely, two. A small crop finds its photo ever better in any training of
        this kind, so that this measure cannot stand against the expectation.
        """
        if not self.history or self.best_step == self.history[0]["step"]:
            return False
        needed = 1.0
        if self.worth is not None:
            if self.measure != "knn" and not self.worth.likely:
                return False
            needed = 0.0 if self.worth.likely else 2.0
        return self.change.difference > needed * self.change.error

    def verdict(self, where: str) -> dict[str, Any]:
        """Return the content of report.json.

        Args:
            where: The measured pictures, such as "157 held-out photos".
        """
        if not self.history:
            return {"better": False, "sentence": "Nothing has been measured yet; export/ holds the start."}
        start = self.history[0]
        best = next(entry for entry in self.history if not self.better or entry["step"] == self.best_step)
        about = {} if self.worth is None else {"worth": {**vars(self.worth), "likely": self.worth.likely}}
        return {
            **about,
            "better": self.better,
            "sentence": self._sentence(where),
            "measure": self.measure,
            "before": start,
            "after": best,
            "best_step": best["step"],
            "standard_error": self.change.error,
            "evaluations": len(self.history),
            "rollbacks": self.rollbacks,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to continue."""
        return {
            "history": self.history,
            "start_hits": self.start_hits,
            "best_hits": self.best_hits,
            "peak_hits": self.peak_hits,
            "best_step": self.best_step,
            "fallen": self.fallen,
            "rollbacks": self.rollbacks,
            "worth": None if self.worth is None else vars(self.worth),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        worth = state.get("worth")
        peak = state.get("peak_hits", state["best_hits"])  # checkpoints of before have none
        for name, value in {**state, "worth": worth and Worth(**worth), "peak_hits": peak}.items():
            setattr(self, name, value)

    def _collapse(self, step: int, metrics: dict[str, float]) -> str:
        nonfinite = [name for name, value in metrics.items() if not math.isfinite(value)]
        if nonfinite:
            return f"{', '.join(nonfinite)} of the teacher is not a finite number"
        most = max(entry["rank"] for entry in self.history[:-1])
        if metrics["rank"] < self.config.rank_floor * most:
            return f"the effective rank of the features fell from {most:.1f} to {metrics['rank']:.1f}"
        used = self.config.prototypes ** metrics.get("mean_entropy", 1.0)
        if used < LEAST_PROTOTYPES:
            return f"the teacher sends nearly all pictures to one prototype ({used:.1f} in use)"
        if step < self.settled:
            return ""
        if metrics["mean_cosine"] > SAME_COSINE > self.history[0]["mean_cosine"]:
            return f"all pictures look alike to the teacher (mean cosine {metrics['mean_cosine']:.3f})"
        if metrics.get("mean_entropy", 1.0) - metrics.get("entropy", 0.0) < SAME_ANSWER:
            return f"the teacher gives every picture the same answer (entropy {metrics['entropy']:.3f} of log K)"
        return ""

    def _fall(self, change: Change) -> Decision:
        reason = f"{NAMES[self.measure]} fell from {change.before:.1%} to {change.after:.1%}"
        return Decision(Action.CONTINUE, reason) if self.config.on_fall == "continue" else self.set_back(reason)

    def _is_best(self, metrics: dict[str, float], hits: Tensor) -> bool:
        """Return whether this is the best evaluation so far.

        For the indirect measure (crop recall), also require an effective rank above 90 % of the initial one.
        """
        rich = self.measure == "knn" or metrics["rank"] > 0.9 * self.history[0]["rank"]
        change = paired_change(self.peak_hits, hits)
        if self.prefer_later and self.best_step != self.history[0]["step"]:  # something was better than the start
            return rich and change.difference >= -change.error
        return rich and change.difference > 0

    def _sentence(self, where: str) -> str:
        name, change, n = NAMES[self.measure], self.change, len(self.history) - 1
        if not self.better and self.worth is not None and not self.worth.likely and change.difference > 0:
            return (
                f"The start is kept unchanged. {self.worth.sentence} {name} on {where} rose from {change.before:.1%} "
                f"to {change.after:.1%}, which is no proof of the contrary."
            )
        if not self.better:
            best = f"the best of {n} evaluations reached {change.after:.1%}" if n else "nothing was evaluated after it"
            return (
                f"Not better: {name} on {where} was {change.before:.1%} at the start and {best} (standard error "
                f"{change.error:.1%}), so the start is kept unchanged."
            )
        hint = "" if self.measure == "knn" else " This evidence is indirect: the folder has no class folders."
        sure = "Better" if change.difference > 2 * change.error else "Probably better"
        near = "within a standard error of " if _mean(self.best_hits) < _mean(self.peak_hits) else ""
        ranks = f"effective rank {self.history[0]['rank']:.0f} before, {self._best['rank']:.0f} after"
        return (
            f"{sure}: {name} on {where} rose from {change.before:.1%} to {change.after:.1%} (+{change.difference:.1%}, "
            f"standard error {change.error:.1%}), with the teacher of step {self.best_step}, {near}the best of "
            f"{n} evaluations; {ranks}.{hint}"
        )

    @property
    def _best(self) -> dict[str, Any]:
        return next(entry for entry in self.history if entry["step"] == self.best_step)


def _mean(hits: Tensor) -> float:
    return float(hits.double().mean())
