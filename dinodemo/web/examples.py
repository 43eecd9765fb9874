"""How a tab says that it shows an example, and when it takes one."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..io.files import resource_folder
from .events import QUIET
from .services import Services, StartBackbone

ASSETS = resource_folder("assets")
MARK = "**Example.** Drop a photo of your own to replace it."
TICK = 0.25  # seconds


@dataclass(frozen=True)
class Opening:
    """What a tab of one photo shows before anybody gave one.

    start: of the server, which the tab waits for. photo: path of the example, None for none. mark: says that it is one.
    """

    start: StartBackbone
    photo: Path | None
    mark: gr.Markdown

    @classmethod
    def of(cls, services: Services, name: str) -> "Opening":
        """Make the mark here, for a shipped photo of a name."""
        return cls(services.start, ASSETS / name if services.openings.on else None, example_mark())


def example_mark(text: str = MARK) -> gr.Markdown:
    """Make the line that says that an example is shown; hidden until one is."""
    return gr.Markdown(text, visible=False, elem_classes="example-mark")


def when_opened(tab: gr.Tab, start: StartBackbone) -> Any:
    """Return the event after which a tab that was opened may ask the network, whose start it waits for."""

    async def wait() -> None:
        while not start.ready:
            await asyncio.sleep(TICK)

    return tab.select(wait, None, None, concurrency_limit=None, **QUIET)
