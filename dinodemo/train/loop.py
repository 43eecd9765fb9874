"""Fine-tune on a folder of photos, on one page: the run, its loop, one step, and the evaluation between steps."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..backbones import resolve
from ..engine import devices
from ..io.states import RunState
from . import distributed
from .config import FinetuneConfig
from .data import scan
from .export import restore
from .loader import seed_of
from .monitor import Action
from .network import autocast
from .opening import open_state
from .optim import clip, schedule_step
from .planning import Clock
from .runfolder import DiskFull, RunFolder, read_json, remove_partial_files
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


def finetune(
    data: Path | None,
    out: Path,
    config: FinetuneConfig | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Train on a folder of photos. SIGTERM and Ctrl-C save and return.

    Args:
        data: Folder of photos at any depth; None with `resume`.
        out: Folder of the run.
        config: By default FinetuneConfig.for_dataset; None with `resume`, which keeps the run's settings.
        device: "auto", "cpu", "cuda" or "mps".
        resume: Continue the run in `out`.
        progress: Called after every step with the step, the total and the line of metrics.
        clock: Of the budget of time; by default it begins now.

    Returns:
        The report, also in `out`/report.json.

    Raises:
        ValueError: Settings, photos or folders are of no use.
        RuntimeError: The run cannot go on; status.json says so too.
    """
    clock = clock or Clock()
    data, config, device = _settings(data, out, config, device, resume)
    clock.minutes = config.minutes
    group = distributed.process_group(devices.choose_device(device))
    with group as chosen, _stop_signals() as stop, torch.random.fork_rng():
        if distributed.rank():
            with open_state(data, None, out, config, chosen, resume, clock) as state:
                train_loop(state, stop)
                return state.verdict()
        with RunFolder(out).open(log) as folder:
            try:
                return _train_on_first_rank(data, folder, config, chosen, device, resume, stop, progress, clock)
            except Exception as error:
                log.error("%s: %s", type(error).__name__, error)
                _report_failure(folder, error)
                raise


def _train_on_first_rank(
    data: Path,
    folder: RunFolder,
    config: FinetuneConfig,
    chosen: torch.device,
    device: str,
    resume: bool,
    stop: threading.Event,
    progress: Progress | None,
    clock: Clock,
) -> dict[str, Any]:
    """Train on the rank that writes all files; `device` is the one asked for, `chosen` the one in use."""
    remove_partial_files(folder.path)
    remove_partial_files(folder.checkpoints)
    restore(folder.export)
    folder.report_status(force=True, state=RunState.RUNNING, message="reading the photos")
    with open_state(data, folder, folder.path, config, chosen, resume, clock) as state:
        if not (folder.path / "config.json").is_file():
            folder.write_json(
                "config.json",
                {
                    "data": str(data.resolve()),
                    "device": device,
                    "photos": len(state.photos.paths),
                    "settings": vars(config),
                },
            )
        for name, reason in state.photos.problems:
            log.warning("%s is left out: %s", name, reason)
        folder.forget_metrics_after(state.step)
        folder.status.step, folder.status.total = state.step, state.total
        if not state.monitor.history:
            state.export(None)
        outcome = train_loop(state, stop, progress)
        state.export_best()
        if outcome.state != RunState.STOPPED:
            state.clean_up()
        report = {"state": outcome.state, **state.verdict()}
        folder.write_json("report.json", report)
        message = outcome.message or report["sentence"]
        log.info("%s %s %s", outcome.state, outcome.message, report["sentence"])
        folder.report_status(force=True, state=outcome.state, step=state.step, eta_s=None, message=message)
        return report


def train_loop(state: TrainState, stop: threading.Event, progress: Progress | None = None) -> Outcome:
    """Train to the end, until `stop` is set or the monitor ends the run; all ranks together."""
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
    """Measure the teacher, save, and do what the monitor decides; returns an outcome if the run ends here."""
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


def _settings(data, out: Path, config, device: str, resume: bool) -> tuple[Path, FinetuneConfig, str]:
    """Return photos, configuration and device: those given, or those of the run that is resumed."""
    exists = (out / "config.json").is_file()
    if resume:
        if config is not None:
            raise ValueError("a resumed run keeps its settings; leave them out, or start a new run")
        if exists:
            saved = read_json(out / "config.json")
            return Path(saved["data"]), FinetuneConfig.from_dict(saved["settings"]), saved["device"]
        if data is None:
            raise ValueError(f"{out} holds no run to resume; name the folder of photos to start one")
    elif exists:
        raise ValueError(f"{out} holds a run already; resume it or choose another folder")
    if config is None:
        config = FinetuneConfig.for_dataset(len(scan(Path(data)).paths), resolve(None)[0].name, device)
    return Path(data), config, device


def _report_failure(folder: RunFolder, error: Exception) -> None:
    try:
        folder.report_status(force=True, state=RunState.FAILED, message=str(error))
    except DiskFull:
        log.error("status.json could not be written either")


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn SIGTERM and Ctrl-C into an event while the block runs; outside the main thread, signals are not handled."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {name: signal.signal(name, lambda *_: stop.set()) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
