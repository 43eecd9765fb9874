"""Cut crops out of photos: where (random-resized crops) and how (antialiased resampling)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ASPECT = (3 / 4, 4 / 3)  # width to height of a crop, before it is squeezed into a square
TRIES = 10


def draw_boxes(
    sizes: list[tuple[int, int]], scale: tuple[float, float], generator: torch.Generator | None = None
) -> Tensor:
    """Draw one box (top, left, height, width) in whole pixels for each photo of size (H, W): (n, 4) int64 on the CPU.

    The area is uniform in `scale` of the photo's, the log of the aspect uniform; a box that does not fit is drawn
    anew, up to ten times, then the largest centred box of a permitted aspect is taken. As torchvision's
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
