"""The tab: components, and small functions that wire them."""

import gradio as gr

from dinodemo.io.images import Photo
from dinodemo.web.components import photo_input
from dinodemo.web.errors import friendly
from dinodemo.web.events import runs_network
from dinodemo.web.header import Header
from dinodemo.web.services import Services

from . import draw


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the tab's components and wire them."""
    with gr.Row():
        photo = photo_input("Photo", "typical-photo")
        picture = gr.Image(label="Typical patches", interactive=False, elem_id="typical-picture")
    smooth = gr.Checkbox(draw.SMOOTH.default, label=draw.SMOOTH.label)

    @friendly
    def on_photo(given: Photo | None, backbone: str, resolution: float, smooth: bool):
        if given is None:
            return None
        return draw.draw(given, services.run(given, backbone, int(resolution)).features, smooth)

    inputs = [photo, header.backbone, header.resolution, smooth]
    gr.on([photo.change, smooth.change], on_photo, inputs, picture, **runs_network(picture))
