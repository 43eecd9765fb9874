"""Backbones that are not on this machine yet: fetched beside the engine's queue, watched, cancelled.

The handlers are asynchronous, so that a hundred visitors who wait for one download take no thread.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import gradio as gr

from ..backbones import canonical_name, is_complete, needs_download
from .errors import as_message
from .services import Services

TICK = 0.5  # seconds between two lines


def fetch_first(services: Services) -> Callable:
    """Make the handler that brings a backbone here: yields (line, cancel button, the name to choose)."""

    async def fetch(name: str | None) -> AsyncIterator:
        hidden, shown = gr.update(visible=False), gr.update(visible=True)
        try:
            while not services.start.ready and name == services.settings.backbone:  # the server's own first start
                yield services.start.progress(), hidden, gr.skip()
                await asyncio.sleep(TICK)
            chosen = await asyncio.to_thread(_known_name, services, str(name or "").strip())
            missing = await asyncio.to_thread(needs_download, chosen) if chosen else False
            if missing and services.pool.downloads:
                with services.pool.downloads.waiting(chosen) as job:
                    while not job.ended:
                        yield f"Downloading {job.progress.sentence(job.name)}", shown, gr.skip()
                        await asyncio.sleep(TICK)
                    job.wait()
            yield "", hidden, gr.skip() if chosen == name else chosen
        except Exception as error:
            raise as_message(error) from error

    return fetch


def leave(services: Services) -> Callable:
    """Make the handler of the cancel button: downloads that nobody else waits for are stopped."""

    def cancel(*names: str | None) -> None:
        for name in filter(None, names):
            if services.pool.downloads:
                services.pool.downloads.leave(canonical_name(name))

    return cancel


def _known_name(services: Services, text: str) -> str:
    """Return the name of what was typed; a checkpoint in another layout is converted first, where that is allowed."""
    if not text:
        return ""
    services.pool.check(text)
    name = canonical_name(text)
    if services.settings.local and _is_foreign(name):
        from ..backbones.convert import import_checkpoint

        return import_checkpoint(name).name
    return name


def _is_foreign(name: str) -> bool:
    """Return whether a path names a file, or a folder that is neither a model nor a run."""
    if not os.path.exists(name):
        return False
    folder = Path(name)
    return not (folder.is_dir() and (is_complete(folder) or is_complete(folder / "export")))
