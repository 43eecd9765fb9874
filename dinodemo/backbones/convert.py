"""Bring your own checkpoint: convert weights of another layout into a model folder, checked before it is kept."""

import errno
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from ..io.files import tensors_written, write_json
from .checkpoints import Source, read_source, sha256_of
from .hub import disk_problem
from .preprocessor import preprocessor_config
from .registry import BACKBONES, describe, weights_root

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")  # no leading dot or dash: hidden folders, options
DINOV3 = "dinov3_vit"
SATELLITE = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))  # mean and deviation of DINOv3's SAT-493M variants
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
_GRIDS = ((4, 4), (2, 3))  # patches of the pictures that a model is tried with


@dataclass(frozen=True)
class Imported:
    """Describe an imported model: its name and folder, what it was, what was chosen where the file left a choice."""

    name: str
    folder: Path
    family: str
    notes: tuple[str, ...]


def import_checkpoint(source: str | Path, name: str | None = None, root: Path | None = None) -> Imported:
    """Convert a checkpoint into a model folder that is then a backbone by its name.

    Args:
        source: a file or folder of Meta's, timm's, lightly-train's or Hugging Face's; see docs/checkpoints.md.
        name: what to call the model; by default the file's or folder's name without its ending.
        root: the folder of model folders; by default that of local weights.

    Returns:
        the name, the folder, the family and the notes, which lie in the folder's source.json too.

    Raises:
        ValueError: when the name is taken or unfit, or the file is not a checkpoint that can be converted whole.
        HubError: when the disk is full or cannot be written.
    """
    source, root = Path(source).expanduser(), root or weights_root()
    name = _free_name(name or _default_name(source), root)
    read = read_source(source)
    family, notes, config, tensors, processor = _convert(read)
    record = {
        "name": name,
        "family": family,
        "notes": notes,
        "source": source.name,
        "source_sha256": read.sums,
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".import-") as scratch:
            staged = Path(scratch) / name
            _write(staged, config, tensors, processor, record)
            tensors.clear()  # a large model need not be held twice while it is tried
            _try_out(name, staged, source)
            _move(staged, root / name)
    except OSError as error:
        raise disk_problem(error, root) from error
    return Imported(name, root / name, family, tuple(notes))


def _default_name(source: Path) -> str:
    path = Path(
        os.path.abspath(source)
    )  # not resolved: in a cache of the hub's, links lead to files named by checksums
    stem = path.name if path.is_dir() else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:64]


def _free_name(name: str, root: Path) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a model's name: expected 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', not "
            "beginning with '.' or '-'; give another one with --name"
        )
    if name in BACKBONES:
        raise ValueError(f"{name} is a backbone of dinodemo's own table; give another name with --name")
    if os.path.lexists(root / name):
        raise _taken(name, root)
    return name


def _taken(name: str, root: Path) -> ValueError:
    return ValueError(f"{root / name} exists already; delete it, or give another name with --name")


def _convert(read: Source) -> tuple[str, list[str], dict, dict, dict]:
    """Return family, notes, configuration, tensors and the preprocessor's configuration."""
    from .layouts import convert  # these bring PyTorch, which nobody needs who only looks names up
    from .nesting import find_vit

    state, notes = find_vit(read.content, read.path, read.config)
    converted = convert(state, read.config, read.path)
    family = _family(set(state), converted.kind, read)
    notes += converted.notes
    processor = preprocessor_config(*_normalisation(read, converted.kind, notes))
    return family.format(converted.words), notes, converted.config, converted.tensors, processor


def _family(keys: set[str], kind: str, read: Source) -> str:
    """Return who wrote a checkpoint, by the names of its parameters; "{}" stands for the architecture."""
    words = f"{read.config.get('architecture', '')} {_called(read)}"
    if kind == DINOV3 and ("lingbot" in words or "lbotv" in words):
        return "LingBot-Vision ({} architecture)"
    if "architecture" in read.config and "dino" not in read.config["architecture"]:
        return f"timm {read.config['architecture']} ({{}} architecture)"
    if "embeddings.cls_token" in keys:
        return "Hugging Face {}"
    own = {"storage_tokens", "register_tokens", "mask_token", "rope_embed.periods"} & keys
    of_timm = "architecture" in read.config or "reg_token" in keys or ("blocks.0.ls1.gamma" in keys and not own)
    return "timm {}" if of_timm or "blocks.0.gamma_1" in keys else "Meta {}"


def _called(read: Source) -> str:
    """Return a file's name with that of its folder, where a variant may be named."""
    return "/".join(Path(os.path.abspath(read.path)).parts[-2:]).lower()


def _normalisation(read: Source, kind: str, notes: list[str]) -> tuple:
    """Choose mean and deviation of the pictures: the settings' own, DINOv3's for satellites, else ImageNet's."""
    from ..io.images import IMAGENET_MEAN, IMAGENET_STD

    timm = read.config.get("pretrained_cfg") or read.config
    declared = (read.processor.get("image_mean"), read.processor.get("image_std"))
    for mean, std in (declared, (timm.get("mean"), timm.get("std")) if isinstance(timm, dict) else (None, None)):
        if _is_triple(mean) and _is_triple(std) and min(std) > 0:
            return mean, std
    if kind == DINOV3 and "sat493m" in _called(read):
        notes.append("pictures are normalised as for the satellite photos of SAT-493M, by the file's name")
        return SATELLITE
    notes.append("pictures are normalised with ImageNet's mean and deviation: the file does not tell")
    return IMAGENET_MEAN, IMAGENET_STD


def _is_triple(values: object) -> TypeGuard[Sequence[float]]:
    return isinstance(values, list | tuple) and len(values) == 3 and all(isinstance(v, int | float) for v in values)


def _write(folder: Path, config: dict, tensors: dict, processor: dict, record: dict) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    with tensors_written(folder / "model.safetensors"):
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", processor)
    sums = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
    write_json(folder / "source.json", record | {"sha256": sums})


def _try_out(name: str, folder: Path, source: Path) -> None:
    """Run the model on a square and an oblong picture, as the app will."""
    import torch

    from .network import VisionTransformer

    row = describe(name, folder)
    model = VisionTransformer(row, folder, torch.device("cpu"), torch.float32)
    for rows, columns in _GRIDS:
        picture = torch.arange(rows * columns * row.patch_size**2 * 3, dtype=torch.int64).mul(37) % 256
        picture = picture.to(torch.uint8).reshape(1, rows * row.patch_size, columns * row.patch_size, 3)
        tokens = model(picture).layers[model.last_layer]
        expected = (1, 1 + row.registers + rows * columns, row.width)
        if tuple(tokens.shape) != expected or not torch.isfinite(tokens).all():
            raise ValueError(
                f"{source} was converted, but its features are not finite or have shape "
                f"{tuple(tokens.shape)} instead of {expected}; it is not kept"
            )


def _move(staged: Path, target: Path) -> None:
    try:
        os.rename(staged, target)
    except OSError as error:
        if error.errno in _TAKEN:  # somebody was faster
            raise _taken(target.name, target.parent) from error
        raise
