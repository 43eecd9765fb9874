"""Trained head: learn classes from a few photos with masks, then label any photo."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from ...engine.provenance import made_with_name
from ...io.files import stem
from ...io.images import DISPLAY_SIDE, Photo, fit_within
from ...io.render import blend, distinct_colours, png_bytes
from ...web.background import Work
from ...web.components import download_button, option_control, photo_input, problem_list
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE, QUIET
from ...web.header import Header
from ...web.services import Services
from ..base import Option
from ..segmentation.draw import Reference

if TYPE_CHECKING:  # the head needs torch, which is loaded only once the page is served
    from . import SegmentationHead, SegmentationResult

KIND = Option(
    "kind",
    "conv",
    "Head",
    choices=("conv", "linear"),
    labels=("Convolutional decoder: finer, about a minute", "Linear: seconds"),
)
EPOCHS = Option("epochs", 40, "Epochs", "passes over the photos at most", 5, 200, 5)
HELP = (
    "Upload a zip with photos and masks (`images/x.jpg` + `masks/x.png`, or `x.jpg` + `x_mask.png`; 0 is background, "
    "255 is ignored) or with COCO, YOLO, labelme, CVAT or Label Studio annotations, or train on the references kept "
    "under *Find by reference*: each name is a class."
)


@dataclass(frozen=True)
class TrainingParts:
    """The components of the training side."""

    pairs: gr.File
    names: gr.Textbox
    kind: gr.Radio
    epochs: gr.Slider
    train: gr.Button
    stop: gr.Button
    status: gr.Markdown
    report: gr.Markdown
    loader: gr.File
    head: gr.State  # SegmentationHead or None


@dataclass(frozen=True)
class LabelParts:
    """The components of the side that labels a photo."""

    photo: gr.Image
    picture: gr.Image
    legend: gr.Markdown
    labelled: gr.State  # (photo, result, made with) or None


def build_head_tab(services: Services, header: Header, references: gr.State) -> None:
    """Build the sub-tab's components and wire them.

    Args:
        services: Of the app.
        header: Of the page.
        references: The kept `Reference`s of the neighbouring sub-tab.
    """
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            training = _training_parts()
        with gr.Column(scale=1, min_width=320):
            label = _label_parts()
    trained = _wire_training(services, header, references, training)
    _wire_label(services, header, training.head, label, trained)


def _training_parts() -> TrainingParts:
    head = gr.State(None, time_to_live=4 * 3600)
    gr.Markdown(HELP)
    pairs = gr.File(label="Photos and masks (.zip)", height=120, elem_id="head-pairs")
    names = gr.Textbox(label="Names of the classes 1, 2, ... of the zip", placeholder="cup, cat", elem_id="head-names")
    kind = option_control(KIND, radio=True, elem_id="head-kind")
    epochs = option_control(EPOCHS, info="Stops early when it no longer improves.")
    with gr.Row():
        train = gr.Button("Train", variant="primary", elem_id="head-train")
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="head-stop")
    status = gr.Markdown("No head yet.", elem_id="head-status")
    report = gr.Markdown(elem_id="head-report")
    with gr.Row():
        download_button("Save head", _head_file, [head], "head-save")
    with gr.Accordion("Load a saved head", open=False):
        loader = gr.File(label="Head (.safetensors)", height=110, elem_id="head-load")
    return TrainingParts(pairs, names, kind, epochs, train, stop, status, report, loader, head)


def _label_parts() -> LabelParts:
    labelled = gr.State(None, time_to_live=4 * 3600)
    photo = photo_input("Photo to label", "head-photo", height=280)
    picture = gr.Image(
        label="Labels", format="jpeg", interactive=False, height=420, elem_id="head-picture", buttons=["fullscreen"]
    )
    legend = gr.Markdown(elem_id="head-legend")
    download_button("Download index mask (.png)", _mask_file, [labelled], "head-mask")
    return LabelParts(photo, picture, legend, labelled)


def _wire_training(services: Services, header: Header, references: gr.State, parts: TrainingParts) -> list:
    """Wire training, stop and load; returns what to listen to for a new head."""

    @friendly
    def on_train(path, kept: tuple[Reference, ...], text: str, chosen: str, n: int, backbone: str, resolution: float):
        from . import SegmentationHead

        found, problems, classes, notes = _gather(path, kept, text)
        engine = services.pool.get(backbone)
        new = SegmentationHead(kind=chosen, epochs=int(n), resolution=int(resolution))
        job = Work(lambda progress: new.fit(engine, found, classes=classes, progress=progress))
        for note in notes:
            gr.Info(note)
        yield gr.skip(), job, f"{len(found)} pairs", problem_list(problems), gr.update(visible=True)
        for share, message in job.steps():
            yield gr.skip(), gr.skip(), f"{share:.0%} · {message}", gr.skip(), gr.skip()
        yield new, None, _summary(new), _report(new) + problem_list(problems), gr.update(visible=False)

    def on_stop(job: Work | None):
        if job is not None:
            job.stop()
        return gr.update(visible=False)

    @friendly
    def on_load(path: str | None):
        if path is None:
            return gr.skip(), gr.skip(), gr.skip()
        from . import SegmentationHead

        loaded = SegmentationHead.load(path)
        return loaded, _summary(loaded), _report(loaded)

    work = gr.State(None)
    inputs = [parts.pairs, references, parts.names, parts.kind, parts.epochs, header.backbone, header.resolution]
    event = parts.train.click(
        on_train,
        inputs,
        [parts.head, work, parts.status, parts.report, parts.stop],
        **ENGINE_QUEUE,
        api_visibility="private",
        show_progress_on=[parts.status],
    )
    parts.stop.click(on_stop, work, parts.stop, **QUIET)
    event.failure(lambda: ("Not trained.", gr.update(visible=False)), None, [parts.status, parts.stop], **QUIET)
    loaded = parts.loader.upload(on_load, parts.loader, [parts.head, parts.status, parts.report], **QUIET)
    return [event.success, loaded.success]


def _wire_label(services: Services, header: Header, head: gr.State, parts: LabelParts, trained: list) -> None:
    """Wire labelling: when a photo is dropped, and again for every new head."""

    @friendly
    def on_photo(trained: "SegmentationHead | None", given: Photo | None, backbone: str):
        if given is None:
            return None, "", None
        if trained is None:
            raise ValueError("there is no head yet; train or load one first")
        engine = services.pool.get(backbone)
        if warning := trained.check_engine(engine):
            gr.Warning(warning)
        result = trained.predict(engine, given)
        return (
            draw_labels(given, result),
            _legend(result),
            (given, result, made_with_name(engine.backbone.name, engine.identity)),
        )

    for trigger in (parts.photo.upload, *trained):
        trigger(
            on_photo,
            [head, parts.photo, header.backbone],
            [parts.picture, parts.legend, parts.labelled],
            **ENGINE_QUEUE,
            api_visibility="private",
            show_progress_on=[parts.picture],
        )


def draw_labels(photo: Photo, result: "SegmentationResult") -> np.ndarray:
    """Colour a photo by its labels; background stays as it is."""
    rgb = fit_within(photo.rgb, DISPLAY_SIDE)
    rows = np.linspace(0, result.classes.shape[0] - 1, rgb.shape[0]).round().astype(int)
    columns = np.linspace(0, result.classes.shape[1] - 1, rgb.shape[1]).round().astype(int)
    classes = result.classes[rows][:, columns]
    colours = distinct_colours(len(result.names))
    return blend(rgb, colours[classes], 0.55 * (classes > 0).astype(np.float32))


def _gather(path: str | None, kept: tuple[Reference, ...], text: str) -> tuple[list, list, list[str] | None, list[str]]:
    """Return pairs to train on, problems, names of the classes and notes: of a zip, else of the references."""
    from . import read_dataset

    if path is not None:
        data = read_dataset(path)
        return data.pairs, data.problems, _names(text) or data.classes, data.notes
    if not kept:
        raise ValueError("there are no masks yet; upload a zip, or keep painted references in the other tab")
    pairs, names = painted_pairs(kept)
    return pairs, [], names, []


def painted_pairs(kept: tuple[Reference, ...]) -> tuple[list[tuple[Photo, np.ndarray]], list[str]]:
    """Return a photo and index mask (H, W) uint8 for every painted photo, and the classes' names in order.

    What is painted on the same photo shares its mask; where two names overlap, the later one stays.
    """
    names = list(dict.fromkeys(r.name for r in kept))
    pairs: dict[str, tuple[Photo, np.ndarray]] = {}
    for reference in kept:
        photo = reference.photo
        mask = pairs.setdefault(photo.digest, (photo, np.zeros(photo.size, np.uint8)))[1]
        mask[reference.this] = 1 + names.index(reference.name)
    return list(pairs.values()), names


def _names(text: str) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] or None


def _summary(head: "SegmentationHead") -> str:
    measured = "no held-out figure" if head.miou_ is None else f"held-out mIoU **{head.miou_:.3f}**"
    return f"Head for **{head.backbone_}**, {len(head.classes_) - 1} class(es), {measured}. {head.note_}"


def _report(head: "SegmentationHead") -> str:
    if head.iou_ is None:
        return ""
    rows = ""
    for name, iou, row in zip(head.classes_, head.iou_, head.confusion_normalised_, strict=True):
        cells = ["-" if np.isnan(iou) else f"{iou:.3f}", *(f"{share:.2f}" for share in row)]
        rows += f"| {name} | {' | '.join(cells)} |\n"
    header = " | ".join(f"as {name}" for name in head.classes_)
    return f"| class | IoU | {header} |\n|---|---|{'---|' * len(head.classes_)}\n{rows}"


def _legend(result: "SegmentationResult") -> str:
    colours = distinct_colours(len(result.names))
    parts = []
    for i, name in enumerate(result.names):
        share = (result.classes == i).mean()
        if i and share:
            hexa = "".join(f"{value:02x}" for value in colours[i])
            parts.append(f'<span style="color:#{hexa}">■</span> {name} {share:.1%}')
    return " · ".join(parts) or "Only background was found."


def _head_file(head: "SegmentationHead | None") -> tuple[str, bytes]:
    if head is None:
        raise ValueError("there is no head yet; train one first")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head.safetensors"
        head.save(path)
        return f"head-{stem(head.backbone_)}.safetensors", path.read_bytes()


def _mask_file(labelled: tuple | None) -> tuple[str, bytes]:
    if labelled is None:
        raise ValueError("there is nothing to download yet; label a photo first")
    photo, result, made_with = labelled
    return f"{stem(photo.name)}-labels.png", png_bytes(result.classes, made_with)
