"""A backbone for other programs: a Hugging Face folder, one safetensors file, or an ONNX graph that was tried."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..io.files import replace_folder, tensors_written, whole_file, write_json
from .find import resolve
from .hub import disk_problem
from .identity import Identity, identify
from .registry import Backbone

FORMATS = ("hf", "safetensors", "onnx")
SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx"}
COPIED = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: the folder, or the file.
        identity: of the network that was exported.
        differences: of an ONNX graph, the largest absolute difference to PyTorch by output, over all sizes tried.
    """

    path: Path
    identity: Identity
    differences: Mapping[str, float]


def export(backbone: str | None, kind: str, out: str | Path | None = None, overwrite: bool = False) -> Exported:
    """Write a backbone in another form.

    Args:
        backbone: a name, folder, finished run or hub id; None is the default.
        kind: "hf" (a folder that `transformers.AutoModel.from_pretrained` opens), "safetensors" (one file, also of
            weights in several; the configuration in its metadata) or "onnx" (see `onnx_graph.write_graph`).
        out: the folder, or the file; of a file also the folder that it goes to. By default the backbone's name.
        overwrite: replace what is there.

    Returns:
        What was written, and where.

    Raises:
        ValueError: for an unknown kind or backbone, and where something is in the way.
        RuntimeError: when the weights cannot be had, the disk cannot be written, or an ONNX graph does not compute
            what the network computes.
    """
    if kind not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {kind!r}")
    row, folder = resolve(backbone)
    identity = identify(row.name, folder)
    path = target(identity.name, kind, out)
    if path.exists() and not overwrite:
        raise ValueError(f"{path} is there already; name another --out, or add --overwrite")
    if path.is_dir() != (kind == "hf") and path.exists():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'a file'}; name another --out")
    if path.resolve() == folder.resolve():
        raise ValueError(f"{path} is the folder that {row.name} itself lies in; name another --out")
    try:
        return Exported(path, identity, _WRITERS[kind](row, folder, identity, path) or {})
    except OSError as error:
        raise disk_problem(error, path.parent) from error


def target(name: str, kind: str, out: str | Path | None) -> Path:
    """Return where an export of a backbone goes."""
    stem = name.replace("/", "-")
    path = Path(out).expanduser() if out is not None else Path(stem + SUFFIXES.get(kind, ""))
    into_folder = kind in SUFFIXES and (path.is_dir() or path.suffix.lower() != SUFFIXES[kind])
    return path / f"{stem}{SUFFIXES[kind]}" if into_folder else path


def description(row: Backbone, folder: Path, identity: Identity) -> dict[str, str]:
    """Return what a file's metadata say: identity, configuration, normalisation, licence."""
    from .network import read_normalisation

    mean, std = read_normalisation(folder)
    return {
        "identity": identity.to_json(),
        "config": (folder / "config.json").read_text(encoding="utf-8"),
        "image_mean": json.dumps(mean),
        "image_std": json.dumps(std),
        "patch_size": str(row.patch_size),
        "registers": str(row.registers),
        "licence": row.licence,
        "made_by": "dinodemo export",
    }


def _write_folder(row: Backbone, folder: Path, identity: Identity, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as scratch:
        staged = Path(scratch) / "model"
        staged.mkdir()
        for file in sorted({file for pattern in COPIED for file in folder.glob(pattern)}):
            shutil.copyfile(file, staged / file.name)  # what links lead to, not the links
        card = folder / "README.md"  # of a run, it tells how the network was trained
        text = card.read_text(encoding="utf-8") if card.is_file() else _card(row, identity)
        (staged / "README.md").write_text(text, encoding="utf-8")
        write_json(staged / "source.json", {"name": identity.name, **asdict(identity), "notice": row.notice})
        replace_folder(staged, path)


def _card(row: Backbone, identity: Identity) -> str:
    front = f"---\nlibrary_name: transformers\npipeline_tag: image-feature-extraction\n---\n\n# {identity.name}\n\n"
    facts = f"Weights sha256 `{identity.sha256}`, licence: {row.licence}. {row.notice}".strip()
    call = 'model = AutoModel.from_pretrained("path/to/this/folder")'
    use = f"```python\nfrom transformers import AutoModel\n\n{call}\n```\n"
    return f"{front}Written by `dinodemo export --format hf`. {facts}\n\n{use}"


def _write_tensors(row: Backbone, folder: Path, identity: Identity, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    tensors: dict[str, Any] = {}
    single = folder / "model.safetensors"
    for file in [single] if single.is_file() else sorted(folder.glob("*.safetensors")):
        try:
            tensors |= load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged ({error}); fetch it again") from error
    with whole_file(path) as part, tensors_written(path):
        save_file(tensors, part, metadata={"format": "pt", **description(row, folder, identity)})


def _write_onnx(row: Backbone, folder: Path, identity: Identity, path: Path) -> dict[str, float]:
    from .onnx_graph import write_graph

    return write_graph(row, folder, path, description(row, folder, identity))


_WRITERS = {"hf": _write_folder, "safetensors": _write_tensors, "onnx": _write_onnx}
