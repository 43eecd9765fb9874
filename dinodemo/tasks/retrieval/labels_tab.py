"""Retrieval's sub-tab Classify: how well the vectors of an index tell its labels apart, and where they fail."""

import gradio as gr
import numpy as np

from ...web.components import download_button
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE
from ..probe import evaluate_knn, evaluate_linear
from . import draw
from .index_store import IndexStore

KNN, LINEAR = "Nearest neighbours", "Logistic regression"
MOST_MISTAKES = 40
HELP = (
    "Each photo is classified by the others, never by itself: by the votes of its nearest neighbours, or by a logistic "
    "regression fitted on four fifths of the photos. Labels are the names of the folders the photos lay in."
)


def build_labels(shelf: IndexStore, owner: gr.Textbox, index: gr.Dropdown) -> None:
    """Build the sub-tab."""
    evaluated = gr.State(None, time_to_live=4 * 3600)
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            gr.Markdown(HELP)
            method = gr.Radio([KNN, LINEAR], value=KNN, label="Classifier", elem_id="labels-method")
            with gr.Row():
                k = gr.Slider(1, 100, value=20, step=1, label="Neighbours", elem_id="labels-k", min_width=140)
                temperature = gr.Slider(
                    0.01,
                    1,
                    value=0.07,
                    step=0.01,
                    label="Temperature of the votes",
                    elem_id="labels-temperature",
                    min_width=140,
                )
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

    @friendly
    def on_start(owner: str, key: str | None, method: str, k: float, temperature: float):
        opened = shelf.open(owner, key)
        entries, vectors = opened.gallery()
        labelled = [i for i, entry in enumerate(entries) if entry.label]
        labels = np.array([entries[i].label for i in labelled])
        if len(set(labels.tolist())) < 2:
            raise ValueError("this index has fewer than two labels; add photos that lie in a folder for each class")
        vectors = vectors[labelled]
        if method == KNN:
            found = evaluate_knn(vectors, labels, int(k), temperature)
        else:
            found = evaluate_linear(vectors, labels)
        wrong = found.mistakes[:: max(1, len(found.mistakes) // MOST_MISTAKES)][:MOST_MISTAKES]
        shas = [entries[labelled[i]].sha256 for i in wrong]
        thumbs = opened.thumbnails(shas)
        pictures = [
            (draw.thumbnail(thumbs[sha]), f"{labels[i]}, taken for {found.predicted[i]}")
            for i, sha in zip(wrong, shas, strict=True)
        ]
        return found, _verdict(found, method), draw.confusion_picture(found), draw.confused_pairs(found), pictures

    start.click(
        on_start,
        [owner, index, method, k, temperature],
        [evaluated, verdict, matrix, pairs, mistakes],
        **ENGINE_QUEUE,
        api_visibility="private",
    )


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
