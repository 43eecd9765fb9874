"""Images a second for a folder: read, decode, resize, network. The engine beside plain ways to do the same, in one run.

Each way gets the same photos at the same sizes and gives the tokens of the last layer. Plain transformers is SDPA with
batches of equal shape, photos decoded one after the other; so are ONNX Runtime (the graph of `dinodemo export`) and
the engine's two backends, but that the engine decodes beside the network. The cosine is that of all tokens to plain
transformers in float32. Ways whose package is not installed are left out.
"""

import argparse
import importlib.util
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from _common import ROOT

BACKBONE = "dinov2-small-offline"
BATCH = 8


def batches(paths: list[Path], resolution: int, patch: int) -> Iterator[np.ndarray]:
    """Yield (B, H, W, 3) uint8, neighbours of equal shape together."""
    from dinodemo.io.images import load_image, network_input

    prepared = (network_input(load_image(path), resolution, patch) for path in paths)
    for _, group in itertools.groupby(prepared, key=np.shape):
        while part := list(itertools.islice(group, BATCH)):
            yield np.stack(part)


def normalised(rgbs: np.ndarray) -> torch.Tensor:
    """Return (B, 3, H, W) float32 as the network takes it."""
    from dinodemo.io.images import IMAGENET_MEAN, IMAGENET_STD

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (torch.from_numpy(rgbs).permute(0, 3, 1, 2).float() / 255 - mean) / std


def plain(dtype: torch.dtype) -> Callable:
    """Return transformers with SDPA."""
    from transformers import AutoModel

    from dinodemo.backbones import resolve

    model = AutoModel.from_pretrained(
        resolve(BACKBONE)[1],
        attn_implementation="sdpa",
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    ).eval()

    def run(paths: list[Path], resolution: int) -> list[np.ndarray]:
        with torch.inference_mode():
            tokens = [
                model(pixel_values=normalised(rgbs).to(dtype)).last_hidden_state.float().numpy()
                for rgbs in batches(paths, resolution, 14)
            ]
        return [one for batch in tokens for one in batch]

    return run


def onnx_runtime() -> Callable:
    """Return ONNX Runtime on the graph that `dinodemo export` writes."""
    import onnxruntime

    from dinodemo.backbones.export import export

    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(str(export(BACKBONE, "onnx", Path(folder) / "model.onnx").path))

    def run(paths: list[Path], resolution: int) -> list[np.ndarray]:
        given = ({"pixel_values": normalised(rgbs).numpy()} for rgbs in batches(paths, resolution, 14))
        return [one for inputs in given for one in session.run(["tokens"], inputs)[0]]

    return run


def engine(dtype: str, backend: str) -> Callable:
    """Return the engine with one of its backends."""
    from dinodemo import Engine

    made = Engine(BACKBONE, device="cpu", dtype=dtype, backend=backend)

    def run(paths: list[Path], resolution: int) -> list[np.ndarray]:
        found = made.features_batch(paths, resolution)
        return [np.concatenate([f.cls[None], f.patches.reshape(-1, f.patches.shape[-1])]) for f in found]

    return run


def ways() -> dict[str, Callable[[], Callable]]:
    """Return what can be run here, by name; plain float32 is what others are compared with."""
    from dinodemo.backbones.openvino_network import is_installed

    found: dict[str, Callable[[], Callable]] = {
        "transformers SDPA float32": lambda: plain(torch.float32),
        "transformers SDPA bfloat16": lambda: plain(torch.bfloat16),
        "engine, torch, float32": lambda: engine("float32", "torch"),
        "engine, torch, bfloat16": lambda: engine("bfloat16", "torch"),
    }
    if importlib.util.find_spec("onnxruntime"):
        found["ONNX Runtime float32"] = onnx_runtime
    if is_installed():
        found["engine, OpenVINO, float32"] = lambda: engine("float32", "openvino")
        found["engine, OpenVINO, bfloat16"] = lambda: engine("bfloat16", "openvino")
    return found


def cosine(tokens: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """Return the mean cosine of all tokens."""
    a, b = np.concatenate(tokens), np.concatenate(exact)
    return float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).mean())


def main() -> None:
    from dinodemo.io.files import is_photo

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "assets")
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--resolutions", type=int, nargs="+", default=(224, 518))
    parser.add_argument("--rounds", type=int, default=2, help="the best counts")
    args = parser.parse_args()
    paths = sorted(path for path in args.folder.iterdir() if is_photo(path.name))[: args.photos]
    runs = {name: make() for name, make in ways().items()}
    print(f"{len(paths)} photos of {args.folder.name}, {torch.get_num_threads()} threads")
    for resolution in args.resolutions:
        tokens = {name: run(paths, resolution) for name, run in runs.items()}  # also the warm-up
        best = dict.fromkeys(runs, float("inf"))
        for _, (name, run) in itertools.product(range(args.rounds), runs.items()):
            started = time.perf_counter()
            run(paths, resolution)
            best[name] = min(best[name], time.perf_counter() - started)
        first = next(iter(runs))
        for name, seconds in best.items():
            peer = best[f"transformers SDPA {'bfloat16' if 'bfloat16' in name else 'float32'}"]
            print(
                f"{resolution:>4} px  {name:27} {len(paths) / seconds:6.2f} images/s  {peer / seconds:5.2f}x SDPA of "
                f"its format  cosine {cosine(tokens[name], tokens[first]):.5f}"
            )


if __name__ == "__main__":
    main()
