"""The training loop, on one page: the loop, one step, the evaluation between steps, and what ends a run."""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..io.states import RunState
from . import distributed
from .loader import seed_of
from .monitor import Action
from .network import autocast
from .optim import clip, schedule_step
from .state import TrainState
from .tail.state import TailState

log = logging.getLogger(__package__)
Progress = Callable[[int, int, dict[str, Any]], None]  # step, total, the line of metrics
PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and why."""

    state: RunState
    message: str = ""


def train_loop(state: TrainState, stop: threading.Event, progress: Progress | None = None) -> Outcome:
    """Train to the end, until `stop` is set or the monitor ends the run; all ranks together.

    Args:
        state: Of the run; changed in place.
        stop: Asks the loop to save and return.
        progress: Called after every step.

    Returns:
        How the run ended, and why.
    """
    stopped = "stopped at step {}; resume to go on"
    while True:
        if state.evaluation_due:
            try:
                outcome = evaluate(state, stop)
            except _Stopped:
                state.save()
                return Outcome(RunState.STOPPED, stopped.format(state.step))
            if outcome:
                return outcome
        if state.finished:
            return Outcome(RunState.FINISHED)
        if not _wait_while_paused(state, stop):
            state.save()
            return Outcome(RunState.STOPPED, stopped.format(state.step))

        began = time.perf_counter()
        metrics = state.one_step() if isinstance(state, TailState) else train_one_step(state)
        if metrics is None:
            outcome = _on_nonfinite(state)
            if outcome:
                return outcome
            continue
        _report_step(state, metrics, time.perf_counter() - began, progress)
        if state.checkpoint_due:
            state.save()


def train_one_step(state: Any) -> dict[str, float] | None:
    """Do one optimiser step and return its metrics; None, with nothing changed, where they are not finite."""
    config, device = state.config, state.device
    # learning rates, weight decay, momentum and temperature of this step; layers that begin to learn
    state.unfreeze()
    values = schedule_step(state.optimizer, state.plan, state.step, state.lr_factor)

    # forward and backward, over the batches that add up to one step
    sums: dict[str, torch.Tensor] = {}
    for part in range(config.accumulate):
        torch.manual_seed(seed_of(config.seed, state.step, part, distributed.rank()))  # of drop path
        global_crops, local_crops, masks = state.loader.next(state.step, part)
        with autocast(device, config.precision):
            loss, losses = state.model(global_crops, local_crops, masks, values.teacher_temp)
        (loss / config.accumulate).backward()
        for name, value in {"loss": loss.detach(), **losses}.items():
            sums[name] = sums.get(name, 0) + value / config.accumulate

    # clip; metrics are means over ranks, so that all ranks decide alike
    sums["grad_norm"] = clip(state.ssl, config.clip)
    means = distributed.mean(torch.stack([*sums.values()])).tolist()
    metrics = dict(zip(sums, means, strict=True))

    # step of the student, moving average of the teacher
    finite = all(math.isfinite(value) for value in metrics.values())
    if finite:
        state.optimizer.step()
        state.ssl.update_teacher(values.momentum)
        state.step += 1
    state.optimizer.zero_grad(set_to_none=True)
    return {**metrics, **vars(values)} if finite else None


def evaluate(state: TrainState, stop: threading.Event) -> Outcome | None:
    """Measure the teacher, save, and do what the monitor decides.

    Args:
        state: Of the run.
        stop: Asks to return before the measurement is complete.

    Returns:
        An outcome if the run ends here, else None.
    """
    folder, monitor = state.folder, state.monitor
    if folder:
        folder.report_status(message="measuring")
    metrics, hits = state.measure(_heartbeat(state, stop))
    decision = distributed.from_first(monitor.judge(state.step, metrics, hits))
    state.evaluated = state.step
    state.log_problems()
    if folder:
        log.info(
            "step %d: %s%s",
            state.step,
            ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()),
            f" ({decision.action}: {decision.reason})" if decision.reason else "",
        )
        folder.add_metrics({"kind": "eval", "step": state.step, **_json_numbers(metrics), "action": decision.action})
        if (snapshot := state.evaluator.snapshot) is not None:
            folder.add_snapshot(state.step, snapshot.patches, snapshot.attention)
        folder.report_status(message=decision.reason)
    if decision.action == Action.ROLLBACK:
        state.roll_back()
    weights = state.save()
    if decision.action == Action.BEST and monitor.better:
        state.export(weights)
    if decision.action == Action.COLLAPSED:
        return Outcome(RunState.COLLAPSED, decision.reason)
    return Outcome(RunState.FINISHED, f"ended early: {decision.reason}") if decision.action == Action.STOP else None


def _on_nonfinite(state: TrainState) -> Outcome | None:
    """Roll back after a step whose loss or gradient is not finite; returns an outcome if the run ends here."""
    reason = "the loss or its gradient is not a finite number"
    decision = state.monitor.set_back(reason)
    log.warning("step %d: %s; %s", state.step, reason, decision.action)
    if decision.action == Action.STOP:
        message = f"{reason}; the best teacher so far is in export/. A lower lr may help."
        return Outcome(RunState.FAILED, message)
    state.roll_back()
    return None


def _wait_while_paused(state: TrainState, stop: threading.Event) -> bool:
    """Wait while the folder holds a file called `pause`; returns False once any rank is asked to stop."""
    while True:
        if distributed.any_rank(stop.is_set(), state.device):
            return False
        paused = distributed.any_rank(state.folder is not None and state.folder.pause_wanted, state.device)
        if state.folder:
            state.folder.report_status(state=RunState.PAUSED if paused else RunState.RUNNING)
        if not paused:
            return True
        time.sleep(PAUSE_SECONDS)
        state.clock.skip(PAUSE_SECONDS)


def _report_step(state: TrainState, metrics: dict[str, float], seconds: float, progress: Progress | None) -> None:
    if not state.folder:
        return
    state.seconds = seconds if state.seconds is None else 0.9 * state.seconds + 0.1 * seconds
    line = {"kind": "train", "step": state.step, **metrics, "images_per_second": round(state.batch / seconds, 2)}
    if state.step % state.config.log_every == 0 or state.step == state.total:
        state.folder.add_metrics(line)
    state.folder.report_status(
        step=state.step, total=state.total, eta_s=round(state.seconds_left, 1), message=state.activity
    )
    if progress:
        progress(state.step, state.total, line)


class _Stopped(Exception):
    """Signal that an evaluation was asked to stop."""


def _heartbeat(state: TrainState, stop: threading.Event) -> Callable[[], None]:
    """Return the evaluator's callback: refreshes status.json, raises `_Stopped` on request."""

    def heartbeat() -> None:
        if stop.is_set() and distributed.world() == 1:  # several ranks must not diverge in the middle
            raise _Stopped
        if state.folder:
            state.folder.report_status()

    return heartbeat


def _json_numbers(metrics: dict[str, float]) -> dict[str, float | None]:
    """Replace NaN and infinity by None, which JSON can represent."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
