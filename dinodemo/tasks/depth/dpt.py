"""Published depth models on DINOv2 (DPT, Depth Anything V2), run whole through transformers: a probe's reference."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...backbones import fetch, find_local, is_hub_id
from ...engine import devices
from ...io.images import IMAGENET_MEAN, IMAGENET_STD, ImageSource, Photo, as_photo, network_input
from .tokens import flipped
from .upsample import guided_to_pixels, to_pixels


@dataclass(frozen=True)
class DepthModel:
    """A depth model on the hub.

    Args:
        megabytes: of its download.
        licence: of its weights.
        words: what it gives.
    """

    megabytes: int
    licence: str
    words: str


_NYU, _KITTI = "metres indoors, to 10 m", "metres in streets, to 80 m"
DPT_MODELS = {  # by their names on the hub
    "depth-anything/Depth-Anything-V2-Small-hf": DepthModel(99, "Apache-2.0", "near and far anywhere"),
    "facebook/dpt-dinov2-small-nyu": DepthModel(147, "Apache-2.0", _NYU),
    "facebook/dpt-dinov2-small-kitti": DepthModel(147, "Apache-2.0", _KITTI),
    "facebook/dpt-dinov2-base-nyu": DepthModel(448, "Apache-2.0", _NYU),
    "facebook/dpt-dinov2-base-kitti": DepthModel(448, "Apache-2.0", _KITTI),
    "facebook/dpt-dinov2-large-nyu": DepthModel(1356, "Apache-2.0", _NYU),
    "facebook/dpt-dinov2-giant-nyu": DepthModel(4720, "Apache-2.0", _NYU),
}
CLASSES = {"dpt": "DPTForDepthEstimation", "depth_anything": "DepthAnythingForDepthEstimation"}  # by model_type
DEFAULT = "facebook/dpt-dinov2-small-nyu"
NEAR_SHARE, FAR_SHARE = 0.98, 0.02  # quantiles of inverse depth that become 0.1 and 1


class DptDepth:
    """A whole depth model with its own DINOv2 backbone: DPT in metres, Depth Anything V2 in metres or near and far.

    `unit_` is "metres", or "relative" for models that give inverse depth without a unit.

    Args:
        source: a folder with config.json and safetensors, or a name on the hub such as those of `DPT_MODELS`.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        ValueError: for models of another kind.
        RuntimeError: when the hub cannot be reached or has no safetensors.

    Source: Ranftl et al. 2021 (arXiv:2103.13413), as trained for arXiv:2304.07193; Yang et al. 2024 (arXiv:2406.09414).
    """

    def __init__(self, source: str | Path = DEFAULT, device: str = "auto"):
        import transformers

        self.name, self.device = str(source), devices.choose_device(device)
        folder = Path(source) if Path(source).is_dir() else _fetch(self.name)
        kind, self.unit_ = _check_config(folder, self.name)
        try:
            loaded: Any = getattr(transformers, CLASSES[kind]).from_pretrained(  # a pair with output_loading_info
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ValueError(f"the model {self.name} cannot be loaded: {error}; fetch it again") from error
        model, report = loaded
        missing = [key for key in report["missing_keys"] if "mask_token" not in key]
        if missing:
            raise ValueError(
                f"the model {self.name} lacks {len(missing)} parameters, e.g. {missing[0]}; fetch it again"
            )
        self._model = model.to(self.device).eval().requires_grad_(False)
        self._patch = model.config.backbone_config.patch_size

    def predict(
        self, image: ImageSource | Photo, flip: bool = False, guided: bool = True, resolution: int = 560
    ) -> np.ndarray:
        """Return the depth of every pixel of a photo of any size and aspect: (H, W) float32, larger is farther.

        Args:
            image: a path, bytes, PIL, (H, W, 3) uint8 or Photo.
            flip, guided: as `DepthProbe.predict` has them.
            resolution: the network sees about resolution^2 pixels.

        Returns:
            metres, or with the unit "relative" 0.1 (near) to 1 (far).
        """
        photo = as_photo(image)
        depth = self._run(photo, resolution)
        if flip:
            depth = (depth + self._run(flipped(photo), resolution)[:, ::-1]) / 2
        if self.unit_ == "relative":
            depth = _from_inverse(depth)
        return guided_to_pixels(depth, photo.rgb) if guided else to_pixels(depth, photo.size)

    @torch.inference_mode()
    def _run(self, photo: Photo, resolution: int) -> np.ndarray:
        rgb = network_input(photo.rgb, resolution, self._patch)
        pixels = torch.tensor(rgb, device=self.device).permute(2, 0, 1)[None].float() / 255
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return self._model((pixels - mean) / std).predicted_depth[0].float().cpu().numpy()


def _from_inverse(inverse: np.ndarray) -> np.ndarray:
    """Return depth (H, W) in [0.1, 1] of inverse depth without scale and shift, as `dataset.without_scale` has it."""
    far, near = np.quantile(inverse, (FAR_SHARE, NEAR_SHARE))
    return (1 / (1 + 9 * np.clip((inverse - far) / max(float(near - far), 1e-9), 0, 1))).astype(np.float32)


def _check_config(folder: Path, name: str) -> tuple[str, str]:
    """Return the model's type and the unit of what it gives; raises ValueError for models of another kind."""
    try:
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{name} holds no config.json that can be read ({error}); fetch it again") from error
    kind, backbone = config.get("model_type"), (config.get("backbone_config") or {}).get("model_type")
    if kind not in CLASSES or backbone != "dinov2":
        raise ValueError(
            f"{name} is a {kind!r} model on {backbone!r}, expected dpt on dinov2 or depth_anything, such as {DEFAULT}"
        )
    relative = kind == "depth_anything" and config.get("depth_estimation_type", "relative") == "relative"
    return str(kind), "relative" if relative else "metres"


def _fetch(name: str) -> Path:
    """Return the model's folder in the Hugging Face cache, downloaded when it is not there."""
    if not is_hub_id(name):
        raise ValueError(f"{name!r} is neither a folder nor a name on the hub, such as {DEFAULT}")
    return find_local(name) or fetch(name)
