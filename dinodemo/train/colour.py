"""Change the colours of many crops at once, each in its own way: jitter, grey, blur, solarise.

Brightness, contrast, saturation, hue and grey are all affine maps of a pixel's three values, so each crop's changes are
multiplied together first and touch the pixels once. Two differences to doing them one by one on bytes: values are cut
to 0..1 after all of them and not after each, and hue turns the colour around the grey axis in YIQ instead of shifting
HSV's angle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow
TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
SIGMA = (0.1, 2.0)  # pixels, of the blur
RADIUS = 4  # pixels of its kernel on either side
THRESHOLD = 127.5 / 255  # values from byte 128 on are turned over by solarise
TURNED_OVER = np.where(np.arange(256) < 128, np.arange(256), 255 - np.arange(256))


@dataclass(frozen=True)
class ColourParams:
    """The colour changes of each of n crops, on the CPU until they are used."""

    brightness: Tensor  # (n,) factors, 1 leaves as it is
    contrast: Tensor  # (n,) factors
    saturation: Tensor  # (n,) factors
    hue: Tensor  # (n,) turns, 0 leaves as it is
    order: Tensor  # (n, 4) permutations of brightness, contrast, saturation, hue
    grey: Tensor  # (n,) bool
    sigma: Tensor  # (n,) pixels, 0: no blur
    solarise: Tensor  # (n,) bool

    def to(self, device: torch.device) -> "ColourParams":
        """Return all of them on a device."""
        return ColourParams(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


def draw_colours(
    n: int, strength: float, blur: float, solarise: float, generator: torch.Generator | None = None
) -> ColourParams:
    """Draw the changes of n crops as DINOv2 does: jitter (0.4, 0.4, 0.2, 0.1) on 0.8 of them, grey on 0.2.

    Args:
        n: Number of crops.
        strength: Scales the jitter and the chances of grey and solarise, 0 to 1.
        blur: Chance of a blur, 0 to 1.
        solarise: Chance of solarising, 0 to 1.
        generator: On the CPU; torch's own by default.

    Returns:
        The changes of each crop.
    """
    chance = torch.rand(12, n, generator=generator)
    jitter = (chance[0] < 0.8) * strength
    brightness, contrast = (1 + 0.4 * jitter * (2 * chance[i] - 1) for i in (1, 2))
    saturation = 1 + 0.2 * jitter * (2 * chance[3] - 1)
    hue = 0.1 * jitter * (2 * chance[4] - 1)
    sigma = (SIGMA[0] + (SIGMA[1] - SIGMA[0]) * chance[5]) * (chance[6] < blur)
    order = torch.rand(n, 4, generator=generator).argsort(dim=1)
    return ColourParams(
        brightness, contrast, saturation, hue, order, chance[7] < 0.2 * strength, sigma, chance[8] < solarise * strength
    )


def change_floats(crops: Tensor, params: ColourParams) -> Tensor:
    """Change the colours of crops all together, for accelerators: jitter, then grey, blur and solarise.

    Args:
        crops: (n, 3, h, w) uint8 RGB.
        params: The changes of each crop.

    Returns:
        (n, 3, h, w) float32, 0 to 1.
    """
    # looked up on the CPU, where asking makes no device wait
    blurred, solarised = params.sigma.nonzero()[:, 0], params.solarise.nonzero()[:, 0]
    sigma = params.sigma[blurred].to(crops.device)
    values = crops.float().div_(255)
    n, _, h, w = values.shape
    matrix, offset = affine(params.to(crops.device), values.mean(dim=(2, 3)))
    changed = torch.baddbmm(offset[:, :, None], matrix, values.reshape(n, 3, -1)).reshape(n, 3, h, w).clamp_(0, 1)
    if len(blurred):
        changed[blurred] = gaussian_blur(changed[blurred], sigma)
    if len(solarised):
        bright = changed[solarised]
        changed[solarised] = torch.where(bright >= THRESHOLD, 1 - bright, bright)
    return changed


def change_bytes(
    crops: Sequence[Tensor], params: ColourParams, mirrored: Sequence[int], mean: Tensor, std: Tensor, out: Tensor
) -> None:
    """Change the colours of crops one by one on bytes, mirror some and normalise, for processors.

    A processor's cache holds one crop, and OpenCV has fast ways for bytes; torch would share each small step out among
    threads, which wait for each other when several views are made at once.

    Args:
        crops: n tensors (3, h, w) uint8 RGB.
        params: The changes of each crop.
        mirrored: Indices of the crops to mirror.
        mean: (3, 1, 1), of values from 0 to 1.
        std: (3, 1, 1).
        out: (n, 3, h, w) float32, to fill.
    """
    pixels = [crop.permute(1, 2, 0).contiguous().numpy() for crop in crops]
    matrix, offset = affine(params, torch.tensor([cv2.mean(crop)[:3] for crop in pixels]) / 255)
    maps = torch.cat([matrix, 255 * offset[..., None]], dim=2).numpy()  # (n, 3, 4)
    plain = ((torch.arange(256) / 255 - mean[:, 0]) / std[:, 0]).numpy()  # (3, 256): what a byte becomes
    tables = plain, plain[:, TURNED_OVER].copy()
    turned, solarised = {int(i) for i in mirrored}, params.solarise.tolist()
    for i, (sigma, made) in enumerate(zip(params.sigma.tolist(), out.numpy(), strict=True)):
        crop = cv2.transform(pixels[i], maps[i])  # rounds, and cuts to 0..255
        if sigma:
            taps = cv2.getGaussianKernel(2 * RADIUS + 1, sigma)
            crop = cv2.sepFilter2D(crop, -1, taps, taps)  # twice as fast as GaussianBlur, which is exact to the bit
        if i in turned:
            crop = cv2.flip(crop, 1)
        for plane, table, made_plane in zip(cv2.split(crop), tables[solarised[i]], made, strict=True):
            cv2.LUT(plane, table, dst=made_plane)


def affine(params: ColourParams, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Compose each crop's jitter and grey into one map v -> matrix @ v + offset.

    Args:
        params: The changes of n crops.
        mean: (n, 3), the crops' mean colours, around whose grey contrast turns.

    Returns:
        Matrices (n, 3, 3) and offsets (n, 3).
    """
    n, device = len(mean), mean.device
    one = torch.eye(3, device=device)
    weights = torch.tensor(GREY, device=device)
    to_grey = weights.expand(3, 3)
    matrix, offset = one.repeat(n, 1, 1), torch.zeros(n, 3, device=device)
    factors = torch.stack([params.brightness, params.contrast, params.saturation], dim=1)[:, :, None, None]
    saturate = factors[:, 2] * one + (1 - factors[:, 2]) * to_grey
    steps = torch.stack([factors[:, 0] * one, factors[:, 1] * one, saturate, hue_matrices(params.hue)], dim=1)
    rows = torch.arange(n, device=device)
    for turn in range(4):
        which = params.order[:, turn]
        step = steps[rows, which]  # (n, 3, 3)
        level = ((matrix @ mean[..., None])[..., 0] + offset) @ weights  # grey of the mean colour by now
        shift = (which == 1) * (1 - params.contrast) * level
        matrix, offset = step @ matrix, (step @ offset[..., None])[..., 0] + shift[:, None]
    grey = params.grey[:, None, None]
    return torch.where(grey, to_grey @ matrix, matrix), torch.where(grey[..., 0], offset @ to_grey.T, offset)


