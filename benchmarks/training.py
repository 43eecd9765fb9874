"""Training, side by side with the published pipeline's way of working, on the same photos, crops and processor cores.

Augmentation alone: our batched multi-crop against Pillow, photo by photo, in as many worker processes as torch has
threads here (DINOv2's loader; both are handed decoded photos). 2 global crops of 224 and 8 local ones of 98.

The step: our step (crops made in the batch, crops of one size through the network together) against the plain way
(Pillow views from workers that work ahead, each crop through the network by itself), with the same model, losses,
crops and batch: the offline default, 2 crops of 112 and 4 of 56, as on a CPU.

The step of "each photo its own class": the class token's own path through the last block on cached activations,
against the whole last block on them, and against a plain step (crops of 224 through the frozen network, the last block
learning), which has no cache to fill.

    python benchmarks/training.py [--data FOLDER]
"""

import argparse
import copy
import random
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from _common import ROOT, seconds
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch.nn.functional import cross_entropy

from dinodemo.backbones import OFFLINE_DEFAULT
from dinodemo.io.images import load_image
from dinodemo.train.augment import MultiCrop
from dinodemo.train.config import FinetuneConfig
from dinodemo.train.data import shrink
from dinodemo.train.masking import block_masks
from dinodemo.train.network import load_backbone, tokens
from dinodemo.train.ssl import SelfDistillation
from dinodemo.train.tail.blocks import Tail, run_trunk

GLOBAL, LOCAL, N_LOCAL = 224, 98, 8
BATCH = 16
STEP_GLOBAL, STEP_LOCAL, STEP_N_LOCAL, STEP_BATCH = 112, 56, 4, 8
MEAN, STD = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)


