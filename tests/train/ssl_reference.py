"""A step of self-distillation in slow float64, written without the fast one; and small networks to try both."""

import math

import torch
from torch.nn.functional import gelu, linear, normalize

from dinodemo.train import FinetuneConfig
from dinodemo.train.network import load_backbone
from dinodemo.train.ssl import SelfDistillation

BATCH, LOCAL = 3, 2
SETTINGS = {
    "global_size": 56,
    "local_size": 28,
    "eval_size": 56,
    "n_local": LOCAL,
    "batch_size": BATCH,
    "prototypes": 24,
    "head_hidden": 16,
    "head_bottleneck": 8,
    "head_warmup": 0.0,
    "thaw": 0.0,
    "freeze_last_layer": 0.0,
    "steps": 10,
    "warmup": 0.2,
    "clip": 0.5,
    "gram_weight": 0.7,
    "momentum_start": 0.9,
    "lr": 1e-3,
}


def make(folder, family="dinov2", **settings):
    patch = 14 if family.startswith("dinov2") else 16
    sizes = {"global_size": 4 * patch, "local_size": 2 * patch, "eval_size": 4 * patch}
    config = FinetuneConfig.from_dict({**SETTINGS, **sizes, "backbone": str(folder), **settings})
    torch.manual_seed(0)
    start = load_backbone(config)
    ssl = SelfDistillation(start.module, config).train()
    with torch.no_grad():  # a student that differs from its teacher, as it does after a few steps
        for parameter in ssl.student.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return config, start, ssl


def batch(config, seed=1):
    generator = torch.Generator().manual_seed(seed)
    big = torch.randn(2, BATCH, 3, config.global_size, config.global_size, generator=generator)
    small = torch.randn(LOCAL, BATCH, 3, config.local_size, config.local_size, generator=generator)
    masks = torch.rand(2 * BATCH, 16, generator=generator) < torch.tensor([0.5, 0.3, 0, 0.6, 0, 0.2])[:, None]
    return big, small, masks


def slow_head(head, x):
    for i, layer in enumerate(layers := [m for m in head.mlp if isinstance(m, torch.nn.Linear)]):
        x = linear(x, layer.weight, layer.bias)
        x = gelu(x) if i < len(layers) - 1 else x
    x = x / x.norm(dim=-1, keepdim=True)
    return x @ (head.last_layer.weight_v / head.last_layer.weight_v.norm(dim=1, keepdim=True)).T


def slow_sinkhorn(logits, temp):
    q = torch.exp(logits / temp).T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
        q = q / q.sum(dim=0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def slow_targets(logits, temp, centering):
    return slow_sinkhorn(logits, temp) if centering == "sinkhorn" else torch.softmax(logits / temp, dim=-1)


def cross_entropy(target, logits):
    return -(target * torch.log_softmax(logits / 0.1, dim=-1)).sum()


def slow_koleo(cls):
    """Compute one view's loss, photo by photo."""
    unit = [normalize(row, dim=0) for row in cls]
    nearest = [min((unit[i] - unit[j]).norm() for j in range(len(unit)) if j != i) for i in range(len(unit))]
    return -sum(torch.log(distance) for distance in nearest) / len(nearest)


def slow_losses(ssl, crops, local, masks, temp, config):
    """Compute the parts one crop, one patch and one pair at a time, in float64."""
    student, teacher = ssl.student, ssl.teacher
    ibot = "dino_head" if config.shared_head else "ibot_head"
    flat = crops.flatten(0, 1)
    seen = [
        student["backbone"](flat[i : i + 1], bool_masked_pos=masks[i : i + 1]).last_hidden_state[0] for i in range(6)
    ]
    small = [
        [student["backbone"](local[v, b : b + 1]).last_hidden_state[0, 0] for b in range(BATCH)] for v in range(LOCAL)
    ]
    with torch.no_grad():
        aim = [teacher["backbone"](flat[i : i + 1]).last_hidden_state[0] for i in range(6)]
        rows = torch.stack([slow_head(teacher["dino_head"], t[0]) for t in aim])
        targets = slow_targets(rows, temp, config.centering)
        patch_rows = [slow_head(teacher[ibot], aim[i][1 + j]) for i in range(6) for j in range(16) if masks[i, j]]
        patch_targets = slow_targets(torch.stack(patch_rows), temp, config.centering)
        anchor = [ssl.anchor(flat[i : i + 1]).last_hidden_state[0, 1:] for i in range(6)]
    views = [[seen[v * BATCH + b][0] for b in range(BATCH)] for v in range(2)] + small
    pairs = [(s, t) for s in range(2 + LOCAL) for t in range(2) if s != t]
    dino = (
        sum(
            cross_entropy(targets[t * BATCH + b], slow_head(student["dino_head"], views[s][b]))
            for s, t in pairs
            for b in range(BATCH)
        )
        / len(pairs)
        / BATCH
    )
    patches, row = torch.zeros((), dtype=torch.float64), 0
    for i in range(6):
        for j in range(16):
            if masks[i, j]:
                logits = slow_head(student[ibot], seen[i][1 + j])
                patches = patches + cross_entropy(patch_targets[row], logits) / masks[i].sum() / 6
                row += 1
    koleo = sum(slow_koleo(view) for view in views[:2])
    grams = [
        [(n @ n.T).clamp_min(0) for n in (normalize(seen[i][1:], dim=1), normalize(anchor[i], dim=1))] for i in range(6)
    ]
    gram = sum(((a - b) ** 2).mean() for a, b in grams) / 6
    return {"dino": dino, "ibot": patches, "koleo": koleo, "gram": gram}


def slow_clip(student, limit):
    for part in student.values():
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in part.parameters()))
        for p in part.parameters():
            p.grad *= min(1, limit / norm)


def slow_rate(name, config):
    if not name.startswith("backbone"):
        return 0.0  # the heads' warm-up begins at nothing
    block = [i for i in range(3) if f"layer.{i}." in name]
    scale = 0.9 ** (2 - block[0]) if block else 0.9**3 if "embeddings" in name else 1
    return config.lr * scale * (0.2 if "patch_embeddings" in name else 1) * 0.5  # first of two steps of warm-up


def slow_decay(name, parameter, config):
    token = any(t in name for t in ("cls_token", "mask_token", "position_embeddings"))
    return 0.0 if parameter.ndim < 2 or token else config.weight_decay_start
