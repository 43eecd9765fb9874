"""Trained head: learn classes from a few photos with masks, then label any photo."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from ..images import Photo, fit_within
from ..render import blend, distinct_colours, png_bytes
from .background import Work
from .components import download_button, photo_input, stem
from .errors import friendly
from .header import Header
from .segmentation_view import Reference
from .services import DISPLAY_SIDE, ENGINE_QUEUE, Services, made_with_name

if TYPE_CHECKING:  # the head needs torch, which is loaded only once the page is served
    from ..tasks.segmentation_head import SegmentationHead, SegmentationResult

QUIET = {"show_progress": "hidden", "api_visibility": "private"}
KINDS = [("Convolutional decoder: finer, about a minute", "conv"), ("Linear: seconds", "linear")]
HELP = (
    "Upload a zip with photos and index masks (`images/x.jpg` + `masks/x.png`, or `x.jpg` + `x_mask.png`; 0 is "
    "background, 255 is ignored), or train on the references kept under *Find by reference*."
)


def build_head_tab(services: Services, header: Header, references: gr.State) -> None:
    """Build the sub-tab's components and wire them. references: the kept `Reference`s of the neighbouring sub-tab."""
    head, work, labelled = gr.State(None, time_to_live=4 * 3600), gr.State(None), gr.State(None, time_to_live=4 * 3600)
    with gr.Row(elem_classes="work"):
        with gr.Column(scale=1, min_width=320):
            gr.Markdown(HELP)
            pairs = gr.File(label="Photos and masks (.zip)", height=120, elem_id="head-pairs")
            names = gr.Textbox(label="Names of the classes 1, 2, ...", placeholder="cup, cat", elem_id="head-names")
            kind = gr.Radio(KINDS, value="conv", label="Head", elem_id="head-kind")
            epochs = gr.Slider(5, 200, value=40, step=5, label="Epochs", info="Stops early when it no longer improves.")
            with gr.Row():
                train = gr.Button("Train", variant="primary", elem_id="head-train")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="head-stop")
            status = gr.Markdown("No head yet.", elem_id="head-status")
            report = gr.Markdown(elem_id="head-report")
            with gr.Row():
                download_button("Save head", _head_file, [head], "head-save")
            with gr.Accordion("Load a saved head", open=False):
                loader = gr.File(label="Head (.safetensors)", height=110, elem_id="head-load")
        with gr.Column(scale=1, min_width=320):
            photo = photo_input("Photo to label", "head-photo", height=280)
            picture = gr.Image(label="Labels", format="jpeg", interactive=False, height=420, elem_id="head-picture",
                               buttons=["fullscreen"])  # fmt: skip
            legend = gr.Markdown(elem_id="head-legend")
            download_button("Download index mask (.png)", _mask_file, [labelled], "head-mask")

    @friendly
    def on_train(path, kept: tuple[Reference, ...], text: str, chosen: str, n: int, backbone: str, resolution: float):
        from ..tasks.segmentation_head import SegmentationHead

        found, problems = _gather(path, kept)
        engine = services.pool.get(backbone)
        new = SegmentationHead(kind=chosen, epochs=int(n), resolution=int(resolution))
        job = Work(lambda progress: new.fit(engine, found, classes=_names(text), progress=progress))
        yield gr.skip(), job, f"{len(found)} pairs", _problem_list(problems), gr.update(visible=True)
        for share, message in job.steps():
            yield gr.skip(), gr.skip(), f"{share:.0%} · {message}", gr.skip(), gr.skip()
        yield new, None, _summary(new), _report(new) + _problem_list(problems), gr.update(visible=False)

    def on_stop(job: Work | None):
        if job is not None:
            job.stop()
        return gr.update(visible=False)

    @friendly
    def on_load(path: str | None):
        if path is None:
            return gr.skip(), gr.skip(), gr.skip()
        from ..tasks.segmentation_head import SegmentationHead

        loaded = SegmentationHead.load(path)
        return loaded, _summary(loaded), _report(loaded)

    @friendly
    def on_photo(trained: "SegmentationHead | None", given: Photo | None, backbone: str):
        if given is None:
            return None, "", None
        if trained is None:
            raise ValueError("there is no head yet; train or load one first")
        result = trained.predict(services.pool.get(backbone), given)
        return draw_labels(given, result), _legend(result), (given, result, made_with_name(backbone))

    event = train.click(on_train, [pairs, references, names, kind, epochs, header.backbone, header.resolution],
                        [head, work, status, report, stop], **ENGINE_QUEUE, api_visibility="private",
                        show_progress_on=[status])  # fmt: skip
    stop.click(on_stop, work, stop, **QUIET)
    event.failure(lambda: ("Not trained.", gr.update(visible=False)), None, [status, stop], **QUIET)
    loaded = loader.upload(on_load, loader, [head, status, report], **QUIET)
    label = {**ENGINE_QUEUE, "api_visibility": "private", "show_progress_on": [picture]}
    for trigger in (photo.upload, event.success, loaded.success):
        trigger(on_photo, [head, photo, header.backbone], [picture, legend, labelled], **label)


def draw_labels(photo: Photo, result: "SegmentationResult") -> np.ndarray:
    """Colour a photo by its labels; background stays as it is."""
    rgb = fit_within(photo.rgb, DISPLAY_SIDE)
    rows = np.linspace(0, result.classes.shape[0] - 1, rgb.shape[0]).round().astype(int)
    columns = np.linspace(0, result.classes.shape[1] - 1, rgb.shape[1]).round().astype(int)
    classes = result.classes[rows][:, columns]
    colours = distinct_colours(len(result.names))
    return blend(rgb, colours[classes], 0.55 * (classes > 0).astype(np.float32))


def _gather(path: str | None, kept: tuple[Reference, ...]) -> tuple[list, list]:
    from ..tasks.segmentation_head import read_pairs

    if path is not None:
        return read_pairs(path)
    if not kept:
        raise ValueError("there are no masks yet; upload a zip, or keep painted references in the other tab")
    return [(r.photo, r.this.astype(np.uint8)) for r in kept], []


def _names(text: str) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] or None


def _summary(head: "SegmentationHead") -> str:
    figure = "no held-out figure" if head.miou_ is None else f"held-out mIoU **{head.miou_:.3f}**"
    return f"Head for **{head.backbone_}**, {len(head.classes_) - 1} class(es), {figure}. {head.note_}"


def _report(head: "SegmentationHead") -> str:
    if head.iou_ is None:
        return ""
    rows = ""
    for name, iou, row in zip(head.classes_, head.iou_, head.confusion_normalised_, strict=True):
        figures = ["-" if np.isnan(iou) else f"{iou:.3f}", *(f"{share:.2f}" for share in row)]
        rows += f"| {name} | {' | '.join(figures)} |\n"
    header = " | ".join(f"as {name}" for name in head.classes_)
    return f"| class | IoU | {header} |\n|---|---|{'---|' * len(head.classes_)}\n{rows}"


def _problem_list(problems: list[tuple[str, str]]) -> str:
    if not problems:
        return ""
    lines = "\n".join(f"- {name}: {reason}" for name, reason in problems[:30])
    more = f"\n- and {len(problems) - 30} more" if len(problems) > 30 else ""
    return f"\n\nLeft out:\n{lines}{more}"


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
