"""Retrieval's before and after: the same question to the same photos, as another backbone sees them."""

from pathlib import Path

import gradio as gr

from ...web.background import Work
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE
from ...web.header import Header
from . import draw
from .draw import Search
from .index_store import IndexStore

MOST_AT_ONCE = 500  # photos that are looked at unasked: about a minute on two cores


def build_comparison(indexes: IndexStore, header: Header, search: gr.State, first: gr.Gallery, look: list) -> None:
    """Build the second gallery and fill it whenever the first one or the second backbone changes.

    look: number of hits, labels, path, whether to compare parts.
    """
    status = gr.Markdown(visible=False, elem_id="retrieval-second-status")
    gallery = gr.Gallery(
        visible=False,
        columns=4,
        height="auto",
        buttons=[],
        allow_preview=False,
        format="jpeg",
        object_fit="contain",
        elem_id="retrieval-second",
        elem_classes="shaped small",
    )

    @friendly
    def ask(owner: str, backbone: str | None, found: Search | None, count, labels, path, rerank):
        hidden = gr.update(visible=False), gr.update(value=None, visible=False)
        if not backbone or found is None:
            yield hidden
            return
        name = Path(backbone).name
        yield gr.update(value=f"Looking at the photos with {name}", visible=True), hidden[1]
        origin, twin = indexes.open(owner, found.key), indexes.open_comparison(owner, found.key, backbone)
        missing = len(origin) - len(twin)
        if missing > MOST_AT_ONCE:
            raise ValueError(
                f"{name} has not seen {missing} of these photos, and {MOST_AT_ONCE} is the most that is done at once "
                "here; pick it as the backbone above and make an index of the same photos with it in the tab Build"
            )
        job = Work(lambda progress: twin.follow(origin, lambda done, total: progress(done, total)))
        for share, _ in job.steps():
            yield gr.update(value=f"Looking at the photos with {name}: {share:.0%}"), hidden[1]
        again = draw.find(twin, found.key, found.query, found.region, count, labels, path, rerank)
        yield (
            gr.update(value=draw.status(again, len(twin)), visible=True),
            gr.update(value=draw.hit_pictures(again.hits), visible=True, label=f"The same with {name}"),
        )

    gr.on(
        [first.change, header.comparison.change],
        ask,
        [header.owner, header.comparison, search, *look],
        [status, gallery],
        **ENGINE_QUEUE,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
