"""Read a stranger's weights: which file of a folder, which kind of file, and a plain sentence for all that is none."""

import argparse
import hashlib
import json
import pickle
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

WEIGHTS = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
RUNS = (
    "exported_models/exported_best.pt",
    "exported_models/exported_last.pt",  # of lightly-train
    "export/model.safetensors",
)
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
NO_WEIGHTS = ("optimizer.pt", "scheduler.pt", "scaler.pt", "training_args.bin", "rng_state.pth")  # no weights in them
AGAIN = "copy or download it again"
ACCEPTED = "a PyTorch file (.pth, .pt, .bin, .ckpt) or safetensors"

_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run git lfs pull"),
    (b"GGUF", "a GGUF file (llama.cpp, ggml)"),
    (b"\x89HDF", "an HDF5 file (Keras or TensorFlow .h5)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive: unpack it, then import the checkpoint in it"),
)
_ENDINGS = {
    ".onnx": "an ONNX file",
    ".h5": "a Keras or TensorFlow .h5 file",
    ".keras": "a Keras file",
    ".npz": "NumPy arrays",
    ".pb": "a TensorFlow graph",
    ".index": "a part of a TensorFlow checkpoint",
    ".msgpack": "a Flax (JAX) file",
    ".gguf": "a GGUF file (llama.cpp, ggml)",
    ".tflite": "a TensorFlow Lite file",
    ".distcp": "a shard of a distributed PyTorch checkpoint",
}
_PAGES = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml")
_ONNX = re.compile(rb"\x08[\x01-\x20]\x12.(pytorch|tf2onnx|onnx|keras|skl)|\x08[\x01-\x20]:")  # IR version, producer


@dataclass(frozen=True)
class Source:
    """What was read: the files' checksums, their content as it is nested, and the settings beside them."""

    path: Path
    sums: dict[str, str]  # file -> sha256
    content: dict
    config: dict = field(default_factory=dict)
    processor: dict = field(default_factory=dict)


def read_source(path: Path) -> Source:
    """Read a checkpoint file, or the one in a folder.

    Args:
        path: a file or a folder.

    Returns:
        its tensors as the file nests them, with config.json and preprocessor_config.json where they lie beside.

    Raises:
        ValueError: says what the file or folder is instead, and what to do.
    """
    try:
        return _read_source(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); check its name and rights") from error


def _read_source(path: Path) -> Source:
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    chosen = _weights_of(path) if path.is_dir() else path
    files = _shards(chosen) if chosen.name.endswith(".index.json") else (chosen,)
    content: dict = {}
    for file in files:
        part = _load(file)
        if not isinstance(part, dict):
            raise ValueError(
                f"{file} holds a {type(part).__name__}, not a dictionary of weights; save model.state_dict()"
            )
        content |= part
    described = path.is_dir() or chosen.name in WEIGHTS  # config.json beside any other file may belong to another one
    folder = chosen.parent
    return Source(
        path,
        {file.name: sha256_of(file) for file in files},
        content,
        *(_settings(folder / f"{n}config.json", described) for n in ("", "preprocessor_")),
    )


def sha256_of(path: Path) -> str:
    """Return a file's checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settings(path: Path, wanted: bool) -> dict:
    if not wanted or not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); mend it or take it away") from error


def _weights_of(folder: Path) -> Path:
    """Choose the file with the weights in a folder."""
    for name in (*WEIGHTS, *RUNS):
        if (folder / name).is_file():
            return folder / name
    files = sorted(f for f in folder.iterdir() if f.is_file())
    found = [f for f in files if f.suffix.lower() in SUFFIXES and f.name not in NO_WEIGHTS]
    if len(found) > 1:
        names = ", ".join(f.name for f in found[:5])
        raise ValueError(f"{folder} holds {len(found)} checkpoints ({names}); name the file that you want")
    if found:
        return found[0]
    for file in files:
        if what := _ENDINGS.get(file.suffix.lower()):
            raise ValueError(
                f"{folder} holds no weights that dinodemo reads: {file.name} is {what}; expected {ACCEPTED}"
            )
    raise ValueError(f"{folder} holds no weights; expected {ACCEPTED} in it")


def _shards(index: Path) -> tuple[Path, ...]:
    """Return the files that an index names."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = tuple(index.parent / name for name in names if Path(name).name == name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged; {AGAIN}") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing or len(files) < len(names) or not names:
        raise ValueError(
            f"{index} names {len(names)} files, {len(missing)} are not beside it (e.g. {missing[:1]}); {AGAIN}"
        )
    return files


def _load(path: Path) -> object:
    with path.open("rb") as file:
        head = file.read(1024)
    if what := _other_kind(path, head):
        raise ValueError(f"{path} is {what}; dinodemo reads {ACCEPTED}")
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return _load_pickle(path, mmap=True)
    if head[8:9] == b"{" or path.suffix.lower() == ".safetensors":
        return _load_safetensors(path)
    if head.startswith(b"\x80"):
        return _load_pickle(path, mmap=False)
    if path.suffix.lower() in SUFFIXES:
        raise ValueError(f"{path} is damaged, or no checkpoint: it does not begin as one; {AGAIN}")
    raise ValueError(f"{path} is no checkpoint; expected {ACCEPTED}")


def _other_kind(path: Path, head: bytes) -> str | None:
    """Return what a file is, by its first bytes and its name, None if it may be a checkpoint."""
    if not head:
        return f"empty; {AGAIN}"
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    if head.lstrip()[:9].lower().startswith(_PAGES):
        return (
            "a web page, not a checkpoint (an error or sign-in page that was saved under this name); download it again"
        )
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it, then import the checkpoint in it"
    if other := _ENDINGS.get(path.suffix.lower()):
        return other
    if _ONNX.match(head):
        return "an ONNX file"
    if len(head) > 8 and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f"a text file that begins with {head[:40].decode()!r}; {AGAIN}"
    return None


def _check_zip(path: Path) -> None:
    """Refuse archives that are no checkpoint: PyTorch's are zips with a data.pkl."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is cut off or damaged ({error}); {AGAIN}") from error
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise ValueError(
            f"{path} is a TorchScript archive (code with its weights), which is not run; "
            "save model.state_dict() of the original model"
        )
    if "data.pkl" not in inner:
        raise ValueError(
            f"{path} is a zip archive that is no checkpoint (in it: {', '.join(names[:3]) or 'nothing'}); "
            "unpack it and import the checkpoint, if it holds one"
        )


def _load_pickle(path: Path, mmap: bool) -> object:
    """Read a pickle of tensors and plain values; anything that would run code is refused by PyTorch."""
    import torch

    try:
        # Meta's training of DINO keeps its command line in the file; a Namespace only holds values
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        needed = re.search(r"GLOBAL ([\w.]+)", str(error))
        if needed:
            raise ValueError(
                f"{path} is a pickle that needs the code {needed[1]} to be read, and dinodemo runs no code out of "
                "files; load it where that code is and save torch.save(model.state_dict(), ...)"
            ) from error
        raise ValueError(f"{path} is damaged, or a pickle that is no PyTorch checkpoint; {AGAIN}") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a cut-off or forged file can make the reader raise anything
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"{path} is cut off or damaged ({reason}); {AGAIN}") from error


def _load_safetensors(path: Path) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is cut off or damaged safetensors ({error}); {AGAIN}") from error
