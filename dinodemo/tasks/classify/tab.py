"""The Classify tab: labelled photos in, a classifier with what it is worth out; then it is asked about others."""

from dataclasses import dataclass
from functools import lru_cache, partial

import gradio as gr

from ...io.uploads import photos_in, put_into
from ...web.background import Work
from ...web.components import (
    download_button,
    example_photos,
    option_control,
    passing_folder,
)
from ...web.errors import friendly
from ...web.events import QUIET, runs_network
from ...web.examples import example_mark, when_opened
from ...web.folder_picker import folder_picker, read_upload, server_folder, server_folder_box
from ...web.header import Header
from ...web.services import Services
from ..retrieval.index_store import IndexStore
from ..retrieval.sources import HELD_LIMITS, Item, read_again
from . import draw
from .apply_tab import build_applying
from .gathered import Fitted, example_items, gather
from .results_tab import classifier_file, confusion_file, folder_file, onnx_file, results

HELP = "Choose a folder that holds a folder for each class, or a zip of it. A few photos a class are enough to begin."


@dataclass(frozen=True)
class Parts:
    """The components of the first half: photos in, measures out."""

    picker: gr.HTML
    folder: gr.Textbox
    index: gr.Dropdown
    name: gr.Textbox
    method: gr.Dropdown
    tokens: gr.Dropdown
    fit: gr.Button
    example: gr.Button
    stop: gr.Button
    status: gr.Markdown
    matrix: gr.Image
    curve: gr.Image
    pairs: gr.Markdown
    mistakes: gr.Gallery
    suspicious: gr.Gallery


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the tab: one sub-tab makes a classifier, the other uses it."""
    indexes = IndexStore(services)
    fitted, work = gr.State(None, time_to_live=4 * 3600), gr.State(None)
    mark = example_mark("**Example.** Choose photos of your own to replace it.")
    with gr.Tabs():
        with gr.Tab("Make a classifier", id="classify-make"):
            parts = _parts(services, fitted)
        with gr.Tab("Use it", id="classify-use"):
            build_applying(services, header, fitted)
    _wire(services, indexes, header, parts, fitted, work)
    _wire_opening(services, header, tab, parts, fitted, mark)
    tab.select(
        lambda owner: gr.update(choices=[("None", ""), *indexes.choices(owner)]), header.owner, parts.index, **QUIET
    )


def _parts(services: Services, fitted: gr.State) -> Parts:
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            gr.Markdown(HELP)
            picker = folder_picker("classify-picker")
            name = gr.Textbox(
                label="Class of these photos",
                info="Leave empty when folders name the classes. With a name the photos are added as one more class.",
                max_lines=1,
                max_length=60,
                elem_id="classify-name",
            )
            folder = server_folder_box(services.settings, "classify-folder")
            index = gr.Dropdown([("None", "")], value="", label="Or the labels of an index", elem_id="classify-index")
            with gr.Row():
                fit = gr.Button("Make the classifier", variant="primary", elem_id="classify-fit", min_width=160)
                example = gr.Button("Example", elem_id="classify-example", min_width=100)
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="classify-stop", min_width=100)
            with gr.Accordion("More settings", open=False), gr.Row():
                method = option_control(draw.METHOD, elem_id="classify-method", min_width=140)
                tokens = option_control(draw.TOKENS, elem_id="classify-tokens", min_width=140)
            status = gr.Markdown("", elem_id="classify-status")
            with gr.Row():
                download_button("Classifier (.safetensors)", classifier_file, [fitted], "classify-save")
                download_button("For ONNX Runtime (.onnx)", onnx_file, [fitted], "classify-onnx")
                download_button("For transformers (.zip)", folder_file, [fitted], "classify-hf")
                download_button("Confusion matrix (.csv)", confusion_file, [fitted], "classify-csv")
        with gr.Column(scale=3, min_width=320):
            with gr.Row():
                matrix = _picture("Confusion (rows truth, columns answer)", "classify-matrix")
                curve = _picture("Accuracy over the number of photos", "classify-curve")
            pairs = gr.Markdown(elem_id="classify-pairs")
            mistakes = _gallery("Mistakes on photos that were left out", "classify-mistakes")
            suspicious = _gallery("Labels that are probably wrong", "classify-suspicious")
    return Parts(
        picker,
        folder,
        index,
        name,
        method,
        tokens,
        fit,
        example,
        stop,
        status,
        matrix,
        curve,
        pairs,
        mistakes,
        suspicious,
    )


def _picture(label: str, elem_id: str) -> gr.Image:
    return gr.Image(
        label=label, format="png", interactive=False, height=260, buttons=["fullscreen"], elem_id=elem_id, visible=False
    )


def _gallery(label: str, elem_id: str) -> gr.Gallery:
    return gr.Gallery(
        label=label,
        columns=6,
        height="auto",
        buttons=[],
        format="jpeg",
        object_fit="contain",
        elem_id=elem_id,
        visible=False,
    )


def _wire(services: Services, indexes: IndexStore, header: Header, parts: Parts, fitted: gr.State, work) -> None:
    @friendly
    def on_fit(owner, backbone, value, folder, key, name, method, tokens, before):
        items, labels, note = _sources(services, indexes, owner, value, folder, key, name)
        kept = before.photos if before is not None and (name or "").strip() and _same(before, backbone) else None
        yield from _follow(services, backbone, items, labels, note, method, tokens, kept)

    @friendly
    def on_example(backbone, method, tokens):
        items, labels = example_items(example_photos())
        yield from _follow(services, backbone, items, labels, "", method, tokens, None)

    shown = [fitted, work, parts.status, parts.stop, parts.matrix, parts.curve, parts.pairs, parts.mistakes]
    shown += [parts.suspicious, parts.picker, parts.name]
    run = runs_network(parts.status)
    given = [header.owner, header.backbone, parts.picker, parts.folder, parts.index, parts.name]
    fit = parts.fit.click(on_fit, [*given, parts.method, parts.tokens, fitted], shown, **run)
    example = parts.example.click(on_example, [header.backbone, parts.method, parts.tokens], shown, **run)
    for event in (fit, example):
        event.failure(lambda: gr.update(visible=False), None, parts.stop, **QUIET)
    parts.picker.submit(
        lambda value: f"{len(read_upload(value))} files are here; press **Make the classifier**.",
        parts.picker,
        parts.status,
        **QUIET,
    )
    parts.stop.click(_stop, work, parts.stop, **QUIET)


def _wire_opening(
    services: Services, header: Header, tab: gr.Tab, parts: Parts, fitted: gr.State, mark: gr.Markdown
) -> None:
    """Open with a classifier made of the shipped photos; all visitors see the same one."""
    used = gr.State([])  # holds something once the person has made one

    @lru_cache(maxsize=2)
    def example(backbone: str) -> tuple:
        items, labels = example_items(example_photos())
        *_, last = _follow(services, backbone, items, labels, "", draw.METHOD.default, draw.TOKENS.default, None)
        return last[0], *last[2:9]  # neither the work nor the inputs

    services.openings.add(example)
    shown = [fitted, parts.status, parts.stop, parts.matrix, parts.curve, parts.pairs, parts.mistakes, parts.suspicious]

    @friendly
    def on_tab(before: Fitted | None, choices: list, backbone: str):
        if before is not None or choices or not services.openings.on:
            return (gr.skip(),) * (len(shown) + 1)
        made = example(backbone)
        return (gr.skip(),) * (len(shown) + 1) if choices else (*made, gr.update(visible=True))

    opened = when_opened(tab, services.start)
    asked = [fitted, used, header.backbone]
    opened.success(on_tab, asked, [*shown, mark], **runs_network(parts.status))

    def leave(choices: list):
        choices.append(True)
        return gr.update(visible=False)

    gr.on([parts.fit.click, parts.example.click], leave, used, mark, **QUIET)


def _sources(services: Services, indexes: IndexStore, owner, value, folder, key, name) -> tuple[list, list, str]:
    """Return items, labels and a note for what the page names."""
    from .dataset import read_labelled

    uploaded = read_upload(value)
    if uploaded:
        source = passing_folder() / "your upload"  # as messages name it
        put_into(uploaded, source)
    elif (folder or "").strip():
        source = server_folder(services.settings, folder)
    elif key:
        return _of_index(indexes, owner, key)
    else:
        raise ValueError("there are no photos yet; choose a folder, name an index, or press Example")
    if (name or "").strip():
        items = [Item(str(label), path.read_bytes, only_here=True) for path, label in photos_in(source)]
        if not items:
            raise ValueError("there is no photo among these files; choose photos")
        return items, [name.strip()] * len(items), ""
    inside = [one for one in source.iterdir() if not one.name.startswith(".")]
    single = inside[0] if len(inside) == 1 else source
    zips = single.suffix.lower() == ".zip"
    with read_labelled(single if zips else source, limits=HELD_LIMITS) as found:
        items = [Item(i.path, _held(i) if zips else i.read, i.label, only_here=True) for i in found.items]
        return items, found.labels, found.note


def _held(item: Item):
    """Read a zip's member now, because the zip is closed soon."""
    return partial(bytes, item.read())


