"""Multi-crop: several random views of every photo of a batch, cut and recoloured on the device of the photos.

Brightness, contrast, saturation, hue and grey are all affine maps of a pixel's three values, so each crop's changes are
multiplied together first and touch the pixels once. Two differences to doing them one by one on bytes: values are cut
to 0..1 after all of them and not after each, and hue turns the colour around the grey axis in YIQ instead of shifting
HSV's angle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..io.images import IMAGENET_MEAN, IMAGENET_STD

# chances (blur, solarise) of the first and the other global views and of local ones: DINOv2's and BYOL's
FIRST, SECOND, LOCAL = (1.0, 0.0), (0.1, 0.2), (0.5, 0.0)
ASPECT = (3 / 4, 4 / 3)  # width to height of a crop, before it is squeezed into a square
TRIES = 10
GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow
TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
SIGMA = (0.1, 2.0)  # pixels, of the blur
RADIUS = 4  # pixels of its kernel on either side
THRESHOLD = 127.5 / 255  # values from byte 128 on are turned over by solarise
TURNED_OVER = np.where(np.arange(256) < 128, np.arange(256), 255 - np.arange(256))


@dataclass(frozen=True)
class View:
    """The random choices of one view of each of B photos."""

    size: int
    boxes: Tensor  # (B, 4) top, left, height, width
    mirrored: Tensor  # indices of the photos
    colours: "ColourParams"


class MultiCrop:
    """Make n_global views of most and n_local views of a small part of every photo (Caron et al. 2020; DINOv2).

    sizes in pixels, scales as shares of the photo's area. mean, std: what the network expects, for values from 0 to 1.
    flip: mirror half of the crops. colour: 0 to 1, how strongly colours change; blur: whether to blur at all.
    All random numbers come from the generator, on the CPU: the same crops on every device.
    """

    def __init__(
        self,
        n_global: int = 2,
        global_size: int = 224,
        global_scale: tuple[float, float] = (0.32, 1.0),
        n_local: int = 8,
        local_size: int = 98,
        local_scale: tuple[float, float] = (0.05, 0.32),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        flip: bool = True,
        colour: float = 1.0,
        blur: bool = True,
    ):
        for name, (low, high) in (("global_scale", global_scale), ("local_scale", local_scale)):
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} must be shares of the area, 0 < low <= high <= 1, got ({low}, {high})")
        if not 0 <= colour <= 1:
            raise ValueError(f"colour must lie between 0 and 1, got {colour}")
        self.n_global, self.global_size, self.global_scale = n_global, global_size, global_scale
        self.n_local, self.local_size, self.local_scale = n_local, local_size, local_scale
        self.flip, self.colour, self.blur = flip, colour, blur
        self._mean, self._std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    def __call__(self, images: list[Tensor], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return global crops (n_global, B, 3, g, g) and local crops (n_local, B, 3, l, l), float32, normalised.

        images: B tensors (3, H, W) uint8 of any sizes, all on one device.
        """
        kinds = [(self.global_size, self.global_scale, FIRST if i == 0 else SECOND) for i in range(self.n_global)]
        kinds += [(self.local_size, self.local_scale, LOCAL)] * self.n_local
        drawn = [self._draw(images, *kind, generator) for kind in kinds]
        n, device = len(images), images[0].device
        # made where they belong: gathering views afterwards would touch all of that memory once more
        large = torch.empty(self.n_global, n, 3, self.global_size, self.global_size, device=device)
        small = torch.empty(self.n_local, n, 3, self.local_size, self.local_size, device=device)
        # one after the other: steps this short are slower on two threads, which hand Python's lock back and forth
        for view, out in zip(drawn, [*large, *small], strict=True):
            self._make(images, view, out)
        return large, small

    def _draw(
        self,
        images: list[Tensor],
        size: int,
        scale: tuple[float, float],
        chances: tuple[float, float],
        generator: torch.Generator | None,
    ) -> View:
        """Draw where a view is cut from each photo and how its colours change."""
        n, (blur, solarise) = len(images), chances
        boxes = draw_boxes([(image.shape[1], image.shape[2]) for image in images], scale, generator)
        mirrored = (torch.rand(n, generator=generator) < 0.5 * self.flip).nonzero()[:, 0]
        colours = draw_colours(n, self.colour, blur * self.blur, solarise, generator)
        return View(size, boxes, mirrored, colours)

    def _make(self, images: list[Tensor], view: View, out: Tensor) -> None:
        """Make a view of each photo, normalised, into out (B, 3, size, size) float32."""
        crops = resample(images, view.boxes, view.size)
        if out.device.type == "cpu":
            change_bytes(crops, view.colours, view.mirrored.tolist(), self._mean, self._std, out)
        else:
            batch = torch.stack(crops)
            batch[view.mirrored] = batch[view.mirrored].flip(-1)
            mean, std = self._mean.to(out.device), self._std.to(out.device)
            torch.sub(change_floats(batch, view.colours), mean, out=out).div_(std)


