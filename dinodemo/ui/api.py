"""The API: one function for each tab's main action, to be called by programs; the same code draws as on the pages."""

import inspect

import gradio as gr

from .api_pictures import PictureApi
from .api_search import SearchApi
from .depth_probes import ProbeShelf
from .errors import friendly
from .index_shelf import IndexShelf
from .services import ENGINE_QUEUE, Services


def build_api(services: Services) -> None:
    """Offer the functions under their names; to be called inside of `gr.Blocks`."""
    pictures = PictureApi(services, ProbeShelf(services))
    search = SearchApi(services, IndexShelf(services))
    for function in (
        pictures.attention, pictures.pca, pictures.depth, search.segment, search.retrieve, search.compare,
    ):  # fmt: skip
        gr.api(friendly(function), api_name=function.__name__, api_description=inspect.getdoc(function), **ENGINE_QUEUE)
