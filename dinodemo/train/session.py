"""A training from beginning to end: settings, signals, files, verdict."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..backbones import resolve
from ..engine import devices
from . import distributed
from .checkpoint import DiskFull, clean
from .config import FinetuneConfig
from .data import scan
from .export import restore
from .loop import Progress, loop
from .run import open_run
from .runfolder import RunFolder, read_json

log = logging.getLogger(__package__)


def train(
    data: Path | None, out: Path, config: FinetuneConfig | None = None, *, device: str = "auto", resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train on a folder of photos and return the report that is also in `out`/report.json.

    data: photos at any depth; None with resume, which goes on with the run's own settings. config: by default
    FinetuneConfig.for_dataset. SIGTERM and Ctrl-C save and return. Raises ValueError for settings, photos and folders
    that are of no use, RuntimeError when the run cannot go on; then status.json says so too.
    """
    data, config, device = _settings(data, out, config, device, resume)
    group = distributed.process_group(devices.choose_device(device))
    with group as chosen, _stop_signals() as stop, torch.random.fork_rng():
        if distributed.rank():
            with open_run(data, None, out, config, chosen, resume) as run:
                loop(run, stop)
                return run.verdict()
        with RunFolder(out).open(log) as folder:
            try:
                return _train_first(data, out, config, chosen, device, resume, folder, stop, progress)
            except Exception as error:
                log.error("%s: %s", type(error).__name__, error)
                _say_failed(folder, error)
                raise


def _train_first(data, out, config, chosen, device, resume, folder, stop, progress) -> dict[str, Any]:
    """Train on the first rank, which writes all files."""
    clean(out)
    clean(folder.checkpoints)
    restore(folder.export)
    folder.report_status(force=True, state="running", message="reading the photos")
    with open_run(data, folder, out, config, chosen, resume) as run:
        if not (out / "config.json").is_file():
            folder.write_json("config.json", {"data": str(data.resolve()), "device": device,
                                              "photos": len(run.photos.paths), "settings": vars(config)})  # fmt: skip
        for name, reason in run.photos.problems:
            log.warning("%s is left out: %s", name, reason)
        folder.forget_metrics_after(run.step)
        folder.status.step, folder.status.total = run.step, run.total
        if not run.guard.history:
            run.export(None)
        state, message = loop(run, stop, progress)
        run.export_best()
        report = {"state": state, **run.verdict()}
        folder.write_json("report.json", report)
        log.info("%s %s %s", state, message, report["sentence"])
        folder.report_status(force=True, state=state, step=run.step, eta_s=None, message=message or report["sentence"])
        return report


def _settings(data, out: Path, config, device: str, resume: bool) -> tuple[Path, FinetuneConfig, str]:
    """Return what to train on, how and where; of the former run, when it is resumed."""
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


def _say_failed(folder: RunFolder, error: Exception) -> None:
    try:
        folder.report_status(force=True, state="failed", message=str(error))
    except DiskFull:
        log.error("status.json could not be written either")


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn SIGTERM and Ctrl-C into an event while the block runs; outside the main thread there are no signals."""
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
