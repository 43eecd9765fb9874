"""Retrieval tab: choose an index, ask it with a photo or a part of one, see why a hit was found."""

from dataclasses import dataclass

import gradio as gr
import numpy as np

from ...io.images import Photo
from ...web.clicks import Choice
from ...web.components import (
    DROP_HEIGHT,
    download_button,
    example_gallery,
    option_control,
    photo_input,
    wire_photo,
)
from ...web.errors import friendly
from ...web.events import LIVE, QUIET, runs_network
from ...web.examples import Opening
from ...web.header import Header
from ...web.memory import WITH_KEY
from ...web.painter import painter_value, read_drawing, region_painter
from ...web.services import Services
from . import draw
from .build_tab import build_building
from .comparison_tab import build_comparison
from .draw import COUNT, RERANK, Search
from .hits_tab import label_hits, offer_new_folder, use_hit
from .index_store import IndexStore
from .labels_tab import build_labels
from .map_tab import build_map

OPENING = "coffee_cup.jpg"
COMING = "The index of example photos is being made; open this tab again in a minute, or create one under Build."
EMPTY = "Choose an index, or create one under Build, then drop a photo."


@dataclass(frozen=True)
class Asked:
    """The components of a question, and the person's state."""

    owner: gr.Textbox
    index: gr.Dropdown
    query: gr.State
    painter: gr.HTML
    count: gr.Slider
    labels: gr.Dropdown
    path: gr.Textbox
    rerank: gr.Checkbox

    def all(self) -> list:
        return [self.owner, self.index, self.query, self.painter, self.count, self.labels, self.path, self.rerank]


