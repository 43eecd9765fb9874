"""The head's network, its targets, its training loop and its metrics; nothing here knows of files or engines."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

IGNORE = 255  # the label of pixels that nobody judged
KINDS = {"linear": 1, "conv": 4}  # kind -> how many cells its output has along the side of a patch
HIDDEN = (128, 64)  # channels of the decoder
LEARNING_RATE = {"linear": 3e-3, "conv": 2e-3}
WEIGHT_DECAY = 1e-2
BATCH = 4  # photos a step
LEAST_STEPS = 8  # in an epoch: with few photos each is shown several times
PATIENCE = 10  # epochs without a better held-out mIoU
BALANCE = 0.25  # weights go with frequency**-BALANCE; 1 would paint rare classes over their neighbours
CHUNK_BYTES = 32 << 20  # of upsampled logits held at once


class HeadNetwork(nn.Module):
    """Map patch tokens (h, w, D) to logits (n, h, w) for "linear", (n, 4 h, 4 w) for "conv".

    n: labels, background included. The tokens are standardised with statistics of the training patches.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, kind: str, width: int, labels: int, device: torch.device | str = "cpu"):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width, device=device))
        self.register_buffer("scale", torch.ones(width, device=device))
        first, second = HIDDEN
        steps = [nn.utils.skip_init(nn.Conv2d, width, labels, 1, device=device)]
        if kind == "conv":
            up = {"kernel_size": 4, "stride": 2, "padding": 1, "device": device}
            steps = [
                nn.utils.skip_init(nn.Conv2d, width, first, 1, device=device),
                nn.GELU(),
                nn.utils.skip_init(nn.ConvTranspose2d, first, second, **up),
                nn.GELU(),
                nn.utils.skip_init(nn.ConvTranspose2d, second, labels, **up),
            ]
        self.steps = nn.Sequential(*steps)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the logits of one photo's patches."""
        tokens = (patches.float() - self.mean) * self.scale  # [h, w, D]
        return self.steps(tokens.permute(2, 0, 1)[None])[0]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights from `generator` alone: torch's own initialisers use the state that all threads share."""
        for layer in self.steps:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                fan_in = layer.in_channels * math.prod(layer.kernel_size) / math.prod(layer.stride)
                layer.weight.uniform_(-math.sqrt(3 / fan_in), math.sqrt(3 / fan_in), generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()

    @torch.no_grad()
    def standardise(self, samples: list["Sample"]) -> None:
        """Take mean and spread from the patches that hold a judged pixel."""
        sums = squares = torch.zeros(len(self.mean), dtype=torch.double)
        count = 0
        for sample in samples:
            judged = functional.adaptive_max_pool2d(sample.shares.amax(0)[None].float(), sample.patches.shape[:2])
            tokens = sample.patches[judged[0] > 0].double()
            sums, squares, count = sums + tokens.sum(0), squares + tokens.square().sum(0), count + len(tokens)
        mean = sums / count
        self.mean.copy_(mean)
        self.scale.copy_((squares / count - mean.square()).clamp_min(1e-6).rsqrt())


@dataclass(frozen=True, eq=False)
class Sample:
    """Describe one photo on the CPU: tokens (h, w, D) float16 or float32, and each label's share of a cell as uint8."""

    patches: torch.Tensor
    shares: torch.Tensor  # (n, gh, gw), 255 = the whole cell; what is missing to 255 is ignored


@dataclass(frozen=True)
class Trained:
    """Describe how a training ended: epochs run, and the epoch that was kept (the last one without held-out photos)."""

    epochs: int
    kept: int


def label_shares(mask: np.ndarray, grid: tuple[int, int], labels: int) -> torch.Tensor:
    """Reduce a mask (H, W) uint8 to a grid by area: (labels, gh, gw) uint8, 255 = a cell full of that label."""
    shares = np.zeros((labels, *grid), np.uint8)
    cell = mask.size / (grid[0] * grid[1])
    for label in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[:labels]):
        area = _sum_rows(_sum_rows(mask == label, grid[0]).T, grid[1]).T
        shares[label] = np.rint(area * (255 / cell)).clip(0, 255)
    return torch.from_numpy(shares)


def _sum_rows(plane: np.ndarray, cells: int) -> np.ndarray:
    """Sum (H, W) over `cells` equal bands of rows, with their exact fractions: Pillow's box takes whole pixels only."""
    height = len(plane)
    kind = np.int32 if plane.dtype == bool else np.float64
    until = np.zeros((height + 1, plane.shape[1]), kind)
    np.cumsum(plane, axis=0, dtype=kind, out=until[1:])
    edges = np.linspace(0, height, cells + 1)
    whole = np.minimum(edges.astype(np.int64), height - 1)
    lower, upper = until[whole], until[whole + 1]
    return np.diff(lower + (edges - whole)[:, None] * (upper - lower), axis=0)


def class_weights(samples: list[Sample]) -> torch.Tensor:
    """Return (n,) weights that lift rare labels; the mean weight over all judged cells is 1, absent labels get 0."""
    area = torch.stack([sample.shares.double().sum((1, 2)) for sample in samples]).sum(0)
    weights = torch.where(area > 0, area.clamp_min(1e-9) ** -BALANCE, 0.0)
    return (weights * area.sum() / (weights * area).sum()).float()


