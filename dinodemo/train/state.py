"""The state of a training run: built from its settings, saved, loaded, rolled back, exported."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..backbones import BACKBONES
from . import distributed
from .config import FinetuneConfig
from .data import PhotoCache, PhotoSet, scan
from .evaluate import Evaluator, Split, split
from .export import model_card, teacher_backbone, write_model
from .loader import BatchLoader
from .monitor import CollapseMonitor
from .network import StartingBackbone, load_backbone, load_folder
from .optim import Plan, make_optimizer, thaw
from .runfolder import (
    RunFolder,
    checkpoint_path,
    load_checkpoint,
    load_newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from .ssl import SelfDistillation

log = logging.getLogger(__package__)


class TrainState:
    """Networks, optimiser, data, evaluator and monitor of a run, and how far it is.

    folder is None on every rank but the first, which alone writes files. `step` counts the optimiser steps done.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        start: StartingBackbone,
        photos: PhotoSet,
        cache: PhotoCache,
        parts: Split,
        device: torch.device,
        checkpoints: Path,
        folder: RunFolder | None,
    ):
        self.config, self.start, self.photos, self.device, self.folder = config, start, photos, device, folder
        self.cache, self.checkpoints = cache, checkpoints
        self.total = config.total_steps(len(parts.training), distributed.world())
        self.plan = Plan(config, start.backbone.depth, self.total)
        self.loader = BatchLoader(cache, parts.training, config, start, device)
        self.evaluator = Evaluator(cache, parts, config, start.mean, start.std, device)
        start.module.to(device)  # type: ignore[arg-type]  # transformers wraps `to` as if it were no method
        self.evaluator.remember_start(start.module)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)  # of the heads, alike on every rank
            self.ssl = SelfDistillation(start.module, config).to(device).train()
        self.sharded = config.shard and distributed.world() > 1
        if self.sharded:
            self.ssl.shard(device)
        if config.compile:
            for network in (self.ssl.student, self.ssl.teacher):
                network["backbone"].compile()
        self.optimizer = make_optimizer(self.ssl, config, self.plan)
        self.monitor = CollapseMonitor(config, self.evaluator.measure, settled=round(0.4 * self.total))
        self.step, self.lr_factor = 0, 1.0
        self.evaluated = -1  # step of the last evaluation
        self.seconds: float | None = None  # of a step, a running mean
        self._logged_problems = 0
        self.model: torch.nn.Module = self.ssl
        self.unfreeze()

    @property
    def eval_every(self) -> int:
        """Return the steps between evaluations."""
        return self.config.eval_every or max(1, self.total // 10)

    @property
    def checkpoint_every(self) -> int:
        """Return the steps between checkpoints."""
        return self.config.checkpoint_every or self.eval_every

    def unfreeze(self) -> None:
        """Unfreeze the layers scheduled for this step; wrap in DDP again if any changed."""
        if (thaw(self.optimizer, self.step) or self.model is self.ssl) and not self.sharded:
            self.model = distributed.wrap(self.ssl)

    def log_problems(self) -> None:
        """Log the photos that could not be read since the last call."""
        for name, reason in self.cache.problems[self._logged_problems :]:
            log.warning("%s is left out: %s", name, reason)
        self._logged_problems = len(self.cache.problems)

    def save(self) -> dict[str, torch.Tensor]:
        """Write a checkpoint of this step and delete those no longer needed.

        Random states are not part of it: all randomness follows from the seed and the step. All ranks must call
        together, since each may hold only a part of the networks.

        Returns:
            The weights of student and teacher, whole on the first rank.

        Raises:
            DiskFull: The checkpoint could not be written.
        """
        weights = distributed.gather({k: v for k, v in self.ssl.state_dict().items() if not k.startswith("anchor.")})
        optimizer = distributed.gather(self.optimizer.state_dict())
        if self.folder is not None:
            save_checkpoint(
                self.checkpoints,
                self.step,
                {
                    "step": self.step,
                    "evaluated": self.evaluated,
                    "lr_factor": self.lr_factor,
                    "ssl": weights,
                    "optimizer": optimizer,
                    "sampler": self.loader.state_dict(),
                    "guard": self.monitor.state_dict(),
                },
            )
            prune_checkpoints(self.checkpoints, self.config.keep_last, keep=(self.monitor.best_step,))
        return weights

    def load(self, saved: dict) -> None:
        """Continue from a checkpoint."""
        self._load_weights(saved)
        self.step, self.evaluated, self.lr_factor = saved["step"], saved["evaluated"], saved["lr_factor"]
        self.loader.load_state_dict(saved["sampler"])
        self.monitor.load_state_dict(saved["guard"])
        self.unfreeze()

    def roll_back(self) -> None:
        """Continue from this step with the best step's networks and half the learning rate."""
        self._load_weights(load_checkpoint(checkpoint_path(self.checkpoints, self.monitor.best_step)))
        self.optimizer.zero_grad(set_to_none=True)
        self.lr_factor /= 2

    def export(self, weights: dict[str, torch.Tensor] | None) -> None:
        """Write export/: the teacher's backbone from the networks' weights, or the start where they are None."""
        if self.folder is None:
            return
        start = load_folder(self.checkpoints / "start", self.start.backbone)
        if weights is not None:
            start.module.load_state_dict(teacher_backbone(weights))
        sentence = self.verdict()["sentence"]
        card = model_card(start.backbone, sentence, self.config.to_json())
        write_model(self.folder.export, start.module, start, card, self.config.eval_size)

    def export_best(self) -> None:
        """Write export/: the best teacher where it is better than the start, else the start."""
        if self.folder is None:
            return
        path = checkpoint_path(self.checkpoints, self.monitor.best_step)
        self.export(load_checkpoint(path)["ssl"] if self.monitor.better else None)

    def verdict(self) -> dict:
        """Return the content of report.json."""
        return self.monitor.verdict(self.evaluator.where)

    def _load_weights(self, saved: dict) -> None:
        anchor = {k: v for k, v in self.ssl.state_dict().items() if k.startswith("anchor.")}
        distributed.load_network(self.ssl, {**saved["ssl"], **anchor})
        distributed.load_optimizer(self.optimizer, saved["optimizer"])


@contextmanager
def open_state(
    data: Path, folder: RunFolder | None, out: Path, config: FinetuneConfig, device: torch.device, resume: bool
) -> Iterator[TrainState]:
    """List the photos, load the starting backbone and build the state; with `resume`, load the newest checkpoint.

    Args:
        data: Folder of photos.
        folder: None on every rank but the first.
        out: Folder of the run.
        config: Settings of the run.
        device: Of this rank.
        resume: Continue the run in `out`.
    """
    photos = scan(data)
    parts = split(photos, config)
    checkpoints = out / "checkpoints"
    if resume and (checkpoints / "start" / "config.json").is_file():
        start = load_folder(checkpoints / "start", BACKBONES.get(config.backbone), config.drop_path)
    else:
        start = load_backbone(config)
        if folder:
            write_model(checkpoints / "start", start.module, start, f"The start: {config.backbone}.\n")
    distributed.barrier()
    short_side = max(config.global_size, config.eval_size) * 8 // 7
    scratch = out / "cache" / str(distributed.rank())
    with PhotoCache(photos.paths, short_side=short_side, max_bytes=config.cache_bytes, folder=scratch) as cache:
        state = TrainState(config, start, photos, cache, parts, device, checkpoints, folder)
        with state.loader:
            saved = load_newest_checkpoint(checkpoints) if resume else None
            if saved:
                state.load(saved)
            yield state
