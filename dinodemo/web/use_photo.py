"""A menu beside a result that opens another tab with the result's photo."""

import time
from collections.abc import Callable, Sequence

import gradio as gr

from ..io.images import Photo
from .errors import friendly
from .events import QUIET
from .header import Header

TITLES = {"attention": "Attention", "segmentation": "Segmentation", "depth": "Depth", "retrieval": "Retrieval"}


def use_photo_menu(
    header: Header, tabs: Sequence[str], photo_of: Callable[..., Photo], inputs: Sequence, elem_id: str, **options
) -> gr.Dropdown:
    """Return a menu of the tabs that can take a photo; choosing one opens it with the photo.

    Args:
        header: Of the page.
        tabs: Names among those of `TITLES`. Tabs of several photos are not among them: they keep what a person gave.
        photo_of: photo_of(*inputs) returns the photo.
        inputs: Components whose values `photo_of` is given.
        elem_id: Of the menu.
        **options: Of Gradio's component.
    """
    choices = [(TITLES[name], name) for name in tabs]
    menu = gr.Dropdown(choices, value=None, label="Use this photo in", elem_id=elem_id, min_width=160, **options)

    @friendly
    def hand_over(name: str, *values):
        photo = photo_of(*values)
        # Segmentation keeps what was given there, unless it is told to take another photo
        painted = (photo, None, time.time_ns()) if name == "segmentation" else gr.skip()
        return photo, painted, gr.Tabs(selected=name), None

    menu.input(hand_over, [menu, *inputs], [header.photo, header.painted, header.tabs, menu], **QUIET)
    return menu
