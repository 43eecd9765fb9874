"""The live lens as a component of the page; `web/lens/` holds its browser side, which also runs without Gradio."""

from collections.abc import Sequence

import gradio as gr
import numpy as np

from ..engine.features import Features
from ..io.images import Photo
from ..tasks.lens.packing import lens_value, pack
from ..tasks.lens.standalone import browser_side

STATE = """(_, ...rest) => {
  const holder = [...document.querySelectorAll('#%s, #%s *')].find((one) => one.lens);
  return [holder ? holder.lens.state() : null, ...rest];
}"""


def lens_view(elem_id: str) -> gr.HTML:
    """Return an empty lens. Its values are made by `lens_of`."""
    side = browser_side()
    return gr.HTML(
        value=lens_of(()),
        elem_id=elem_id,
        html_template=side.html,
        css_template=side.css,
        js_on_load=side.core + side.glue,
        label="Lens",
    )


def lens_of(photos: Sequence[Photo], features: Sequence[Features] = (), basis: np.ndarray | None = None) -> dict:
    """Return the value that shows photos in the lens; raises ValueError for more tokens than a browser can take.

    Args:
        photos: none empties the lens.
        features: theirs, from one backbone.
        basis: directions of position that are left out, see `tokens.positional_basis_of`.
    """
    return lens_value(photos, pack(features, basis) if photos else None)


def with_state(elem_id: str) -> str:
    """Return the js of an event with two or more inputs whose first becomes the state of a lens."""
    return STATE % (elem_id, elem_id)
