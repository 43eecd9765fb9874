"""Doors of Gradio that this app does not need: they stay shut, for every visitor."""

import os
import re
from pathlib import Path

import gradio as gr
from gradio import processing_utils
from starlette.responses import PlainTextResponse

from ..backbones import BACKBONES, canonical_name, imported_names, is_complete, is_hub_id
from .settings import Settings

_ELSEWHERE = re.compile(r"/(file[=/]\s*[a-z][a-z0-9+.-]*:|proxy=)", re.IGNORECASE)


class Guard:
    """ASGI middleware: the server fetches nothing from other hosts for visitors, and browsers guess no file's kind."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        """Answer 403, or let the app answer."""
        if scope["type"] == "http" and _ELSEWHERE.search(scope["path"]):
            refusal = PlainTextResponse("this server fetches nothing from other hosts; upload the file", 403)
            return await refusal(scope, receive, send)

        async def send_on(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        return await self._app(scope, receive, send_on if scope["type"] == "http" else send)


def fetch_nothing() -> None:
    """Make Gradio refuse addresses where an uploaded file is expected.

    Gradio would download them, however large, for anybody who sends one to an event; it has no setting against it.
    """

    async def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("This server fetches nothing from other hosts; upload the file.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse


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
    if not os.path.isabs(name) or "\0" in name:
        return False
    folder = Path(name).resolve()
    return folder.is_relative_to(settings.runs_folder().resolve()) and is_complete(folder)
