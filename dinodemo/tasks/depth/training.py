"""How a depth head is trained on tokens that were computed once: a closed-form start, then gradient steps."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from .dataset import HIGHEST
from .head import LinearDepthHead, expected_depth, shared_tokens, token_logits, upsampled
from .losses import log_gradient, scale_and_shift_free, scale_and_shift_free_gradient, scale_invariant_log
from .metrics import align, depth_metrics, mean_metrics, valid_pixels
from .nearness import Nearness
from .start import Standard, closed_form, standardise
from .upsample import to_pixels

LEARNING_RATE = 3e-5  # of Adam, times the size of the starting biases; thousands of weights move a logit together
TRAIN_UPSAMPLE = 2  # cells along the side of a patch, where the loss is taken; 4 would take four times as long
BATCH = 4  # pictures a step
GRADIENT_WEIGHT = 0.5  # of the gradient term
PATIENCE = 6  # epochs without better held-out metrics
FLOAT32_BYTES = 256 << 20  # of tokens; more than that are kept as float16
MAX_BYTES = 6 << 30  # of tokens, as float16


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture on the CPU: tokens of L layers as float16 or float32, and depth on the grid of the loss."""

    patches: torch.Tensor  # (h, w, L * D)
    shared: torch.Tensor  # (L * D,) CLS or (L * 2 * D,) with the mean patch, float32
    truth: torch.Tensor  # (2 h, 2 w) float32, 0 = no reading
    weight: float = 1.0  # how much the picture counts; 1 in the mean


@dataclass(frozen=True)
class Settings:
    """The settings of a training."""

    epochs: int
    relative: bool = False
    stop_early: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """How a training ended; metrics: on the held-out pictures, of the epoch kept, None without any."""

    epochs: int
    kept: int
    chosen: bool  # whether the held-out pictures chose the epoch
    metrics: dict[str, float] | None


def feature_type(patches: np.ndarray, pictures: int) -> type:
    """Choose how tokens are kept: float32 while all fit into `FLOAT32_BYTES`, else float16.

    Args:
        patches: Tokens of one picture.
        pictures: How many there will be.

    Returns:
        The NumPy type.

    Raises:
        ValueError: Not even float16 fits into `MAX_BYTES`.
    """
    total = patches.nbytes * pictures
    if total > 2 * MAX_BYTES:
        raise ValueError(
            f"the features of {pictures} pictures take {total / 2e9:.1f} GB; lower the resolution, take kind lin1, "
            "leave mirrored copies out or use fewer pairs"
        )
    return np.float32 if total <= FLOAT32_BYTES else np.float16


def to_sample(head: LinearDepthHead, patches: np.ndarray, cls: np.ndarray, depth: np.ndarray, kept: type) -> Sample:
    """Make a sample of one picture's tokens and its depth; readings outside of the head's bins do not count.

    Args:
        head: To train.
        patches: (h, w, L * D).
        cls: (L * D,).
        depth: (H, W).
        kept: Type that the patches are kept as (see `feature_type`).

    Returns:
        The sample, with the depth at the head's own size.
    """
    grid = patches.shape[0] * TRAIN_UPSAMPLE, patches.shape[1] * TRAIN_UPSAMPLE
    truth = reduce_depth(depth, grid, float(head.centres[0]), float(head.centres[-1]))
    # copied: the engine's arrays are read-only and shared with its cache
    tokens = torch.tensor(patches)
    shared = shared_tokens(tokens, torch.tensor(cls), head.layers, head.mean)
    return Sample(tokens.half() if kept is np.float16 else tokens, shared, torch.from_numpy(truth))


def reduce_depth(depth: np.ndarray, size: tuple[int, int], low: float = 0.0, high: float = HIGHEST) -> np.ndarray:
    """Resample a depth map to the mean of the readings within [low, high].

    Args:
        depth: (H, W); one coarser than `size` gives its nearest value.
        size: (h, w) of the result.
        low: Readings below do not count.
        high: Readings above do not count.

    Returns:
        (h, w) float32; 0 where less than half of a cell has readings.
    """
    readings = np.where(valid_pixels(depth, low, high), depth, 0).astype(np.float32)
    height, width = size
    if depth.shape[0] < height or depth.shape[1] < width:
        return cv2.resize(readings, (width, height), interpolation=cv2.INTER_NEAREST)
    total = cv2.resize(readings, (width, height), interpolation=cv2.INTER_AREA)
    share = cv2.resize((readings > 0).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.where(share >= 0.5, total / np.maximum(share, 1e-6), 0).astype(np.float32)


def train(
    head: LinearDepthHead,
    samples: list[Sample],
    held_out: list[tuple[Sample, np.ndarray]],
    settings: Settings,
    watch: Callable[[dict], None],
) -> Trained:
    """Train the head in place.

    Weights end as numbers that float16 can hold, so that a saved probe is small and the same.

    Args:
        head: To train.
        samples: To train on.
        held_out: Samples with their whole depth maps (H, W).
        settings: Of the training.
        watch: Called after each epoch with its row of the curve; what it raises ends the training.

    Returns:
        How many epochs were trained, which one was kept, and its metrics.
    """
    device, generator = head.weight.device, torch.Generator().manual_seed(settings.seed)
    standard = standardise(samples, head.layers)
    weight, bias = closed_form(samples, head.centres.cpu(), standard, head.layers)
    standard, (weight, bias) = standard.to(device), (w.to(device).requires_grad_() for w in (weight, bias))
    optimizer = torch.optim.Adam([weight, bias], lr=LEARNING_RATE * float(bias.detach().abs().mean()))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(settings.epochs, 1))
    best = _Best(settings, held_out)
    _fold(head, weight, bias, standard)
    best.judge(head, 0)
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(len(samples), generator=generator).tolist()
        loss = _run_epoch(head, weight, bias, standard, [samples[i] for i in order], settings.relative, optimizer)
        schedule.step()
        _fold(head, weight, bias, standard)
        found = best.judge(head, epoch)
        watch({"epoch": epoch, "loss": loss} | (found or {}))
        if best.waited(epoch) >= PATIENCE:
            break
    else:
        epoch = settings.epochs
    return best.restore(head, epoch)


