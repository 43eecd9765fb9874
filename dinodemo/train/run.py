"""Put a run together out of its parts, save it, and bring it back."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..backbones import BACKBONES
from . import checkpoint, distributed
from .config import FinetuneConfig
from .data import PhotoCache, PhotoSet, scan
from .evaluate import Evaluator, Split, split
from .export import model_card, teacher_backbone, write_model
from .feed import Feed
from .guard import Guard
from .network import Start, open_folder, open_start
from .optim import Plan, make_optimizer, thaw
from .runfolder import RunFolder
from .sharding import gather, load_network, load_optimizer, shard
from .ssl import SelfDistillation

log = logging.getLogger(__package__)


class Run:
    """Hold all that changes while a network learns, and what it learns with.

    folder is None on every rank but the first, which alone writes. `step` counts optimiser steps done.
    """

    def __init__(
        self, config: FinetuneConfig, start: Start, photos: PhotoSet, cache: PhotoCache, parts: Split,
        device: torch.device, checkpoints: Path, folder: RunFolder | None,
    ):  # fmt: skip
        self.config, self.start, self.photos, self.device, self.folder = config, start, photos, device, folder
        self.cache, self.checkpoints = cache, checkpoints
        self.total = config.total_steps(len(parts.training), distributed.world())
        self.plan = Plan(config, start.backbone.depth, self.total)
        self.feed = Feed(cache, parts.training, config, start, device)
        self.evaluator = Evaluator(cache, parts, config, start.mean, start.std, device)
        start.module.to(device)
        self.evaluator.remember_start(start.module)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)  # of the heads, alike on every rank
            self.ssl = SelfDistillation(start.module, config).to(device).train()
        self.sharded = config.shard and distributed.world() > 1
        if self.sharded:
            shard(self.ssl, device)
        if config.compile:
            for network in (self.ssl.student, self.ssl.teacher):
                network["backbone"].compile()
        self.optimizer = make_optimizer(self.ssl, config, self.plan)
        self.guard = Guard(config, self.evaluator.measure, settled=round(0.4 * self.total))
        self.step, self.evaluated, self.lr_factor = 0, -1, 1.0
        self.seconds: float | None = None  # of a step, a running mean
        self._told = 0
        self.model = self.ssl
        self.thaw()

    @property
    def eval_every(self) -> int:
        """Return the steps between evaluations."""
        return self.config.eval_every or max(1, self.total // 10)

    @property
    def checkpoint_every(self) -> int:
        """Return the steps between checkpoints."""
        return self.config.checkpoint_every or self.eval_every

    def thaw(self) -> None:
        """Let those layers learn whose time has come."""
        if (thaw(self.optimizer, self.step) or self.model is self.ssl) and not self.sharded:
            self.model = distributed.wrap(self.ssl)

    def tell_problems(self) -> None:
        """Log the photos that could not be read since the last time."""
        for name, reason in self.cache.problems[self._told :]:
            log.warning("%s is left out: %s", name, reason)
        self._told = len(self.cache.problems)

    def save(self) -> dict[str, torch.Tensor]:
        """Write a checkpoint of this step and delete those no longer needed; raises checkpoint.DiskFull.

        Random states are not among it: whatever is random follows from the seed and the step. All ranks must ask
        together, since each may hold a share only. Returns the weights of student and teacher, whole on the first rank.
        """
        weights = gather({k: v for k, v in self.ssl.state_dict().items() if not k.startswith("anchor.")})
        optimizer = gather(self.optimizer.state_dict())
        if self.folder is not None:
            checkpoint.save(self.checkpoints, self.step, {
                "step": self.step, "evaluated": self.evaluated, "lr_factor": self.lr_factor, "ssl": weights,
                "optimizer": optimizer, "sampler": self.feed.state_dict(), "guard": self.guard.state_dict(),
            })  # fmt: skip
            checkpoint.prune(self.checkpoints, self.config.keep_last, keep=(self.guard.best_step,))
        return weights

    def load(self, state: dict) -> None:
        """Take over a checkpoint."""
        self._load_weights(state)
        self.step, self.evaluated, self.lr_factor = state["step"], state["evaluated"], state["lr_factor"]
        self.feed.load_state_dict(state["sampler"])
        self.guard.load_state_dict(state["guard"])
        self.thaw()

    def roll_back(self) -> None:
        """Go on from here with the best step's network and half the learning rate."""
        self._load_weights(checkpoint.load(checkpoint.path_of(self.checkpoints, self.guard.best_step)))
        self.optimizer.zero_grad(set_to_none=True)
        self.lr_factor /= 2

    def export(self, weights: dict[str, torch.Tensor] | None) -> None:
        """Write export/: the teacher's backbone out of `ssl` weights, or the start where they are None."""
        if self.folder is None:
            return
        start = open_folder(self.checkpoints / "start", self.start.backbone)
        if weights is not None:
            start.module.load_state_dict(teacher_backbone(weights))
        sentence = self.verdict()["sentence"]
        card = model_card(start.backbone, sentence, self.config.to_json())
        write_model(self.folder.export, start.module, start, card, self.config.eval_size)

    def export_best(self) -> None:
        """Write export/ anew: the best teacher when it is better than the start, else the start."""
        if self.folder is None:
            return
        path = checkpoint.path_of(self.checkpoints, self.guard.best_step)
        self.export(checkpoint.load(path)["ssl"] if self.guard.better else None)

    def verdict(self) -> dict:
        """Return the content of report.json."""
        return self.guard.verdict(self.evaluator.split.where)

    def _load_weights(self, state: dict) -> None:
        anchor = {k: v for k, v in self.ssl.state_dict().items() if k.startswith("anchor.")}
        load_network(self.ssl, {**state["ssl"], **anchor})
        load_optimizer(self.optimizer, state["optimizer"])


@contextmanager
def open_run(
    data: Path, folder: RunFolder | None, out: Path, config: FinetuneConfig, device: torch.device, resume: bool
) -> Iterator[Run]:
    """Read the photos, open the start and put the run together; with resume, go on from the newest checkpoint."""
    photos = scan(data)
    parts = split(photos, config)
    checkpoints = out / "checkpoints"
    if resume and (checkpoints / "start" / "config.json").is_file():
        start = open_folder(checkpoints / "start", BACKBONES.get(config.backbone), config.drop_path)
    else:
        start = open_start(config)
        if folder:
            write_model(checkpoints / "start", start.module, start, f"The start: {config.backbone}.\n")
    distributed.barrier()
    short_side = max(config.global_size, config.eval_size) * 8 // 7
    scratch = out / "cache" / str(distributed.rank())
    with PhotoCache(photos.paths, short_side=short_side, max_bytes=config.cache_bytes, folder=scratch) as cache:
        run = Run(config, start, photos, cache, parts, device, checkpoints, folder)
        with run.feed:
            state = checkpoint.load_newest(checkpoints) if resume else None
            if state:
                run.load(state)
            yield run
