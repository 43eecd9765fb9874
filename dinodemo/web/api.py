"""The API: what each task offers to programs; the same code draws as on the page."""

import inspect

import gradio as gr

from .. import tasks
from .errors import friendly
from .events import ENGINE_QUEUE
from .services import Services


def build_api(services: Services) -> None:
    """Offer the functions under their names; to be called inside of `gr.Blocks`."""
    for task in tasks.TASKS:
        room = task.room("api")
        for function in room.functions(services) if room else ():
            gr.api(
                friendly(function), api_name=function.__name__, api_description=inspect.getdoc(function), **ENGINE_QUEUE
            )