def _of_index(indexes: IndexStore, owner: str, key: str) -> tuple[list, list, str]:
    opened = indexes.open(owner, key, indexes.services.start.name)
    entries = [entry for entry in opened.gallery()[0] if entry.label]
    if len({entry.label for entry in entries}) < 2:
        raise ValueError("this index has fewer than two labels; add class folders, or label hits in Retrieval")
    items = [Item(e.path, partial(read_again, e.path, e.sha256), e.label) for e in entries]
    return items, [entry.label for entry in entries], ""


def _follow(services: Services, backbone: str, items, labels, note: str, method: str, tokens: str, kept):
    """Yield the page's updates while photos are read and the classifier is fitted, and its measures at the end."""
    from .classifier import PhotoClassifier

    classifier = PhotoClassifier(services.pool.get(backbone), draw.METHOD.check(method), draw.TOKENS.check(tokens))

    def make(progress) -> Fitted:
        found = gather(classifier, items, labels, progress)
        if kept is not None:
            for field in ("names", "labels", "pairs", "thumbs"):
                getattr(found, field)[:0] = getattr(kept, field)
        if not len(found):
            raise ValueError(f"none of the photos can be read; the first: {found.problems[0][1]}")
        if len(set(found.labels)) < 2:
            return Fitted(None, found, "Add a second class: choose its photos, name it, and press the button again.")
        classifier.fit_tokens(found.tokens(), found.labels, progress)
        return Fitted(classifier, found, note)

    job = Work(make)
    yield None, job, "Reading the photos", gr.update(visible=True), *[gr.skip()] * 7
    for share, message in job.steps():
        yield gr.skip(), gr.skip(), f"{share:.0%} · {message}", *[gr.skip()] * 8
    yield (job.result, None, *results(job.result))


def _same(before: Fitted, backbone: str) -> bool:
    """Return whether tokens of before are of this backbone: of another they are computed again."""
    engine = getattr(before.classifier, "engine", None)
    return engine is None or engine.backbone.name == backbone


def _stop(job: Work | None):
    if job is not None:
        job.stop()
    return gr.update(visible=False)
