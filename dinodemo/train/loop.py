"""The training loop: one step, the round of steps, the evaluation between them."""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from . import distributed
from .feed import seed_of
from .network import autocast
from .optim import clip, schedule_step
from .run import Run

log = logging.getLogger(__package__)
Progress = Callable[[int, int, dict[str, Any]], None]  # step, total, the line of metrics
PAUSE_SECONDS = 0.5


def train_one_step(run: Run) -> dict[str, float] | None:
    """Do one optimiser step and return its figures; None, and nothing has changed, when they are not finite."""
    config = run.config
    run.thaw()
    values = schedule_step(run.optimizer, run.plan, run.step, run.lr_factor)
    sums: dict[str, torch.Tensor] = {}
    for part in range(config.accumulate):
        torch.manual_seed(seed_of(config.seed, run.step, part, distributed.rank()))  # of drop path
        global_crops, local_crops, masks = run.feed.next(run.step, part)
        with autocast(run.device, config.precision):
            loss, losses = run.model(global_crops, local_crops, masks, values.teacher_temp)
        (loss / config.accumulate).backward()
        for name, value in {"loss": loss.detach(), **losses}.items():
            sums[name] = sums.get(name, 0) + value / config.accumulate

    sums["grad_norm"] = clip(run.ssl, config.clip)
    joined = distributed.mean(torch.stack([*sums.values()])).tolist()
    figures = dict(zip(sums, joined, strict=True))
    if all(math.isfinite(value) for value in figures.values()):
        run.optimizer.step()
        run.ssl.update_teacher(values.momentum)
        run.step += 1
    else:
        figures = None
    run.optimizer.zero_grad(set_to_none=True)
    return figures and {**figures, **vars(values)}


def loop(run: Run, stop: threading.Event, progress: Progress | None = None) -> tuple[str, str]:
    """Train to the end, or until told to stop; returns the run's last state and why."""
    while True:
        if run.evaluated != run.step and (run.step % run.eval_every == 0 or run.step == run.total):
            try:
                end = evaluate(run, stop)
            except _Stopped:
                run.save()
                return "stopped", f"stopped at step {run.step}; resume to go on"
            if end:
                return end
        if run.step >= run.total:
            return "finished", ""
        if not _may_go_on(run, stop):
            run.save()
            return "stopped", f"stopped at step {run.step}; resume to go on"

        began = time.perf_counter()
        figures = train_one_step(run)
        if figures is None:
            end = _set_back(run, "the loss or its gradient is not a finite number")
            if end:
                return end
            continue
        _report_step(run, figures, time.perf_counter() - began, progress)
        if run.step % run.checkpoint_every == 0 and run.step % run.eval_every:
            run.save()


def evaluate(run: Run, stop: threading.Event) -> tuple[str, str] | None:
    """Measure the teacher and do what follows from it; returns the run's last state and why, if it ends here."""
    if run.folder:
        run.folder.report_status(message="measuring the teacher")
    run.feed.settle()
    figures, hits = run.evaluator(run.ssl.teacher["backbone"], run.ssl.teacher["dino_head"], _heart(run, stop))
    decision = distributed.from_first(run.guard.judge(run.step, figures, hits))
    run.evaluated = run.step
    run.tell_problems()
    if run.folder:
        log.info("step %d: %s%s", run.step, ", ".join(f"{k} {v:.4g}" for k, v in figures.items()),
                 f" ({decision.action}: {decision.reason})" if decision.reason else "")  # fmt: skip
        run.folder.add_metrics({"kind": "eval", "step": run.step, **_finite(figures), "action": decision.action})
        run.folder.add_film(run.step, run.evaluator.film.patches, run.evaluator.film.attention)
        run.folder.report_status(message=decision.reason)
    if decision.action == "rollback":
        run.roll_back()
    weights = run.save()
    if decision.action == "best" and run.guard.better:
        run.export(weights)
    if decision.action == "collapsed":
        return "collapsed", decision.reason
    return ("finished", f"ended early: {decision.reason}") if decision.action == "stop" else None


def _may_go_on(run: Run, stop: threading.Event) -> bool:
    """Wait while the folder holds a file called `pause`; False when a signal asks to stop, on whichever rank."""
    while True:
        if distributed.any_rank(stop.is_set(), run.device):
            return False
        paused = distributed.any_rank(run.folder is not None and run.folder.pause_wanted, run.device)
        if run.folder:
            run.folder.report_status(state="paused" if paused else "running")
        if not paused:
            return True
        time.sleep(PAUSE_SECONDS)


def _set_back(run: Run, reason: str) -> tuple[str, str] | None:
    decision = run.guard.setback(reason)
    log.warning("step %d: %s; %s", run.step, reason, decision.action)
    if decision.action == "stop":
        return "failed", f"{reason}; the best teacher so far is in export/. A lower lr may help."
    run.roll_back()
    return None


def _report_step(run: Run, figures: dict[str, float], seconds: float, progress: Progress | None) -> None:
    if not run.folder:
        return
    photos = run.config.batch_size * run.config.accumulate * distributed.world()
    run.seconds = seconds if run.seconds is None else 0.9 * run.seconds + 0.1 * seconds
    line = {"kind": "train", "step": run.step, **figures, "images_per_second": round(photos / seconds, 2)}
    if run.step % run.config.log_every == 0 or run.step == run.total:
        run.folder.add_metrics(line)
    run.folder.report_status(step=run.step, eta_s=round((run.total - run.step) * run.seconds, 1), message="")
    if progress:
        progress(run.step, run.total, line)


class _Stopped(Exception):
    """End an evaluation that somebody does not want to wait for."""


def _heart(run: Run, stop: threading.Event) -> Callable[[], None]:
    """Return what an evaluation calls now and then."""

    def beat() -> None:
        if stop.is_set() and distributed.world() == 1:  # several ranks must not part in the middle
            raise _Stopped
        if run.folder:
            run.folder.report_status()

    return beat


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    """Replace what JSON cannot say."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