def balanced_loss(logits: torch.Tensor, shares: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the summed cross-entropy of soft labels (n, gh, gw), and the weight that it is a sum over.

    Ignored pixels have no share in any label and so no part in either.
    """
    target = shares.float() / 255 * weights[:, None, None]
    return -(target * functional.log_softmax(logits, 0)).sum(), float(target.sum())


def train(
    network: HeadNetwork,
    samples: list[Sample],
    held_out: list[Sample],
    kind: str,
    epochs: int,
    generator: torch.Generator,
    on_epoch: Callable[[int, str], None],
) -> Trained:
    """Train the network in place; with held-out samples it stops early and keeps the epoch of the best mIoU on them.

    Args:
        network: To train.
        samples: To train on.
        held_out: To measure on; may be empty.
        kind: Of the head, "linear" or "conv".
        epochs: At most so many passes.
        generator: Of the order and the augmentation.
        on_epoch: on_epoch(epoch, message) is called after each; what it raises ends the training.

    Returns:
        How the training ended.
    """
    weights = class_weights(samples).to(network.mean.device)
    batch = min(BATCH, len(samples))
    repeats = math.ceil(LEAST_STEPS * batch / len(samples))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE[kind], weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best, kept, state = -1.0, epochs, None
    for epoch in range(1, epochs + 1):
        order = torch.cat([torch.randperm(len(samples), generator=generator) for _ in range(repeats)]).tolist()
        loss = _run_epoch(network, [samples[i] for i in order], batch, weights, optimizer)
        schedule.step()
        message = f"epoch {epoch} of {epochs}, loss {loss:.3f}"
        if held_out:
            miou = mean_iou(grid_confusion(network, held_out))
            message += f", held-out mIoU {miou:.3f}"
            if miou > best:
                best, kept, state = miou, epoch, copy.deepcopy(network.state_dict())
        on_epoch(epoch, message)
        if held_out and epoch - kept >= PATIENCE:
            break
    if state is not None:
        network.load_state_dict(state)
    return Trained(epoch, kept)


def _run_epoch(network: HeadNetwork, samples: list[Sample], batch: int, weights: torch.Tensor, optimizer) -> float:
    total, steps = 0.0, 0
    nothing = torch.zeros((), device=weights.device)
    for start in range(0, len(samples), batch):
        part = [balanced_loss(*_forward(network, sample), weights) for sample in samples[start : start + batch]]
        loss = sum((value for value, _ in part), nothing) / max(sum(weight for _, weight in part), 1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total, steps = total + loss.item(), steps + 1
    return total / steps


def _forward(network: HeadNetwork, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    device = network.mean.device
    return network(sample.patches.to(device)), sample.shares.to(device)


@torch.no_grad()
def grid_confusion(network: HeadNetwork, samples: list[Sample]) -> np.ndarray:
    """Return the confusion counts on the grid of the targets, where a cell has the label that fills most of it."""
    counts: list[np.ndarray] = []
    for sample in samples:
        logits, shares = _forward(network, sample)
        truth = shares.argmax(0)
        truth[shares.sum(0, dtype=torch.int32) < 128] = IGNORE  # less than half of the cell was judged
        counts.append(confusion(truth.cpu().numpy(), logits.argmax(0).cpu().numpy(), len(shares)))
    return np.sum(counts, axis=0)


def confusion(truth: np.ndarray, predicted: np.ndarray, labels: int) -> np.ndarray:
    """Count pixels by (true label, predicted label): (labels, labels) int64; truth 255 is left out."""
    judged = truth != IGNORE
    pairs = truth[judged].astype(np.int64) * labels + predicted[judged]
    return np.bincount(pairs, minlength=labels * labels).reshape(labels, labels)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Return each label's intersection over union from confusion counts; nan where no pixel truly has it.

    Pixels wrongly given to such a label still count against their true one.
    """
    hit = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - hit
    return np.divide(hit, union, out=np.full(len(hit), np.nan), where=counts.sum(1) > 0)


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean of `class_iou` over the labels that truly occur, background among them; 0 for none."""
    iou = class_iou(counts)
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else 0.0


@torch.no_grad()
def winners(logits: torch.Tensor, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Upsample logits (n, gh, gw) bilinearly to `size` (H, W): winning label uint8 and its probability float32.

    Rows are done in chunks, so memory beyond the two results stays at a few times `CHUNK_BYTES`.
    """
    (height, width), (labels, gh, _) = size, logits.shape
    classes, probability = np.empty(size, np.uint8), np.empty(size, np.float32)
    step = max(1, CHUNK_BYTES // (4 * labels * width))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        y = (torch.arange(rows.start, rows.stop, dtype=torch.float64) + 0.5) * (gh / height) - 0.5
        y = y.clamp(0, gh - 1)
        above = y.long()
        below = (above + 1).clamp(max=gh - 1)
        part = (y - above).float().to(logits.device)[:, None]
        lines = torch.lerp(logits[:, above], logits[:, below], part)  # [n, rows, gw]
        lines = functional.interpolate(lines[None], (lines.shape[1], width), mode="bilinear")[0]
        best, index = lines.max(0)
        classes[rows] = index.to(torch.uint8).cpu().numpy()
        probability[rows] = (1 / (lines - best).exp().sum(0)).cpu().numpy()
    return classes, probability