def badness(found: dict[str, float], relative: bool) -> float:
    """Return what held-out pictures choose by, lower is better.

    Args:
        found: Metrics of `evaluate`.
        relative: Whether depths have no scale.
    """
    return found["abs_rel"] if relative else found["silog"] / 100 + found["abs_rel"]


class _Best:
    """Keep the head of the epoch with the lowest held-out loss, where the held-out pictures may choose."""

    def __init__(self, settings: Settings, held_out: list[tuple[Sample, np.ndarray]]):
        self.settings, self.held_out = settings, held_out
        self.choosing = settings.stop_early and bool(held_out)
        self.kept, self.score = 0, float("inf")
        self.state: dict[str, torch.Tensor] | None = None
        self.metrics: dict[str, float] | None = None

    def judge(self, head: LinearDepthHead, epoch: int) -> dict[str, float] | None:
        if not self.held_out:
            self.kept = epoch
            return None
        found = evaluate(head, self.held_out, self.settings.relative)
        score = badness(found, self.settings.relative)
        if not self.choosing or score < self.score:
            self.kept, self.metrics, self.score = epoch, found, score
            self.state = copy.deepcopy(head.state_dict())
        return found

    def waited(self, epoch: int) -> int:
        return epoch - self.kept

    def restore(self, head: LinearDepthHead, epoch: int) -> Trained:
        if self.state is not None:
            head.load_state_dict(self.state)
        return Trained(epoch, self.kept, self.choosing, self.metrics)


def _run_epoch(
    head: LinearDepthHead,
    weight: torch.Tensor,
    bias: torch.Tensor,
    standard: Standard,
    samples: list[Sample],
    relative: bool,
    optimizer: torch.optim.Optimizer,
) -> float:
    total, batch = 0.0, min(BATCH, len(samples))
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        optimizer.zero_grad()
        effective = standard.fold(weight, bias)
        losses = (sample.weight * sample_loss(head, sample, *effective, relative) for sample in part)
        loss = sum(losses, weight.new_zeros(())) / len(part)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(part)
    return total / len(samples)


def sample_loss(
    head: LinearDepthHead, sample: Sample, weight: torch.Tensor, bias: torch.Tensor, relative: bool
) -> torch.Tensor:
    """Return one picture's loss for weights that take raw tokens.

    Args:
        head: Gives bins and layers.
        sample: Of the picture.
        weight: (bins, C).
        bias: (bins,).
        relative: Whether depths have no scale.
    """
    device = weight.device
    logits = token_logits(sample.patches.to(device), sample.shared.to(device), weight, bias, head.layers)
    depth, truth = expected_depth(upsampled(logits, TRAIN_UPSAMPLE), head.centres), sample.truth.to(device)
    valid = truth > 0
    if relative:
        return scale_and_shift_free(depth, truth, valid) + GRADIENT_WEIGHT * scale_and_shift_free_gradient(
            depth, truth, valid
        )
    return scale_invariant_log(depth, truth, valid) + GRADIENT_WEIGHT * log_gradient(depth, truth, valid)


@torch.no_grad()
def _fold(head: LinearDepthHead, weight: torch.Tensor, bias: torch.Tensor, standard: Standard) -> None:
    """Write the weights into the head, for raw tokens and rounded to float16."""
    for parameter, value in zip((head.weight, head.bias), standard.fold(weight, bias), strict=True):
        parameter.copy_(value.half().float())


@torch.no_grad()
def evaluate(
    head: LinearDepthHead,
    held_out: list[tuple[Sample, np.ndarray]],
    relative: bool,
    nearness: Nearness | None = None,
) -> dict[str, float]:
    """Return the mean metrics over pictures, bilinear at the size of the depth maps.

    Args:
        head: To measure.
        held_out: Samples with their whole depth maps (H, W).
        relative: Whether depths have no scale; then they are fitted with `align` first.
        nearness: To average the head's depths with.
    """
    each = []
    for sample, truth in held_out:
        device = head.weight.device
        logits = token_logits(sample.patches.to(device), sample.shared.to(device), head.weight, head.bias, head.layers)
        coarse = expected_depth(upsampled(logits), head.centres).cpu().numpy()
        if nearness is not None:
            coarse = nearness.refine(coarse, sample.patches.numpy())
        depth = to_pixels(coarse, truth.shape)
        each.append(depth_metrics(align(depth, truth) if relative else depth, truth))
    return mean_metrics(each)
