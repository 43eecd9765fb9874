"""Multi-crop: several random views of every photo of a batch, made together on the device of the photos."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..io.images import IMAGENET_MEAN, IMAGENET_STD
from .colour import ColourParams, change_bytes, change_floats, draw_colours

# chances (blur, solarise) of the first and the other global views and of local ones: DINOv2's and BYOL's
FIRST, SECOND, LOCAL = (1.0, 0.0), (0.1, 0.2), (0.5, 0.0)
ASPECT = (3 / 4, 4 / 3)  # width to height of a crop, before it is squeezed into a square
TRIES = 10


@dataclass(frozen=True)
class View:
    """The random choices of one view of each of B photos."""

    size: int
    boxes: Tensor  # (B, 4) top, left, height, width
    mirrored: Tensor  # indices of the photos
    colours: ColourParams


class MultiCrop:
    """Make n_global views of most and n_local views of a small part of every photo (Caron et al. 2020; DINOv2).

    All random numbers come from the generator, on the CPU: the same crops on every device.

    Args:
        n_global: Global views of each photo.
        global_size: Their side, px.
        global_scale: Shares (low, high) of the photo's area that they show, 0 to 1.
        n_local: Local views of each photo.
        local_size: Their side, px.
        local_scale: Shares of the photo's area that they show.
        mean: What the network expects, RGB, for values from 0 to 1.
        std: The same.
        flip: Mirror half of the crops.
        colour: How strongly colours change, 0 to 1.
        blur: Whether to blur at all.

    Raises:
        ValueError: A share or `colour` is out of its range.
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
        """Make the views of a batch of photos.

        Args:
            images: B tensors (3, H, W) uint8 RGB of any sizes, all on one device.
            generator: On the CPU; torch's own by default.

        Returns:
            Global crops (n_global, B, 3, g, g) and local crops (n_local, B, 3, l, l), float32, normalised.
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
    """Draw one box in whole pixels for each photo.

    The area is uniform in `scale` of the photo's, the log of the aspect uniform; a box that does not fit is
    redrawn, up to ten times; then the largest centred box of a permitted aspect is taken. As torchvision's
    RandomResizedCrop (Szegedy et al. 2015).

    Args:
        sizes: (H, W) of each of n photos.
        scale: Bounds of the share of the area, 0 to 1.
        generator: On the CPU; torch's own by default.

    Returns:
        Boxes (n, 4) int64 on the CPU: top, left, height, width.
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
    """Cut a box out of each photo and scale it to a square, bicubic with antialiasing.

    What Pillow's resize(BICUBIC) gives on the cut box, to rounding.

    Args:
        images: n tensors (3, H, W) uint8.
        boxes: (n, 4) top, left, height, width.
        size: Side of the square, px.

    Returns:
        n crops (3, size, size) uint8.
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
