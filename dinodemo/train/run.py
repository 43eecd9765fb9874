"""A run from its start to its report: settings, photos, the starting backbone, the state of its objective, the loop."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ..backbones import BACKBONES, resolve
from ..engine import devices
from ..io.states import RunState
from . import distributed
from .config import FinetuneConfig
from .data import PhotoCache, scan, split
from .export import restore, write_model
from .loop import Progress, train_loop
from .network import StartingBackbone, load_backbone, load_folder
from .planning import Clock
from .runfolder import DiskFull, RunFolder, load_newest_checkpoint, read_json, remove_partial_files
from .state import DistillationState, TrainState
from .tail.state import TailState

log = logging.getLogger(__package__)


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
        left_out = len(state.photos.problems) + len(state.cache.problems)
        report = {"state": outcome.state, "left_out": left_out, **state.verdict()}
        folder.write_json("report.json", report)
        message = outcome.message or report["sentence"]
        log.info("%s %s %s", outcome.state, outcome.message, report["sentence"])
        folder.report_status(force=True, state=outcome.state, step=state.step, eta_s=None, message=message)
        return report


@contextmanager
def open_state(
    data: Path,
    folder: RunFolder | None,
    out: Path,
    config: FinetuneConfig,
    device: torch.device,
    resume: bool,
    clock: Clock | None = None,
) -> Iterator[TrainState]:
    """Open a run; with `resume`, load the newest checkpoint.

    Args:
        data: Folder of photos.
        folder: None on every rank but the first.
        out: Folder of the run.
        config: Settings of the run.
        device: Of this rank.
        resume: Continue the run in `out`.
        clock: Started when the run was.

    Yields:
        The state; threads and files are closed at the end.

    Raises:
        ValueError: The settings do not fit the photos or the number of processes.
    """
    tail = config.objective != "dino"
    if tail and distributed.world() > 1:
        raise ValueError(f'objective "{config.objective}" trains in one process; start it without torchrun')
    photos = scan(data)
    parts = split(photos, config)
    checkpoints = out / "checkpoints"
    saved = load_newest_checkpoint(checkpoints) if resume else None
    clock = clock or Clock(config.minutes)
    clock.used += (saved or {}).get("seconds", 0.0)
    start = _start(checkpoints, config, folder, resume)
    distributed.barrier()
    short_side = max(config.global_size, 0 if tail else config.eval_size) * 8 // 7
    scratch = out / "cache" / str(distributed.rank())
    with PhotoCache(photos.paths, short_side=short_side, max_bytes=config.cache_bytes, folder=scratch) as cache:
        total = saved["total"] if saved and config.minutes else None
        shared: dict[str, Any] = {
            "config": config,
            "start": start,
            "photos": photos,
            "cache": cache,
            "device": device,
            "checkpoints": checkpoints,
            "folder": folder,
            "clock": clock,
        }
        state: TrainState = TailState(parts, **shared) if tail else DistillationState(parts, total, **shared)
        with state.loader if isinstance(state, DistillationState) else nullcontext():
            if saved:
                state.load(saved)
            yield state


def _start(checkpoints: Path, config: FinetuneConfig, folder: RunFolder | None, resume: bool) -> StartingBackbone:
    """Return the starting backbone, which a run keeps a copy of."""
    if resume and (checkpoints / "start" / "config.json").is_file():
        return load_folder(checkpoints / "start", BACKBONES.get(config.backbone), config.drop_path)
    start = load_backbone(config)
    if folder:
        write_model(checkpoints / "start", start.module, start, f"The start: {config.backbone}.\n", config.eval_size)
    return start


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
