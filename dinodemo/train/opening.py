"""Open a run: list the photos, load the starting backbone, build the state of the run's objective."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ..backbones import BACKBONES
from . import distributed
from .config import FinetuneConfig
from .data import PhotoCache, scan
from .evaluate import split
from .export import write_model
from .network import StartingBackbone, load_backbone, load_folder
from .planning import Clock
from .runfolder import RunFolder, load_newest_checkpoint
from .state import DistillationState, TrainState
from .tail.state import TailState


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
