"""The depth heads that were published with DINOv2: their names, their download, their files."""

import re
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch

from ...io.files import whole_file
from .card import FORMAT
from .head import LinearDepthHead, layer_indices
from .probe_file import build

BASE_URL = "https://dl.fbaipublicfiles.com/dinov2"
TIMEOUT = 4.0  # seconds without an answer until the server counts as out of reach
MAX_FILE_BYTES = 64_000_000
RESOLUTION = 560  # about the pixels of the 644 x 490 that the heads were tested at
RANGES = {"nyu": (0.001, 10.0), "kitti": (0.001, 80.0)}  # metres; the hub's code says 80 for all linear heads
BACKBONES = {  # published name -> name here, width, layers
    "vits14": ("dinov2-small", 384, 12),
    "vitb14": ("dinov2-base", 768, 12),
    "vitl14": ("dinov2-large", 1024, 24),
    "vitg14": ("dinov2-giant", 1536, 40),
}
DATA = {"nyu": "NYU Depth v2", "kitti": "KITTI"}
WARNINGS = {
    "nyu": "Trained on NYU Depth v2: indoor rooms seen by a Kinect, up to 10 m.",
    "kitti": "Trained on KITTI: streets seen from a car, up to 80 m.",
}
_NAME = re.compile(r"dinov2_(vit[sblg]14)_(nyu|kitti)_linear(4?)_head")


@dataclass(frozen=True)
class OfficialHead:
    """A published head and what it belongs to."""

    name: str  # such as dinov2_vits14_nyu_linear4
    backbone: str  # a name of the table of backbones
    dataset: str  # "nyu" or "kitti"
    layers: int  # 1 or 4
    url: str

    @property
    def label(self) -> str:
        """Return one line for a picker."""
        where = {"nyu": "indoor, to 10 m", "kitti": "streets, to 80 m"}[self.dataset]
        return f"{self.dataset.upper()} {'four layers' if self.layers == 4 else 'one layer'} ({where})"


OFFICIAL_HEADS = {
    head.name: head
    for arch, (backbone, _, _) in BACKBONES.items()
    for dataset in RANGES
    for layers in (4, 1)
    for stem in [f"dinov2_{arch}_{dataset}_linear{'4' if layers == 4 else ''}"]
    for head in [OfficialHead(stem, backbone, dataset, layers, f"{BASE_URL}/dinov2_{arch}/{stem}_head.pth")]
}


def official_heads(backbone: str) -> list[OfficialHead]:
    """Return the heads that were published for a backbone, by its name; none for all others."""
    return [head for head in OFFICIAL_HEADS.values() if head.backbone == backbone]


def fetch_official(name: str, folder: str | Path, url: str | None = None) -> Path:
    """Download a published head into a folder, unless it is there.

    Args:
        name: A key of `OFFICIAL_HEADS`.
        folder: To write to.
        url: Another address than the published one.

    Returns:
        The path of the file.

    Raises:
        ValueError: The name is unknown.
        RuntimeError: The server does not answer within seconds, or what comes is not a head's size.
    """
    if name not in OFFICIAL_HEADS:
        raise ValueError(f"no published head is called {name!r}; there are {', '.join(OFFICIAL_HEADS)}")
    target = Path(folder) / f"{name}_head.pth"
    if target.is_file():
        return target
    url = url or OFFICIAL_HEADS[name].url
    with whole_file(target) as part:
        _download(url, part)
    return target


def _download(url: str, part: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, part.open("wb") as file:
            expected = int(answer.headers.get("Content-Length") or 0)
            if expected > MAX_FILE_BYTES:
                raise RuntimeError(f"{url} has {expected / 1e6:.0f} MB, more than any head; it is not downloaded")
            shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise RuntimeError(
            f"{url} cannot be had ({getattr(error, 'reason', error)}); check the network, or download it elsewhere "
            f"and open the file"
        ) from error
    if expected and part.stat().st_size != expected:
        raise RuntimeError(f"{url} broke off after {part.stat().st_size} of {expected} bytes; try again")


def read_official(path: Path, dataset: str | None = None, backbone: str | None = None) -> tuple[dict, LinearDepthHead]:
    """Read a published head's file: its card and the head; raises ValueError (see `DepthProbe.from_meta`)."""
    named = _NAME.match(path.name)
    dataset = dataset or (named[2] if named else None)
    if dataset not in RANGES:
        raise ValueError(
            f'{path.name}: the data it was trained on must be "nyu" or "kitti", got {dataset!r}; keep the published '
            "file name or say which"
        )
    weight, bias = _read_tensors(path)
    bins, channels = weight.shape[:2]
    name, width, depth, count = _find_backbone(path, channels, backbone, named[1] if named else None)
    low, high = RANGES[dataset]
    card = {
        "format": FORMAT,
        "backbone": name,
        "identity": "",
        "width": width,
        "depth": depth,
        "layers": list(layer_indices(depth, count)),
        "normed": False,
        "resolution": RESOLUTION,
        "kind": f"lin{count}",
        "bins": bins,
        "range": [low, high],
        "relative": False,
        "inverse": False,
        "balanced": False,
        "flips": False,
        "mean": False,
        "seed": 0,
        "epochs": 0,
        "epochs_run": 0,
        "epoch_kept": 0,
        "pairs": 0,
        "held_out_pairs": 0,
        "chosen_on_held_out": False,
        "metrics": None,
        "source": f"published by Meta with DINOv2 ({path.name})",
        "data": DATA[dataset],
        "licence": "Apache-2.0",
        "warning": WARNINGS[dataset],
    }
    return card, build(card, {"weight": weight.flatten(1).float(), "bias": bias.float()})


def _read_tensors(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES // 1_000_000} MB")
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("state_dict", content)
        weight, bias = (state[f"decode_head.conv_depth.{name}"] for name in ("weight", "bias"))
        if (
            weight.ndim != 4
            or weight.shape[2:] != (1, 1)
            or bias.shape != weight.shape[:1]
            or not 2 <= len(bias) <= 4096
        ):
            raise ValueError(f"its convolution has shape {tuple(weight.shape)} and bias {tuple(bias.shape)}")
        if not (weight.is_floating_point() and weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError("its numbers must be finite")
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{path.name} is no published linear depth head, expected decode_head.conv_depth.weight (256, C, 1, 1) and "
            f".bias ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); download it again"
        ) from error
    return weight, bias


def _find_backbone(path: Path, channels: int, backbone: str | None, arch: str | None) -> tuple[str, int, int, int]:
    """Return name, width and layers of the backbone, and how many layers the head reads, by its input channels."""
    fitting = [
        (name, width, depth, count)
        for name, width, depth in BACKBONES.values()
        for count in (1, 4)
        if channels == 2 * width * count
    ]
    wanted = backbone or (BACKBONES[arch][0] if arch else None)
    for row in fitting:
        if wanted in (None, row[0]):
            return row
    fits = " or ".join(row[0] for row in fitting) or "no DINOv2 backbone"
    raise ValueError(
        f"{path.name} has {channels} input channels, which fits {fits}, not {wanted}; rename or choose again"
    )
