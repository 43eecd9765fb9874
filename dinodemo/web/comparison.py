"""Every tab draws its result with another backbone too, next to the first, to compare."""

from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr

from .errors import friendly
from .events import ENGINE_QUEUE
from .header import Header


def comparison_image(elem_id: str, height: int | None = None) -> gr.Image:
    """Return the picture next to a tab's own, hidden while no backbone is compared with.

    Args:
        elem_id: Of the picture.
        height: px.
    """
    return gr.Image(
        format="jpeg",
        interactive=False,
        visible=False,
        buttons=["fullscreen"],
        height=height,
        elem_id=elem_id,
        elem_classes="" if height else "main-picture",
        scale=2,
    )


def wire_comparison(
    header: Header,
    first: gr.Image | gr.Gallery,
    comparison: gr.Image | gr.Gallery,
    make: Callable,
    inputs: Sequence,
    again: Sequence[Callable] = (),
) -> None:
    """Fill `comparison` whenever `first` or the backbone to compare with changes.

    Args:
        header: Of the page.
        first: The tab's own result.
        comparison: Of `comparison_image`.
        make: make(backbone, *inputs) returns what `comparison` shows, or None while there is nothing to show.
        inputs: Components whose values `make` is given.
        again: Further event listeners after which it is filled: `first` may be redrawn in the browser.
    """

    @friendly
    def draw(backbone: str | None, *values):
        shown = make(backbone, *values) if backbone else None
        label = f"The same with {Path(backbone).name}" if backbone else ""
        return gr.update(value=shown, visible=bool(shown is not None and len(shown)), label=label)

    gr.on(
        [first.change, header.comparison.change, *again],
        draw,
        [header.comparison, *inputs],
        comparison,
        **ENGINE_QUEUE,
        show_progress="minimal",
        trigger_mode="always_last",
        api_visibility="private",
    )
