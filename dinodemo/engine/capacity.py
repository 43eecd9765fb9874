"""How many pictures of a size a device can take at once, and how long one takes."""

import torch

from ..backbones import Backbone
from . import devices

MAX_BATCH, MAX_BATCH_CPU = 64, 8  # a CPU gains nothing from more, and progress is reported a batch at a time
MEMORY_SHARE = 0.6  # of the free memory that one batch may take


class Capacity:
    """Estimate memory and time of a network's passes from its shape and the speed seen so far.

    Args:
        backbone: The network's shape.
        prefix: Number of its tokens that are no patches.
        device: That it runs on.
        dtype: Of its activations.
    """

    def __init__(self, backbone: Backbone, prefix: int, device: torch.device, dtype: torch.dtype):
        self.backbone, self.prefix, self.device, self.dtype = backbone, prefix, device, dtype
        self.most = MAX_BATCH_CPU if device.type == "cpu" else MAX_BATCH  # pictures
        self._speed, self._seen = 5e10, False  # operations a second, a running mean
        self._besides = 0.0  # seconds of a request besides the network's, a running mean

    def check_fits(self, size: tuple[int, int]) -> int:
        """Return how many pictures of an input size (H, W) fit into memory at once; RuntimeError when none does."""
        fits = int(MEMORY_SHARE * devices.free_memory(self.device) / self.picture_bytes(size))
        if fits < 1:
            raise RuntimeError(self.too_large(size))
        return min(fits, self.most)

    def too_large(self, size: tuple[int, int]) -> str:
        """Return a sentence on why an input size (H, W) does not fit, with a resolution that would."""
        share = MEMORY_SHARE * devices.free_memory(self.device) / self.picture_bytes(size)
        asked = (size[0] * size[1]) ** 0.5
        fits = int(asked * min(share, 0.9) ** 0.5) // self.backbone.patch_size * self.backbone.patch_size
        return (
            f"resolution {asked:.0f} needs more memory than {devices.describe(self.device)} has free; "
            f"a resolution of {max(fits, self.backbone.patch_size)} would fit"
        )

    def seconds(self, tokens: int) -> float:
        """Return the estimated time of a picture of so many tokens."""
        return self._flops(tokens) / self._speed

    def learn(self, pictures: int, tokens: int, seconds: float) -> None:
        """Update the speed.

        Args:
            pictures: That ran together.
            tokens: Of each.
            seconds: That they took.
        """
        speed = pictures * self._flops(tokens) / max(seconds, 1e-6)
        self._speed = 0.5 * self._speed + 0.5 * speed if self._seen else speed
        self._seen = True

    def request_seconds(self, tokens: int) -> float:
        """Return the estimated time of a request: the network's, and what requests waited besides."""
        return self.seconds(tokens) + self._besides

    def learn_request(self, tokens: int, seconds: float) -> None:
        """Update what requests take besides the network: shrinking the picture, waiting for the device.

        Args:
            tokens: Of the picture.
            seconds: From the question to the answer.
        """
        self._besides = 0.5 * (self._besides + max(0.0, seconds - self.seconds(tokens)))

    def picture_bytes(self, size: tuple[int, int]) -> int:
        """Return the bytes of a picture's activations: MLP, q, k, v, residuals, and all layers kept at worst."""
        row = self.backbone
        tokens = size[0] * size[1] // row.patch_size**2 + self.prefix
        return tokens * row.width * (16 + row.depth) * self.dtype.itemsize + size[0] * size[1] * 24

    def _flops(self, tokens: int) -> float:
        row = self.backbone
        return row.depth * (24 * tokens * row.width**2 + 4 * tokens**2 * row.width)
