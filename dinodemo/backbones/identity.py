"""Which network is it: a checksum of its weights beside its name, recorded with everything that was made with it."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ..io.files import read_json

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SETTINGS = ("config.json", "preprocessor_config.json", "model.safetensors.index.json")  # they change results, too
Stamp = tuple[tuple[str, int, int, int], ...]  # of each file: name, bytes, time of its last change in ns, inode


@dataclass(frozen=True)
class Identity:
    """Name a network and the weights that it runs with.

    Args:
        name: of the backbone; of folders their own name, without those above it.
        sha256: of model.safetensors in hexadecimal, of several files that of their "sha256  name" lines in the order
            of their names, as sha256sum prints them. Empty where it is not known.
        revision: the hub's commit, or that of the patch of the offline default.
        run: the name of the training run that made the weights.
    """

    name: str
    sha256: str
    revision: str = ""
    run: str = ""

    @property
    def label(self) -> str:
        """Return name and checksum in a few words; the checksum is cut to twelve digits."""
        weights = f"weights {self.sha256[:12]}" if self.sha256 else "weights not known"
        parts = [weights, self.revision and f"revision {self.revision[:12]}", self.run and f"run {self.run}"]
        return f"{self.name} ({', '.join(part for part in parts if part)})"

    def to_json(self) -> str:
        """Return it as a line of JSON, for the metadata of files."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, content: object) -> "Identity | None":
        """Return what `to_json` wrote, or the same as a dictionary; None for anything else, such as a missing one."""
        if isinstance(content, str):
            try:
                content = json.loads(content)
            except (ValueError, RecursionError):
                return None
        if not isinstance(content, dict) or not {"name", "sha256"} <= set(content):
            return None
        texts = [content.get(key, "") for key in ("name", "sha256", "revision", "run")]
        if not all(isinstance(text, str) for text in texts) or not _SHA256.fullmatch(texts[1]):
            return None
        return cls(*texts)


@dataclass(frozen=True)
class Comparison:
    """Return whether a saved object was made with the network that runs.

    state: "same" weights, "other" weights, or "unknown" where one of the two does not say. message: one sentence on
    it, without a full stop; empty for "same".
    """

    state: Literal["same", "other", "unknown"]
    message: str = ""


def compare(stored: Identity | None, running: Identity | None, what: str, remedy: str = "make it again") -> Comparison:
    """Compare the network that made a saved object with the one that runs.

    Args:
        stored: what the saved object records; None where it records nothing, as in version 0.1.
        running: of the engine or the features at hand.
        what: the saved object, as the sentence begins: "this basis".
        remedy: what to do where they differ or may differ.
    """
    if stored is None or running is None or not (stored.sha256 and running.sha256):
        who = running.label if running else "the network that runs"
        why = "records no checksum of the weights that made it (version 0.1 did not)"
        if stored is not None and stored.sha256:
            why = f"was made with {stored.label}"
        return Comparison("unknown", f"{what} {why}, so it may not fit {who}; {remedy} to be sure")
    if stored.sha256 == running.sha256:
        return Comparison("same")
    same_name = ": the same name, but other weights" if stored.name == running.name else ""
    return Comparison("other", f"{what} was made with {stored.label}, now {running.label} runs{same_name}; {remedy}")


def check(stored: Identity | None, running: Identity | None, what: str, remedy: str = "make it again") -> str:
    """Refuse a saved object that other weights made.

    Args:
        stored: Of the object, as for `compare`.
        running: Of the network that runs, as for `compare`.
        what: The object's name in messages.
        remedy: What to do, for messages.

    Returns:
        A warning where that cannot be known, empty where the weights are the same.

    Raises:
        ValueError: When the weights differ.
    """
    found = compare(stored, running, what, remedy)
    if found.state == "other":
        raise ValueError(found.message)
    return found.message


def identify(name: str, folder: Path, stamp: Stamp | None = None) -> Identity:
    """Return the identity of a model folder. Each file is read once a process, as long as it does not change.

    Args:
        name: that the backbone goes by.
        folder: holds config.json and the weights.
        stamp: of the files that were loaded; when they have changed since, the checksum is not known.
    """
    run = _run_of(folder)
    of_hub = folder.parent.name == "snapshots"
    revision = folder.name if of_hub else str(read_json(folder / "source.json").get("revision", ""))
    public = run or (os.path.basename(os.path.normpath(name)) if os.path.isdir(name) else name)
    sha256 = weights_sha256(folder) if stamp is None or stamp == stamp_of(folder) else ""
    return Identity(public, sha256, revision, run)


def weights_sha256(folder: Path) -> str:
    """Return the checksum of a model folder's weights, as `Identity` has it.

    Raises:
        OSError: when they cannot be read.
    """
    sums = {file.name: _sum_of(file) for file in _weights(folder)}
    if len(sums) == 1:
        return next(iter(sums.values()))
    return hashlib.sha256("".join(f"{value}  {name}\n" for name, value in sums.items()).encode()).hexdigest()


def stamp_of(folder: Path) -> Stamp | None:
    """Return what tells quickly whether a model folder has changed; None where its weights are not there."""
    settings = [folder / name for name in _SETTINGS]
    try:
        return tuple(_stamp(file) for file in [*_weights(folder), *filter(Path.is_file, settings)])
    except OSError:
        return None


def _weights(folder: Path) -> list[Path]:
    single = folder / "model.safetensors"  # transformers, too, takes it before the shards
    shards = {} if single.is_file() else read_json(folder / "model.safetensors.index.json").get("weight_map")
    return (
        [folder / name for name in sorted(set(map(str, shards.values())))]
        if isinstance(shards, dict) and shards
        else [single]
    )


def _stamp(file: Path) -> tuple[str, int, int, int]:
    found = file.stat()
    return file.name, found.st_size, found.st_mtime_ns, found.st_ino


def _sum_of(file: Path) -> str:
    blob = file.resolve()
    if file.is_symlink() and blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
        return blob.name  # the Hugging Face cache names large files by their checksum, checked when they came
    return _read_sum(str(blob), _stamp(blob))


@lru_cache(maxsize=256)
def _read_sum(path: str, _stamp: tuple) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _run_of(folder: Path) -> str:
    run = folder.absolute().parent
    return run.name if folder.name == "export" and (run / "status.json").is_file() else ""