def pil_view(image: Image.Image, size: int, scale: tuple[float, float], blur: float, solarise: float) -> np.ndarray:
    """Make one view as the published transforms do."""
    image = image.resize((size, size), Image.Resampling.BICUBIC, box=pil_box(image, scale))
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < 0.8:
        steps = [(ImageEnhance.Brightness, 0.4), (ImageEnhance.Contrast, 0.4), (ImageEnhance.Color, 0.2), (None, 0.1)]
        random.shuffle(steps)
        for enhance, strength in steps:
            factor = random.uniform(-strength, strength)
            image = shift_hue(image, factor) if enhance is None else enhance(image).enhance(1 + factor)
    if random.random() < 0.2:
        image = ImageOps.grayscale(image).convert("RGB")
    if random.random() < blur:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
    if random.random() < solarise:
        image = ImageOps.solarize(image, 128)
    return ((np.asarray(image, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


def pil_box(image: Image.Image, scale: tuple[float, float]) -> tuple[float, ...]:
    """Draw a box as RandomResizedCrop does."""
    for _ in range(10):
        area = image.width * image.height * random.uniform(*scale)
        aspect = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < w <= image.width and 0 < h <= image.height:
            left, top = random.randint(0, image.width - w), random.randint(0, image.height - h)
            return left, top, left + w, top + h
    return 0, 0, image.width, image.height


def shift_hue(image: Image.Image, turn: float) -> Image.Image:
    """Shift HSV's hue, as torchvision does with Pillow images."""
    hue, saturation, value = image.convert("HSV").split()
    shifted = (np.asarray(hue, np.int16) + round(turn * 255)).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")


def pil_views(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make the step's views of a photo in a worker process: (2, 3, H, W) and (L, 3, h, w) float32."""
    image = Image.fromarray(rgb)
    large = [pil_view(image, STEP_GLOBAL, (0.32, 1.0), 1.0, 0.0), pil_view(image, STEP_GLOBAL, (0.32, 1.0), 0.1, 0.2)]
    small = [pil_view(image, STEP_LOCAL, (0.05, 0.32), 0.5, 0.0) for _ in range(STEP_N_LOCAL)]
    return np.stack(large), np.stack(small)


def pil_multi_crop(rgb: np.ndarray) -> int:
    """Make all views of a photo in a worker process; returns a number, so that no pixels travel."""
    image = Image.fromarray(rgb)
    views = [pil_view(image, GLOBAL, (0.32, 1.0), 1.0, 0.0), pil_view(image, GLOBAL, (0.32, 1.0), 0.1, 0.2)]
    views += [pil_view(image, LOCAL, (0.05, 0.32), 0.5, 0.0) for _ in range(N_LOCAL)]
    return len(views)


def time_augmentation(photos: list[np.ndarray], rounds: int = 3) -> tuple[float, float]:
    """Return photos a second of Pillow's way and of ours, the best of some rounds each, taken in turn."""
    crop = MultiCrop(global_size=GLOBAL, local_size=LOCAL, n_local=N_LOCAL)
    tensors = [torch.from_numpy(rgb.copy()).permute(2, 0, 1) for rgb in photos]
    generator = torch.Generator().manual_seed(0)
    theirs, ours = [], []
    with ProcessPoolExecutor(torch.get_num_threads()) as workers:
        list(workers.map(pil_multi_crop, photos[:4]))
        crop(tensors[:BATCH], generator)
        for _ in range(rounds):
            start = time.perf_counter()
            list(workers.map(pil_multi_crop, photos, chunksize=4))
            middle = time.perf_counter()
            for i in range(0, len(tensors), BATCH):
                crop(tensors[i : i + BATCH], generator)
            theirs.append(len(photos) / (middle - start))
            ours.append(len(photos) / (time.perf_counter() - middle))
    return max(theirs), max(ours)


class CropByCrop(SelfDistillation):
    """The same losses, with every crop through backbone and heads by itself."""

    def get_student_output(self, global_crops, local_crops, masks):
        """Run the student on one crop after the other."""
        cls, patches, logits = [], [], []
        for crop, mask in zip(global_crops, masks.unflatten(0, (2, -1)), strict=True):
            one, rest = tokens(self.student["backbone"], crop, mask)
            cls.append(one)
            patches.append(rest)
            logits.append(self.student["dino_head"](one))
        logits += [self.student["dino_head"](tokens(self.student["backbone"], crop)[0]) for crop in local_crops]
        patches = torch.cat(patches)
        ibot = self.student["ibot_head" if "ibot_head" in self.student else "dino_head"](patches[masks])
        return {"dino": torch.stack(logits), "ibot": ibot, "cls": torch.stack(cls), "patches": patches}


def plain_round(model: SelfDistillation, photos: list, steps: int, masks: torch.Tensor, workers) -> float:
    """Return the seconds of some steps the plain way: the workers make the next views while the network runs."""

    def read(step: int) -> list:
        return [workers.submit(pil_views, photos[(step * STEP_BATCH + i) % len(photos)]) for i in range(STEP_BATCH)]

    start = time.perf_counter()
    ahead = read(0)
    for step in range(steps):
        views = [job.result() for job in ahead]
        large, small = (torch.from_numpy(np.stack(part, axis=1)) for part in zip(*views, strict=True))
        ahead = read(step + 1) if step + 1 < steps else []
        one_step(model, large, small, masks)
    return time.perf_counter() - start


def our_round(model: SelfDistillation, tensors: list, steps: int, masks: torch.Tensor, crop: MultiCrop) -> float:
    """Return the seconds of some steps our way."""
    generator = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    for step in range(steps):
        batch = [tensors[(step * STEP_BATCH + i) % len(tensors)] for i in range(STEP_BATCH)]
        one_step(model, *crop(batch, generator), masks)
    return time.perf_counter() - start


def one_step(model: SelfDistillation, large: torch.Tensor, small: torch.Tensor, masks: torch.Tensor) -> None:
    """Do what costs time in a step, the optimiser left out on both sides."""
    model(large, small, masks, 0.05)[0].backward()
    model.zero_grad()
    model.update_teacher(0.99)


def time_steps(photos: list[np.ndarray], steps: int, rounds: int = 3) -> tuple[float, float]:
    """Return photos a second of the plain way and of ours, the best of some rounds each, taken in turn."""
    config = FinetuneConfig(
        backbone=OFFLINE_DEFAULT,
        global_size=STEP_GLOBAL,
        local_size=STEP_LOCAL,
        n_local=STEP_N_LOCAL,
        prototypes=1024,
        head_hidden=1024,
    )
    backbone = load_backbone(config).module
    plain, ours = CropByCrop(copy.deepcopy(backbone), config).train(), SelfDistillation(backbone, config).train()
    crop = MultiCrop(global_size=STEP_GLOBAL, local_size=STEP_LOCAL, n_local=STEP_N_LOCAL)
    tensors = [torch.from_numpy(rgb.copy()).permute(2, 0, 1) for rgb in photos]
    grid = (STEP_GLOBAL // 14,) * 2
    masks = block_masks(2 * STEP_BATCH, grid, (0.1, 0.5), 0.5, torch.Generator().manual_seed(0))
    taken = ([], [])
    with ProcessPoolExecutor(torch.get_num_threads()) as workers:
        plain_round(plain, photos, 1, masks, workers)
        our_round(ours, tensors, 1, masks, crop)
        for _ in range(rounds):
            taken[0].append(plain_round(plain, photos, steps, masks, workers))
            taken[1].append(our_round(ours, tensors, steps, masks, crop))
    return tuple(steps * STEP_BATCH / min(times) for times in taken)


def time_class_steps(photos: list[np.ndarray], rounds: int = 3) -> tuple[float, float, float]:
    """Return photos a second of a plain step, of the whole last block on activations, and of the class token's path."""
    module = load_backbone(FinetuneConfig(backbone=OFFLINE_DEFAULT)).module.eval().requires_grad_(False)
    tail = Tail(module, 1).learn(keys=False)
    crop = MultiCrop(n_global=1, global_size=GLOBAL, n_local=0)
    pixels = crop([torch.from_numpy(rgb.copy()).permute(2, 0, 1) for rgb in photos])[0][0]
    hidden, context = run_trunk(module, pixels, 1)
    head, targets = torch.nn.Linear(hidden.shape[2], len(photos), bias=False), torch.arange(len(photos))
    ways = (
        lambda: tokens(module, pixels)[0],
        lambda: tail.tokens(hidden, context)[0],
        lambda: tail(hidden, context),
    )

    def step(way) -> None:
        cross_entropy(head(way()), targets).backward()
        tail.zero_grad()

    return tuple(len(photos) / seconds(lambda way=way: step(way), rounds) for way in ways)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ROOT / "assets"
    parser.add_argument("--data", type=Path, default=default, help="folder of photos (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="steps of each way (default: %(default)s)")
    args = parser.parse_args()
    paths = sorted(p for p in args.data.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:64]
    photos = [shrink(load_image(path), 256) for path in paths]
    photos = (photos * (64 // len(photos) + 1))[:64]
    theirs, ours = time_augmentation(photos)
    print(f"augmentation, 2 x {GLOBAL} + {N_LOCAL} x {LOCAL}, {torch.get_num_threads()} threads or processes")
    print(f"Pillow, photo by photo   {theirs:7.1f} photos/s")
    print(f"ours, batches of {BATCH}      {ours:7.1f} photos/s   {ours / theirs:.2f} times as fast")
    theirs, ours = time_steps(photos, args.steps)
    print(f"step, 2 x {STEP_GLOBAL} + {STEP_N_LOCAL} x {STEP_LOCAL}, batch {STEP_BATCH}")
    print(f"the plain way            {theirs:7.2f} photos/s")
    print(f"ours                     {ours:7.2f} photos/s   {ours / theirs:.2f} times as fast")
    plain, block, path = time_class_steps(photos)
    print(f"step of each photo its own class, {GLOBAL}, batch {len(photos)}")
    print(f"the plain way            {plain:7.1f} photos/s")
    print(f"cached, whole last block {block:7.1f} photos/s   {block / plain:.1f} times as fast")
    print(f"cached, class token      {path:7.1f} photos/s   {path / plain:.1f} times as fast")


if __name__ == "__main__":
    main()
