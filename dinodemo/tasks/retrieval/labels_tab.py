"""Retrieval's sub-tab Labels: how well the vectors of an index tell its labels apart, and where they fail."""

from dataclasses import dataclass

import gradio as gr
import numpy as np

from ...web.components import download_button, option_control
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE
from ..base import Option
from ..probe import evaluate_knn, evaluate_linear
from . import draw
from .index_store import IndexStore
from .ranking import Whitening

KNN, LINEAR = "Nearest neighbours", "Logistic regression"
METHOD = Option("method", KNN, "Classifier", "who decides", choices=(KNN, LINEAR))
NEIGHBOURS = Option("k", 20, "Neighbours", "that vote", 1, 100, 1)
TEMPERATURE = Option("temperature", 0.07, "Temperature of the votes", "lower: the nearest decide alone", 0.01, 1, 0.01)
MOST_MISTAKES = 40
HELP = (
    "Each photo is classified by the others, never by itself: by the votes of its nearest neighbours, or by a logistic "
    "regression fitted on four fifths of the photos. Labels are the names of the folders the photos lay in."
)


@dataclass(frozen=True)
class Parts:
    """The sub-tab's components."""

    method: gr.Radio
    k: gr.Slider
    temperature: gr.Slider
    start: gr.Button
    verdict: gr.Markdown
    matrix: gr.Image
    pairs: gr.Markdown
    mistakes: gr.Gallery


def build_labels(indexes: IndexStore, owner: gr.Textbox, index: gr.Dropdown) -> None:
    """Build the sub-tab."""
    evaluated = gr.State(None, time_to_live=4 * 3600)
    parts = _parts(evaluated)

    @friendly
    def on_start(owner: str, key: str | None, method: str, k: float, temperature: float):
        opened = indexes.open(owner, key)
        entries, vectors = opened.gallery()
        labelled = [i for i, entry in enumerate(entries) if entry.label]
        labels = np.array([entries[i].label for i in labelled])
        if len(set(labels.tolist())) < 2:
            raise ValueError("this index has fewer than two labels; add photos that lie in a folder for each class")
        vectors = vectors[labelled]
        if METHOD.check(method) == KNN:
            vectors = Whitening.fit(vectors).apply(vectors)  # as searches compare them
            found = evaluate_knn(vectors, labels, NEIGHBOURS.check(k), TEMPERATURE.check(temperature))
        else:
            found = evaluate_linear(vectors, labels)
        pictures = _mistakes(opened, [entries[i].sha256 for i in labelled], found)
        return found, _verdict(found, method), draw.confusion_picture(found), draw.confused_pairs(found), pictures

    parts.start.click(
        on_start,
        [owner, index, parts.method, parts.k, parts.temperature],
        [evaluated, parts.verdict, parts.matrix, parts.pairs, parts.mistakes],
        **ENGINE_QUEUE,
        api_visibility="private",
    )


def _parts(evaluated: gr.State) -> Parts:
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            gr.Markdown(HELP)
            method = option_control(METHOD, radio=True, elem_id="labels-method")
            with gr.Row():
                k = option_control(NEIGHBOURS, elem_id="labels-k", min_width=140)
                temperature = option_control(TEMPERATURE, elem_id="labels-temperature", min_width=140)
            start = gr.Button("Classify", variant="primary", elem_id="labels-start")
            verdict = gr.Markdown(elem_id="labels-verdict")
            download_button(
                "Confusion matrix (.csv)", lambda found: draw.confusion_csv(_need(found)), [evaluated], "labels-csv"
            )
        with gr.Column(scale=1, min_width=320):
            matrix = gr.Image(
                label="Rows: the truth. Columns: the answer. Bright: often",
                format="png",
                height=420,
                interactive=False,
                buttons=["fullscreen"],
                elem_id="labels-matrix",
            )
            pairs = gr.Markdown(elem_id="labels-pairs")
    mistakes = gr.Gallery(
        label="Mistakes",
        columns=6,
        height="auto",
        buttons=[],
        format="jpeg",
        object_fit="contain",
        elem_id="labels-mistakes",
    )
    return Parts(method, k, temperature, start, verdict, matrix, pairs, mistakes)


def _mistakes(opened, digests: list[str], found) -> list[tuple]:
    """Return thumbnails of some mistakes, evenly chosen, with what was said."""
    wrong = found.mistakes[:: max(1, len(found.mistakes) // MOST_MISTAKES)][:MOST_MISTAKES]
    thumbs = opened.thumbnails([digests[i] for i in wrong])
    return [
        (draw.thumbnail(thumbs[digests[i]]), f"{found.truth[i]}, classified as {found.predicted[i]}") for i in wrong
    ]


def _verdict(found, method: str) -> str:
    chance = np.unique(found.truth, return_counts=True)[1].max() / len(found.truth)
    return (
        f"**{found.accuracy:.1%} right** with {method.lower()} ({found.balanced_accuracy:.1%} as the mean over "
        f"classes) · {len(found.truth)} photos, {len(found.classes)} classes; always naming the largest would give "
        f"{chance:.1%}"
    )


def _need(found):
    if found is None:
        raise ValueError("nothing is classified yet; press Classify first")
    return found