@dataclass(frozen=True)
class Found:
    """The components of the answer."""

    search: gr.State
    status: gr.Markdown
    gallery: gr.Gallery
    why: gr.Image
    message: gr.Markdown
    moved: gr.State  # changes when the paths of an index have been brought up to date
    labelled: gr.State  # changes when photos of an index have got another label


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the picker of indexes and the four sub-tabs."""
    indexes = IndexStore(services)
    services.openings.add(indexes.make_examples)
    with gr.Row(equal_height=True):
        index = gr.Dropdown(
            [],
            value=None,
            label="Index",
            elem_id="index",
            scale=1,
            info="Your own are kept for two days after their last use.",
        )
        about = gr.Markdown(EMPTY, elem_id="index-about")
    with gr.Tabs():
        with gr.Tab("Search", id="retrieval-search"):
            photo, examples, opening, asked, found = _search_parts(indexes, header, index)
        with gr.Tab("Build", id="retrieval-build"):
            changed = build_building(indexes, header, index, services)
        with gr.Tab("Labels", id="retrieval-labels"):
            build_labels(indexes, header.owner, index)
        with gr.Tab("Map and duplicates", id="retrieval-map"):
            build_map(indexes, header.owner, index)
    _wire_index(indexes, tab, page, asked, about, changed, found.labelled)
    _wire_search(indexes, header.photo, tab, (photo, examples, opening), asked, found)


def _search_parts(indexes: IndexStore, header: Header, index: gr.Dropdown) -> tuple:
    query, search = gr.State(None, time_to_live=4 * 3600), gr.State(None, time_to_live=4 * 3600)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            photo = photo_input("Query", "retrieval-photo", height=DROP_HEIGHT)
            examples = example_gallery("retrieval-examples")
            opening = Opening.of(indexes.services, OPENING)
            painter = region_painter("retrieval-painter")
            with gr.Row():
                count = option_control(COUNT, elem_id="retrieval-count", min_width=140)
                rerank = option_control(RERANK, elem_id="retrieval-rerank", min_width=140)
            with gr.Accordion("Filters", open=False):
                labels = gr.Dropdown([], multiselect=True, label="Only these labels", elem_id="retrieval-labels-filter")
                path = gr.Textbox(label="Only paths that contain", elem_id="retrieval-path", max_lines=1)
        with gr.Column(scale=3, min_width=320):
            status = gr.Markdown(EMPTY, elem_id="retrieval-status")
            gallery = gr.Gallery(
                label="Hits: click one to see why",
                columns=4,
                height="auto",
                buttons=[],
                allow_preview=False,
                format="jpeg",
                object_fit="contain",
                elem_id="retrieval-hits",
                elem_classes="shaped small",
            )
            message = gr.Markdown(elem_id="retrieval-message")
            why = gr.Image(
                label="Why: parts that agree",
                format="jpeg",
                interactive=False,
                visible=False,
                buttons=["fullscreen"],
                elem_id="retrieval-why",
            )
            use_hit(indexes, header, search, gallery)
            with gr.Row():
                download_button("Hits (.csv)", lambda s: draw.hits_csv(_need(s)), [search], "retrieval-csv")
                download_button("Hits (.json)", lambda s: draw.hits_json(_need(s)), [search], "retrieval-json")
            labelled = label_hits(indexes, header.owner, search)
            moved = offer_new_folder(indexes, header.owner, search, gallery)
            build_comparison(indexes, header, search, gallery, [count, labels, path, rerank])
    asked = Asked(header.owner, index, query, painter, count, labels, path, rerank)
    return photo, examples, opening, asked, Found(search, status, gallery, why, message, moved, labelled)


def _wire_index(
    indexes: IndexStore, tab: gr.Tab, page: gr.Blocks, asked: Asked, about: gr.Markdown, changed, labelled
) -> None:
    @friendly
    def offer(owner: str, chosen: str | None):
        indexes.sweep()
        rows = indexes.choices(owner)
        keys = [key for _, key in rows]
        return gr.update(choices=rows, value=chosen if chosen in keys else (keys[0] if keys else None))

    @friendly
    def describe(owner: str, key: str | None):
        if not key:
            coming = indexes.services.openings.on and indexes.examples is None
            return COMING if coming else EMPTY, gr.update(choices=[], value=[])
        found = indexes.open(owner, key, indexes.services.start.name).statistics()
        return draw.statistics(found), gr.update(choices=list(found.labels), value=[])

    page.load(offer, [asked.owner, asked.index], asked.index, js=WITH_KEY, **QUIET)
    tab.select(offer, [asked.owner, asked.index], asked.index, **QUIET)
    for trigger in (asked.index.change, changed.change, labelled.change):
        trigger(describe, [asked.owner, asked.index], [about, asked.labels], **LIVE)


def _wire_search(indexes: IndexStore, current: gr.State, tab: gr.Tab, given: tuple, asked: Asked, found: Found) -> None:
    photo, examples, opening = given
    run = runs_network(found.gallery)

    @friendly
    def on_hit(search: Search | None, owner: str, event: Choice):
        if search is None or event.index >= len(search.hits):
            return gr.skip(), gr.skip()
        picture, message = draw.why(indexes.open(owner, search.key), search, search.hits[event.index])
        return gr.update(value=picture, visible=True), message

    @friendly
    def ask(*values):
        return _ask(indexes, *values)

    shown = [found.search, found.status, found.gallery, found.why, found.message]
    events = wire_photo(
        photo,
        examples,
        lambda given: (given, painter_value(given)),
        inputs=[],
        outputs=[asked.query, asked.painter],
        empty=(None, painter_value(None)),
        current=current,
        tab=tab,
        opening=opening,
        fresh=lambda: True,
    )
    for event in events:
        event.success(ask, asked.all(), shown, **run)
    for trigger in (
        asked.painter.change,
        asked.index.change,
        asked.count.change,
        asked.rerank.change,
        asked.labels.change,
        asked.path.submit,
        found.moved.change,
    ):
        trigger(ask, asked.all(), shown, **run, trigger_mode="always_last")
    found.gallery.select(
        on_hit, [found.search, asked.owner], [found.why, found.message], **{**run, "show_progress_on": [found.why]}
    )


def _ask(indexes: IndexStore, owner, key, query: Photo | None, painted, count, labels, path, rerank) -> tuple:
    """Search with the given settings; returns the search, status, gallery, and an empty "why"."""
    hidden = gr.update(value=None, visible=False)
    if query is None or not key:
        return None, EMPTY, [], hidden, ""
    index = indexes.open(owner, key)
    search = draw.find(index, key, query, box_of(painted, query), count, labels, path, rerank)
    return search, draw.status(search, len(index)), draw.hit_pictures(search.hits), hidden, ""


def box_of(painted: dict | None, photo: Photo) -> tuple[int, int, int, int] | None:
    """Return the box around what was marked on the query, (x0, y0, x1, y1) pixels; None when nothing is."""
    if not (painted or {}).get("mask"):
        return None
    try:
        marked = read_drawing(painted, photo).this
    except ValueError as error:
        if "empty" in str(error):
            return None
        raise
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _need(search: Search | None) -> Search:
    if search is None:
        raise ValueError("there are no hits yet; choose an index and drop a photo first")
    return search
