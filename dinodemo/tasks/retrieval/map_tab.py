"""Retrieval's sub-tab Map and duplicates: an index on a plane, in clusters, and what is in it twice."""

from dataclasses import dataclass

import gradio as gr
import numpy as np

from ...web.clicks import Spot
from ...web.components import download_button, option_control
from ...web.errors import friendly
from ...web.events import QUIET, runs_network
from ..base import Option
from . import draw
from .analysis import NEAR_DUPLICATE
from .index_store import IndexStore

SHOWN_OF_A_GROUP, MOST_GROUPS = 6, 30
DUPLICATE = Option(
    "threshold", NEAR_DUPLICATE, "Alike enough to be a duplicate (cosine)", "of two vectors", 0.5, 1, 0.005
)
CLUSTERS = Option("clusters", 8, "Clusters", "groups of photos", 2, 50, 1)


@dataclass(frozen=True, eq=False)
class Drawn:
    """The map that is shown."""

    key: str | None
    entries: list
    positions: np.ndarray  # (n, 2) from 0 to 1


@dataclass(frozen=True)
class Parts:
    """The sub-tab's components."""

    start: gr.Button
    picture: gr.Image
    message: gr.Markdown
    photo: gr.Image
    threshold: gr.Slider
    twice: gr.Button
    number: gr.Slider
    cluster: gr.Button
    summary: gr.Markdown
    gallery: gr.Gallery


def build_map(indexes: IndexStore, owner: gr.Textbox, index: gr.Dropdown) -> None:
    """Build the sub-tab."""
    groups = gr.State(None, time_to_live=4 * 3600)
    parts = _parts(groups)
    _wire_map(indexes, owner, index, parts)
    _wire_groups(indexes, owner, index, parts, groups)


def _parts(groups: gr.State) -> Parts:
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            start = gr.Button("Draw the map", variant="primary", elem_id="map-start")
            picture = gr.Image(
                label="Alike photos lie together (two principal components): click one",
                format="jpeg",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="map-picture",
            )
        with gr.Column(scale=2, min_width=320):
            message = gr.Markdown(elem_id="map-message")
            photo = gr.Image(label="Photo", format="jpeg", interactive=False, height=360, elem_id="map-photo")
    with gr.Row():
        threshold = option_control(DUPLICATE, elem_id="map-threshold", min_width=200)
        twice = gr.Button("Find near-duplicates", elem_id="map-twice", min_width=160)
        number = option_control(CLUSTERS, elem_id="map-number", min_width=200)
        cluster = gr.Button("Make clusters", elem_id="map-cluster", min_width=160)
    summary = gr.Markdown(elem_id="map-summary")
    gallery = gr.Gallery(
        label="Groups", columns=6, height="auto", buttons=[], format="jpeg", object_fit="contain", elem_id="map-groups"
    )
    download_button("Groups (.csv)", _groups_file, [groups], "map-csv")
    return Parts(start, picture, message, photo, threshold, twice, number, cluster, summary, gallery)


def _wire_map(indexes: IndexStore, owner, index, parts: Parts) -> None:
    drawn = gr.State(None, time_to_live=4 * 3600)

    @friendly
    def on_map(owner: str, key: str | None):
        opened = indexes.open(owner, key)
        entries, positions = opened.map2d()
        chosen = np.linspace(0, len(entries) - 1, min(len(entries), draw.MOST_ON_MAP)).astype(int)
        entries, positions = [entries[i] for i in chosen], draw.scaled(positions[chosen])
        thumbs = opened.thumbnails([entry.sha256 for entry in entries])
        shown = draw.map_picture(positions, [draw.thumbnail(thumbs[entry.sha256]) for entry in entries])
        return Drawn(key, entries, positions), shown, f"{len(entries)} of {len(opened)} photos are drawn."

    @friendly
    def on_click(current: Drawn | None, owner: str, event: Spot):
        if current is None:
            return gr.skip(), gr.skip()
        entry = current.entries[draw.nearest(current.positions, *event.point)]
        label = f" · {entry.label}" if entry.label else ""
        return f"**{draw.short(entry.path, 4)}**{label}", indexes.open(owner, current.key).photo(entry.sha256).rgb

    shown = [drawn, parts.picture, parts.message]
    parts.start.click(on_map, [owner, index], shown, **runs_network(parts.picture))
    parts.picture.select(on_click, [drawn, owner], [parts.message, parts.photo], **QUIET)


def _wire_groups(indexes: IndexStore, owner, index, parts: Parts, groups: gr.State) -> None:
    @friendly
    def on_twice(owner: str, key: str | None, at_least: float):
        opened = indexes.open(owner, key)
        found = opened.near_duplicates(DUPLICATE.check(at_least))
        extra = sum(len(group) - 1 for group in found)
        message = f"**{len(found)} groups**; keeping one of each would leave out {extra} of {len(opened)} photos."
        return _show(opened, found, message if found else "No near-duplicates at this threshold.")

    @friendly
    def on_cluster(owner: str, key: str | None, count: float):
        opened = indexes.open(owner, key)
        found = opened.clusters(CLUSTERS.check(count))
        sizes = ", ".join(str(len(group)) for group in found)
        message = f"{len(found)} clusters of {sizes} photos; the most typical of each are shown."
        return _show(opened, found, message)

    shown, run = [groups, parts.summary, parts.gallery], runs_network(parts.gallery)
    parts.twice.click(on_twice, [owner, index, parts.threshold], shown, **run)
    parts.cluster.click(on_cluster, [owner, index, parts.number], shown, **run)


def _show(opened, found: list, message: str) -> tuple:
    few = found[:MOST_GROUPS]
    thumbs = opened.thumbnails([entry.sha256 for group in few for entry in group[:SHOWN_OF_A_GROUP]])
    return found, message, draw.group_pictures(few, thumbs, SHOWN_OF_A_GROUP)


def _groups_file(groups: list | None) -> tuple[str, bytes]:
    if not groups:
        raise ValueError("there are no groups yet; find near-duplicates or make clusters first")
    rows = ["group,path,sha256"]
    rows += [f'{n},"{e.path}",{e.sha256}' for n, group in enumerate(groups, start=1) for e in group]
    return "groups.csv", "\n".join(rows).encode()
