"""What visitors may make the server open: no addresses of other hosts, and the backbones that their kind may have."""

import os
from pathlib import Path

import gradio as gr
from gradio import processing_utils
from gradio.exceptions import InvalidPathError

from ..backbones import BACKBONES, canonical_name, imported_names, is_complete, is_hub_id
from ..jobs.records import RUN_ID
from .settings import Settings


def fetch_nothing() -> None:
    """Make Gradio refuse addresses where an uploaded file is expected.

    Gradio would download them, however large, for anybody who sends one to an event; it has no setting against it.
    """

    async def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("This server fetches nothing from other hosts; upload the file.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse


def name_foreign_files() -> None:
    """Make Gradio say why it does not take a file: by itself it refuses without a word what was not uploaded here."""
    check = processing_utils._check_allowed

    def checked(path: str | Path, check_in_upload_folder: bool) -> None:
        try:
            check(path, check_in_upload_folder)
        except (InvalidPathError, ValueError, OSError) as error:  # a name that no file system takes, too
            raise gr.Error("This file was not uploaded here; upload it again.", print_exception=False) from error

    processing_utils._check_allowed = checked


def check_backbone(settings: Settings, name: str) -> None:
    """Raise ValueError for a backbone that may not be loaded because a visitor asks for it.

    A visitor may name a row of the table, the server's own default, and the result of a training, whose folder nobody
    can guess. Beyond that: on a public server nothing, on others hub ids, on a server for this machine alone folders.
    """
    if not isinstance(name, str):
        raise ValueError("choose a backbone from the list")
    known = canonical_name(name) in BACKBONES or name in imported_names()
    if known or name == settings.backbone or _is_result(settings, name):
        return
    if settings.public:
        raise ValueError("this server opens the backbones of its list only; choose one from it")
    if not settings.local and (os.path.exists(name) or not is_hub_id(name)):
        raise ValueError(
            f"no backbone or hub id called {name!r}; choose one from the list, or give the id of a model on "
            "huggingface.co such as org/model"
        )


def _is_result(settings: Settings, name: str) -> bool:
    """Return whether a name is the folder of a training's result; what visitors uploaded lies elsewhere."""
    if not os.path.isabs(name) or "\0" in name:
        return False
    folder, root = Path(name).resolve(), settings.runs_folder().resolve()
    if not folder.is_relative_to(root):
        return False
    parts = folder.relative_to(root).parts  # person, run, and what is in it
    return len(parts) > 2 and RUN_ID.fullmatch(parts[1]) is not None and is_complete(folder)
