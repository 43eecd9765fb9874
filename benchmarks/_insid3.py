"""INSID3 (Cuttano et al. 2026, arXiv:2603.28480): its own code from a checkout, on our backbone's tokens.

Get it with `git clone https://github.com/visinf/INSID3`, and `pip install einops pycocotools matplotlib`. Only its
encoder is replaced, and the four functions that it takes from torchvision, which this machine may lack. Pictures are
squashed to a square, as it does. Its settings are the published ones, but for the number of directions that it
removes (500 of 1024 for its large model), which is swept. Without its CRF, which takes seconds a picture on a CPU.
"""

import sys
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dinodemo.io.images import load_image

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
TAU, MERGE = 0.6, 0.2


class _Compose:
    def __init__(self, steps):
        self.steps = steps

    def __call__(self, picture):
        for step in self.steps:
            picture = step(picture)
        return picture


class _Resize:
    def __init__(self, size):
        self.size = size

    def __call__(self, picture):
        return picture.resize(self.size[::-1], Image.Resampling.BILINEAR)


class _ToTensor:
    def __call__(self, picture):
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


class _Normalize:
    def __init__(self, mean, std):
        self.mean, self.std = mean, std

    def __call__(self, picture):
        return _normalize(picture, self.mean, self.std)


def _normalize(picture, mean, std):
    return (picture - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def _stand_in() -> None:
    """Offer what INSID3 asks of torchvision."""
    whole, transforms, functional = (
        types.ModuleType(name)
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    )
    transforms.Compose, transforms.Resize = _Compose, _Resize
    transforms.ToTensor, transforms.Normalize = _ToTensor, _Normalize
    functional.normalize = _normalize
    transforms.functional, whole.transforms = functional, transforms
    sys.modules.update({module.__name__: module for module in (whole, transforms, functional)})


class _Encoder(torch.nn.Module):
    """Answer as a DINO repository's model does, with the engine's last-layer patch tokens."""

    def __init__(self, engine):
        super().__init__()
        self.engine = engine

    def get_intermediate_layers(self, pictures, n=1, reshape=True):
        return [torch.stack([self._tokens(picture) for picture in pictures])]

    def _tokens(self, picture):
        rgb = ((picture * STD + MEAN) * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        return torch.tensor(self.engine.features(rgb, resolution=rgb.shape[0]).patches).permute(2, 0, 1)


class Insid3:
    """INSID3, ready to segment pairs; raises SystemExit, with what to do, when the checkout is not usable."""

    def __init__(self, checkout: Path, engine, resolution: int, removed: int):
        _stand_in()
        sys.path.insert(0, str(checkout))
        try:
            from models.insid3 import INSID3
        except ImportError as error:
            sys.exit(f"{checkout} does not work as a checkout of INSID3 ({error}); see the top of {__file__}")
        self.model = INSID3(
            _Encoder(engine),
            image_size=resolution,
            svd_components=removed,
            tau=TAU,
            merge_threshold=MERGE,
            mask_refiner="bilinear",
            resize_to_orig_size=True,
            device="cpu",
        )

    def mask(self, reference: Path, reference_mask: np.ndarray, target: Path) -> np.ndarray:
        """Segment a target: (H, W) bool."""
        self.model.reset_state()
        self.model.set_reference(Image.fromarray(np.array(load_image(reference))), torch.tensor(reference_mask))
        self.model.set_target(Image.fromarray(np.array(load_image(target))))
        return self.model.segment().numpy().astype(bool)