def hue_matrices(turns: Tensor) -> Tensor:
    """Return the maps (n, 3, 3) that turn colours around the grey axis in YIQ by so many turns (n,)."""
    to_yiq = torch.tensor(TO_YIQ, device=turns.device)
    angle = 2 * torch.pi * turns
    cosine, sine = angle.cos(), angle.sin()
    rotation = torch.zeros(len(turns), 3, 3, device=turns.device)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = cosine
    rotation[:, 1, 2], rotation[:, 2, 1] = -sine, sine
    return torch.linalg.inv(to_yiq) @ rotation @ to_yiq


def gaussian_blur(crops: Tensor, sigma: Tensor) -> Tensor:
    """Blur crops, each with its own sigma: 9 taps each way, the border mirrored.

    Args:
        crops: (n, 3, h, w) float.
        sigma: (n,), above 0, px.

    Returns:
        (n, 3, h, w).
    """
    radius = min(RADIUS, crops.shape[2] - 1, crops.shape[3] - 1)
    offsets = torch.arange(radius + 1, device=sigma.device)
    taps = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    taps = taps / (2 * taps.sum(dim=1, keepdim=True) - taps[:, :1])  # (n, radius + 1), from the middle outwards
    padded = F.pad(crops, (radius,) * 4, mode="reflect")
    return _blur_side(_blur_side(padded, taps, 2, radius), taps, 3, radius)


def _blur_side(padded: Tensor, taps: Tensor, side: int, radius: int) -> Tensor:
    """Add shifted copies up along a side; each is read from memory once, which is all this costs."""
    size = padded.shape[side] - 2 * radius
    taps = taps[:, :, None, None, None]
    blurred = padded.narrow(side, radius, size) * taps[:, 0]
    for i in range(1, radius + 1):
        both = padded.narrow(side, radius - i, size) + padded.narrow(side, radius + i, size)
        blurred.addcmul_(both, taps[:, i])
    return blurred