def draw_boxes(
    sizes: list[tuple[int, int]], scale: tuple[float, float], generator: torch.Generator | None = None
) -> Tensor:
    """Draw one box (top, left, height, width) in whole pixels for each photo of size (H, W): (n, 4) int64 on the CPU.

    The area is uniform in `scale` of the photo's, the log of the aspect uniform; a box that does not fit is
    redrawn, up to ten times; then the largest centred box of a permitted aspect is taken. As torchvision's
    RandomResizedCrop (Szegedy et al. 2015).
    """
    n = len(sizes)
    size = torch.tensor(sizes, dtype=torch.float64).reshape(n, 2)
    height, width = size[:, :1], size[:, 1:]  # (n, 1)
    chance = torch.rand(n, TRIES, 4, generator=generator, dtype=torch.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * chance[..., 0])
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    aspect = torch.exp(low + (high - low) * chance[..., 1])
    tall, wide = torch.sqrt(area / aspect).round(), torch.sqrt(area * aspect).round()  # (n, TRIES)
    fits = (tall >= 1) & (wide >= 1) & (tall <= height) & (wide <= width)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    tall, wide = tall.gather(1, first), wide.gather(1, first)
    top = torch.floor(chance[..., 2].gather(1, first) * (height - tall + 1))
    left = torch.floor(chance[..., 3].gather(1, first) * (width - wide + 1))
    boxes = torch.cat([top, left, tall, wide], dim=1)
    return torch.where(fits.any(dim=1, keepdim=True), boxes, _centred(height, width)).to(torch.int64)


def _centred(height: Tensor, width: Tensor) -> Tensor:
    tall = torch.minimum(height, (width / ASPECT[0]).round())
    wide = torch.minimum(width, (height * ASPECT[1]).round())
    return torch.cat([((height - tall) / 2).floor(), ((width - wide) / 2).floor(), tall, wide], dim=1)


def resample(images: list[Tensor], boxes: Tensor, size: int) -> list[Tensor]:
    """Cut a box out of each photo and scale it to a square, bicubic with antialiasing: n crops (3, size, size) uint8.

    images: n tensors (3, H, W) uint8. What Pillow's resize(BICUBIC) gives on the cut box, to rounding.
    """
    crops = []
    for image, (top, left, tall, wide) in zip(images, boxes.tolist(), strict=True):
        # the new dimension goes before the rows, so that torch sees a picture that lies pixel by pixel: twice as fast
        window = image.permute(1, 2, 0)[None, top : top + tall, left : left + wide].permute(0, 3, 1, 2)
        if image.device.type == "cpu":  # has a fast way for bytes
            crops.append(F.interpolate(window, (size, size), mode="bicubic", antialias=True)[0])
        else:
            scaled = F.interpolate(window.float(), (size, size), mode="bicubic", antialias=True)[0]
            crops.append(scaled.round_().clamp_(0, 255).byte())
    return crops


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
        """Move all of them to a device."""
        return ColourParams(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


def draw_colours(
    n: int, strength: float, blur: float, solarise: float, generator: torch.Generator | None = None
) -> ColourParams:
    """Draw the changes of n crops as DINOv2 does: jitter (0.4, 0.4, 0.2, 0.1) on 0.8 of them, grey on 0.2.

    strength: 0 to 1, scales the jitter and the chances of grey and solarise. blur, solarise: chances.
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
    """Change crops (n, 3, h, w) uint8 all together; returns float32 from 0 to 1. For accelerators.

    In this order: jitter, grey, blur, solarise.
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
    """Do the same crop by crop on bytes, mirror some and normalise, into out (n, 3, h, w) float32. For processors.

    crops: n tensors (3, h, w) uint8. mirrored: indices of crops. mean, std (3, 1, 1): of values from 0 to 1.
    A processor's cache holds one crop, and OpenCV has fast ways for bytes; torch would share each small step out among
    threads, which wait for each other when several views are made at once.
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
    """Return each crop's jitter and grey as one map v -> matrix @ v + offset: (n, 3, 3), (n, 3).

    mean (n, 3): the crops' mean colours, around whose grey contrast turns.
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
    """Blur crops (n, 3, h, w), each with its own sigma (n,) above 0 in pixels: 9 taps each way, the border mirrored."""
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
