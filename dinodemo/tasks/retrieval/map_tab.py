"""Retrieval's sub-tab Map and duplicates: an index on a plane, in clusters, and what is in it twice."""

from dataclasses import dataclass

import gradio as gr
import numpy as np

from ...web.components import download_button
from ...web.errors import friendly
from ...web.events import runs_network
from . import draw
from .index_store import IndexStore

SHOWN_OF_A_GROUP, MOST_GROUPS = 6, 30


@dataclass(frozen=True, eq=False)
class Drawn:
    """Hold the map that is shown."""

    key: str | None
    entries: list
    places: np.ndarray  # (n, 2) from 0 to 1


def build_map(shelf: IndexStore, owner: gr.Textbox, index: gr.Dropdown) -> None:
    """Build the sub-tab."""
    drawn, groups = gr.State(None, time_to_live=4 * 3600), gr.State(None, time_to_live=4 * 3600)
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
            told = gr.Markdown(elem_id="map-told")
            photo = gr.Image(label="Photo", format="jpeg", interactive=False, height=360, elem_id="map-photo")
    with gr.Row():
        threshold = gr.Slider(
            0.7,
            1,
            value=0.95,
            step=0.005,
            label="Alike enough to be a duplicate (cosine)",
            elem_id="map-threshold",
            min_width=200,
        )
        twice = gr.Button("Find near-duplicates", elem_id="map-twice", min_width=160)
        number = gr.Slider(2, 50, value=8, step=1, label="Clusters", elem_id="map-number", min_width=200)
        cluster = gr.Button("Make clusters", elem_id="map-cluster", min_width=160)
    summary = gr.Markdown(elem_id="map-summary")
    gallery = gr.Gallery(
        label="Groups", columns=6, height="auto", buttons=[], format="jpeg", object_fit="contain", elem_id="map-groups"
    )
    download_button("Groups (.csv)", _groups_file, [groups], "map-csv")

    @friendly
    def on_map(owner: str, key: str | None):
        opened = shelf.open(owner, key)
        entries, places = opened.map2d()
        chosen = np.linspace(0, len(entries) - 1, min(len(entries), draw.MOST_ON_MAP)).astype(int)
        entries, places = [entries[i] for i in chosen], draw.scaled(places[chosen])
        thumbs = opened.thumbnails([entry.sha256 for entry in entries])
        shown = draw.map_picture(places, [draw.thumbnail(thumbs[entry.sha256]) for entry in entries])
        return Drawn(key, entries, places), shown, f"{len(entries)} of {len(opened)} photos are drawn."

    @friendly
    def on_click(current: Drawn | None, owner: str, event: gr.SelectData):
        if current is None:
            return gr.skip(), gr.skip()
        entry = current.entries[draw.nearest(current.places, *event.index)]
        label = f" · {entry.label}" if entry.label else ""
        return f"**{draw.short(entry.path, 4)}**{label}", shelf.open(owner, current.key).photo(entry.sha256).rgb

    @friendly
    def on_twice(owner: str, key: str | None, at_least: float):
        opened = shelf.open(owner, key)
        found = opened.near_duplicates(at_least)
        extra = sum(len(group) - 1 for group in found)
        told = f"**{len(found)} groups**; keeping one of each would leave out {extra} of {len(opened)} photos."
        return _show(opened, found, told if found else "No near-duplicates at this threshold.")

    @friendly
    def on_cluster(owner: str, key: str | None, count: float):
        opened = shelf.open(owner, key)
        found = opened.clusters(int(count))
        return _show(
            opened,
            found,
            f"{len(found)} clusters of {', '.join(str(len(g)) for g in found)} photos; "
            "the most typical of each are shown.",
        )

    run = runs_network()
    start.click(on_map, [owner, index], [drawn, picture, told], **run, show_progress_on=[picture])
    picture.select(on_click, [drawn, owner], [told, photo], show_progress="hidden", api_visibility="private")
    shown = [groups, summary, gallery]
    twice.click(on_twice, [owner, index, threshold], shown, **run, show_progress_on=[gallery])
    cluster.click(on_cluster, [owner, index, number], shown, **run, show_progress_on=[gallery])


def _show(opened, found: list, told: str) -> tuple:
    few = found[:MOST_GROUPS]
    thumbs = opened.thumbnails([entry.sha256 for group in few for entry in group[:SHOWN_OF_A_GROUP]])
    return found, told, draw.group_pictures(few, thumbs, SHOWN_OF_A_GROUP)


def _groups_file(groups: list | None) -> tuple[str, bytes]:
    if not groups:
        raise ValueError("there are no groups yet; find near-duplicates or make clusters first")
    rows = ["group,path,sha256"]
    rows += [f'{n},"{e.path}",{e.sha256}' for n, group in enumerate(groups, start=1) for e in group]
    return "groups.csv", "\n".join(rows).encode()
