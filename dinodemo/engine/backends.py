"""What runs the network: PyTorch, or OpenVINO where it is installed and was measured to be faster on this machine."""

import logging
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch
from platformdirs import user_cache_path

from ..backbones import Backbone
from ..backbones.network import VisionTransformer
from ..backbones.openvino_network import PRECISIONS, OpenVinoTransformer, is_installed
from ..io.files import read_json, write_json

BACKENDS = ("auto", "torch", "openvino")
VARIABLE = "DINODEMO_BACKEND"
WORTH = 1.15  # times faster, from where on "auto" takes OpenVINO
TRIAL_PIXELS = 518
log = logging.getLogger(__name__)


def open_network(
    row: Backbone, folder: Path, device: torch.device, dtype: torch.dtype, backend: str = "auto"
) -> VisionTransformer:
    """Load a network for one of the backends.

    Args:
        row: of the backbone.
        folder: of its weights.
        device: that it runs on; OpenVINO takes CPUs alone.
        dtype: its number format.
        backend: "torch", "openvino", or "auto": OpenVINO if it is installed and a trial on this machine, which is
            remembered, finds it at least `WORTH` times faster; $DINODEMO_BACKEND decides in the place of "auto".

    Raises:
        ValueError: for any other backend.
        RuntimeError: when "openvino" cannot run it.
    """
    chosen = os.environ.get(VARIABLE) or backend if backend == "auto" else backend
    if chosen not in BACKENDS:
        where = f"{VARIABLE} of the environment" if chosen != backend else "backend"
        raise ValueError(f"{where} must be one of {', '.join(BACKENDS)}, got {chosen!r}")
    network = VisionTransformer(row, folder, device, dtype)
    if chosen == "openvino":
        return OpenVinoTransformer(network)
    if chosen == "torch" or not is_installed() or device.type != "cpu" or dtype not in PRECISIONS:
        return network
    try:
        return _faster(network)
    except (RuntimeError, ImportError) as error:  # OpenVINO's own errors are RuntimeErrors
        log.warning("%s runs with PyTorch: %s", row.name, error)
        return network


def _faster(network: VisionTransformer) -> VisionTransformer:
    record = trial_file()
    known, key = read_json(record), _key(network)
    ratio = known.get(key)
    if isinstance(ratio, int | float) and ratio < WORTH:
        return network
    other = OpenVinoTransformer(network)
    if not isinstance(ratio, int | float):
        ratio = trial(network, other)
        log.info("%s: OpenVINO is %.2f times as fast as PyTorch here", network.backbone.name, ratio)
        with suppress(OSError):  # a cache that cannot be written only means another trial
            write_json(record, {**known, key: round(ratio, 3)})
    return other if ratio >= WORTH else network


def trial(first: VisionTransformer, second: VisionTransformer) -> float:
    """Return how many times as fast the second network is, by the best of two runs each on one picture."""
    patch = first.backbone.patch_size
    side = max(TRIAL_PIXELS // patch, 1) * patch
    picture = torch.zeros(1, side, side, 3, dtype=torch.uint8)

    def seconds(run: Callable) -> float:
        started = time.perf_counter()
        run(picture)
        return time.perf_counter() - started

    for run in (first, second):
        run(picture)
    times = [[seconds(run) for run in (first, second)] for _ in range(2)]  # in turn: what else runs hits both
    return min(t[0] for t in times) / min(t[1] for t in times)


def trial_file() -> Path:
    """Return where the trials of this machine are remembered."""
    return user_cache_path("dinodemo") / "backends.json"


def _key(network: VisionTransformer) -> str:
    row = network.backbone
    shape = f"{row.width}x{row.depth}/{row.patch_size}"
    versions = f"torch {torch.__version__}, openvino {version('openvino')}"
    return f"{platform.node()}, {torch.get_num_threads()} threads, {versions}, {shape}, {network.dtype}"
