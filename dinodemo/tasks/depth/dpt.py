"""The published DPT depth models on DINOv2, run whole through transformers: an alternative to a probe."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...backbones import fetch, find_local, is_hub_id
from ...engine import devices
from ...io.images import IMAGENET_MEAN, IMAGENET_STD, ImageSource, Photo, load_photo, network_input
from .tokens import flipped
from .upsample import guided_to_pixels, to_pixels

DPT_MODELS = {  # the name on the hub -> megabytes
    "facebook/dpt-dinov2-small-nyu": 147,
    "facebook/dpt-dinov2-base-nyu": 448,
    "facebook/dpt-dinov2-large-nyu": 1356,
    "facebook/dpt-dinov2-giant-nyu": 4720,
}


class DptDepth:
    """Hold a DPT depth model with its own DINOv2 backbone: metres indoors, up to 10 m (NYU Depth v2).

    source: a folder with config.json and safetensors, or a name on the hub such as those of `DPT_MODELS`.
    Raises ValueError for models of another kind, RuntimeError when the hub cannot be reached or has no safetensors.
    Source: Ranftl et al. 2021 (arXiv:2103.13413), as trained for arXiv:2304.07193.
    """

    unit_ = "metres"

    def __init__(self, source: str | Path = "facebook/dpt-dinov2-small-nyu", device: str = "auto"):
        from transformers import DPTForDepthEstimation

        self.name, self.device = str(source), devices.choose_device(device)
        folder = Path(source) if Path(source).is_dir() else _fetch(self.name)
        _check_config(folder, self.name)
        try:
            loaded: Any = DPTForDepthEstimation.from_pretrained(  # a pair with this output_loading_info
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
        """Return the depth of every pixel of a photo of any size and aspect: (H, W) float32 metres.

        flip, guided: as `DepthProbe.predict` has them. resolution: the network sees about resolution^2 pixels.
        """
        photo = image if isinstance(image, Photo) else load_photo(image)
        depth = self._run(photo, resolution)
        if flip:
            depth = (depth + self._run(flipped(photo), resolution)[:, ::-1]) / 2
        return guided_to_pixels(depth, photo.rgb) if guided else to_pixels(depth, photo.size)

    @torch.inference_mode()
    def _run(self, photo: Photo, resolution: int) -> np.ndarray:
        rgb = network_input(photo.rgb, resolution, self._patch)
        pixels = torch.tensor(rgb, device=self.device).permute(2, 0, 1)[None].float() / 255
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return self._model((pixels - mean) / std).predicted_depth[0].float().cpu().numpy()


def _check_config(folder: Path, name: str) -> None:
    try:
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{name} holds no config.json that can be read ({error}); fetch it again") from error
    backbone = (config.get("backbone_config") or {}).get("model_type")
    if config.get("model_type") != "dpt" or backbone != "dinov2":
        raise ValueError(
            f"{name} is a {config.get('model_type')!r} model on {backbone!r}, expected dpt on dinov2, such as "
            f"{next(iter(DPT_MODELS))}"
        )


def _fetch(name: str) -> Path:
    """Return the model's folder in the Hugging Face cache, downloaded when it is not there."""
    if not is_hub_id(name):
        raise ValueError(f"{name!r} is neither a folder nor a name on the hub, such as {next(iter(DPT_MODELS))}")
    return find_local(name) or fetch(name)
