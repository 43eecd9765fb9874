"""Classify's sub-tab Use it: other photos in, their classes out; and a saved classifier loaded."""

from functools import partial

import gradio as gr

from ...io.images import Photo
from ...web.components import download_button, option_control, photo_input
from ...web.errors import friendly
from ...web.events import QUIET, runs_network
from ...web.folder_picker import folder_picker, read_upload
from ...web.header import Header
from ...web.services import Services
from ..retrieval.sources import HELD_LIMITS, Item, open_source
from . import draw
from .gathered import Fitted, Gathered, gather

COLUMNS = ["photo", "label", "probability", "remark"]


def build_applying(services: Services, header: Header, fitted: gr.State) -> None:
    """Build the sub-tab; fitted: what the other one made, or what is loaded here."""
    rows = gr.State([])
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            about = gr.Markdown("Make a classifier first, or load one.", elem_id="classify-about")
            load = gr.File(
                label="Load a classifier (.safetensors)", file_types=[".safetensors"], elem_id="classify-load"
            )
            photo = photo_input("One photo", "classify-photo", height=220)
            picker = folder_picker("classify-photos")
            unknown = option_control(draw.UNKNOWN_LABELLED, elem_id="classify-unknown")
        with gr.Column(scale=2, min_width=320):
            answer = gr.Label(label="Answer", num_top_classes=5, elem_id="classify-answer")
            status = gr.Markdown(elem_id="classify-found")
            table = gr.Dataframe(headers=COLUMNS, interactive=False, wrap=True, elem_id="classify-table")
            download_button("Answers (.csv)", _answers_file, [rows], "classify-answers")

    @friendly
    def on_load(path: str | None):
        from .classifier import PhotoClassifier

        if path is None:
            return gr.skip(), gr.skip()
        made_with = PhotoClassifier.load(path).card_["backbone"]
        classifier = PhotoClassifier.load(path, services.pool.get(made_with))
        return Fitted(classifier, Gathered()), draw.summary(classifier)

    @friendly
    def on_photo(given: Photo | None, made, mark: bool):
        if given is None:
            return None
        one = _need(made).predict([given])[0]
        if mark and one.is_unknown:
            return {"unknown": 1.0}
        return dict(zip(_need(made).classes_.tolist(), one.probabilities.tolist(), strict=True))

    @friendly
    def on_photos(value: dict | None, made, mark: bool):
        uploaded = read_upload(value)
        if not uploaded:
            return gr.skip(), gr.skip(), gr.skip()
        found, answers = _answers(_need(made), uploaded)
        lines = draw.answers_table(found.names, answers)
        if mark:
            lines = [[name, "unknown" if remark else label, share, remark] for name, label, share, remark in lines]
        left = f" {len(found.problems)} could not be read." if found.problems else ""
        unlike = sum(one.is_unknown for one in answers)
        return lines, lines, f"{len(lines)} photos classified, {unlike} unlike all photos fitted on.{left}"

    run = runs_network(table)
    load.upload(on_load, load, [fitted, about], **QUIET)
    fitted.change(
        lambda made: draw.summary(made.classifier) if made is not None and made.classifier else gr.skip(),
        fitted,
        about,
        **QUIET,
    )
    gr.on([photo.change, unknown.change], on_photo, [photo, fitted, unknown], answer, **runs_network(answer))
    gr.on([picker.submit, unknown.change], on_photos, [picker, fitted, unknown], [rows, table, status], **run)


def _answers(classifier, uploaded):
    items = []
    for path, name in uploaded:
        if name.suffix.lower() == ".zip":
            with open_source(path, HELD_LIMITS) as (found, _):  # read now: the zip is closed soon
                items += [Item(item.path, partial(bytes, item.read()), only_here=True) for item in found]
        else:
            items.append(Item(str(name), path.read_bytes, only_here=True))
    found = gather(classifier, items, [""] * len(items))
    return found, classifier.predict_tokens(found.tokens()) if len(found) else []


def _need(made):
    if made is None or made.classifier is None:
        raise ValueError("there is no classifier yet; make one, or load one")
    return made.classifier


def _answers_file(rows: list | None) -> tuple[str, bytes]:
    if not rows:
        raise ValueError("nothing is classified yet; choose photos first")
    return draw.answers_csv(rows)
