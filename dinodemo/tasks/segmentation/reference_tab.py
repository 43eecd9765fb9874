"""The reference side of the tab: photo, painter, label, mask files, and the references that are kept."""

from dataclasses import dataclass, replace

import gradio as gr
import numpy as np

from ...io.images import Photo
from ...web.components import photo_input
from ...web.errors import friendly
from ...web.events import QUIET
from ...web.painter import mask_painter, painter_value
from . import draw
from .draw import Reference
from .masks import MaskFile, open_mask_file
from .references import DEFAULT_NAME
from .search_tab import read_reference


@dataclass(frozen=True, eq=False)
class MaskChoice:
    """Represent an uploaded mask file and what was picked of it."""

    file: MaskFile
    labels: tuple[str, ...]
    inverted: bool = False

    def mask(self) -> np.ndarray:
        """Return the mask (H, W) bool that is picked."""
        return self.file.choose(self.labels, self.inverted)


@dataclass(frozen=True)
class ReferenceParts:
    """Hold the components of the reference side."""

    photo: gr.Image
    painter: gr.HTML
    name: gr.Textbox
    mask_file: gr.File
    labels: gr.CheckboxGroup
    invert: gr.Button
    add: gr.Button
    clear: gr.Button
    kept: gr.Gallery
    current: gr.State  # Photo on the painter
    references: gr.State  # tuple[Reference, ...]
    opened: gr.State  # MaskChoice of the uploaded mask, or None

    def drawing(self) -> list:
        """Return what `gather` is asked with."""
        return [self.references, self.painter, self.current, self.name]


def reference_parts() -> ReferenceParts:
    """Make the components of the reference side."""
    photo = photo_input("1. Reference photo", "seg-reference", height=190)
    painter = mask_painter("seg-painter")
    name = gr.Textbox(
        label="Label",
        value=DEFAULT_NAME,
        max_length=40,
        elem_id="seg-name",
        info="Add several objects under different labels; each is a counter-example for the others.",
    )
    with gr.Row():
        add = gr.Button("Add another reference", size="sm", elem_id="seg-add")
        clear = gr.Button("Clear references", size="sm", elem_id="seg-forget")
    with gr.Accordion("Or upload a mask for this photo", open=False):
        mask_file = gr.File(
            label="Mask: picture, NumPy, COCO, YOLO, labelme, CVAT or Label Studio", height=110, elem_id="seg-mask-file"
        )
        labels = gr.CheckboxGroup(
            [], label="Labels in this mask: pick what is meant", visible=False, elem_id="seg-labels"
        )
        invert = gr.Button("Invert mask", size="sm", visible=False, elem_id="seg-invert")
    kept = gr.Gallery(
        label="Kept references",
        columns=4,
        height="auto",
        allow_preview=False,
        buttons=[],
        elem_id="seg-kept",
        visible=False,
        format="jpeg",
    )
    return ReferenceParts(
        photo,
        painter,
        name,
        mask_file,
        labels,
        invert,
        add,
        clear,
        kept,
        current=gr.State(None),
        references=gr.State(()),
        opened=gr.State(None),
    )


def wire_reference(reference: ReferenceParts) -> None:
    """Wire the photo on the painter and the references that are kept."""
    on_painter = [reference.painter, reference.current]

    @friendly
    def on_photo(photo: Photo | None):
        return painter_value(photo), photo

    @friendly
    def keep(kept: tuple[Reference, ...], value: dict, photo: Photo | None, name: str):
        kept = (*kept, read_reference(value, photo, name))
        pictures = [(draw.draw_reference(r), r.name) for r in kept]
        return kept, gr.update(value=pictures, visible=True), None, painter_value(None), None

    def forget():
        return (), gr.update(value=[], visible=False)

    reference.photo.upload(on_photo, reference.photo, on_painter, **QUIET)
    reference.photo.clear(lambda: (painter_value(None), None), None, on_painter, **QUIET)
    reference.add.click(
        keep, reference.drawing(), [reference.references, reference.kept, reference.photo, *on_painter], **QUIET
    )
    reference.clear.click(forget, None, [reference.references, reference.kept], **QUIET)


def wire_masks(reference: ReferenceParts) -> None:
    """Wire the uploaded mask: its labels as chips to pick from, and the offer to invert it."""

    @friendly
    def on_mask(path: str | None, photo: Photo | None):
        if path is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        if photo is None:
            raise ValueError("there is no reference photo for this mask yet; drop the photo first")
        file = open_mask_file(path, photo)
        choice = MaskChoice(file, tuple(label.name for label in file.labels[:1]))
        mask = choice.mask()
        several = len(file.labels) > 1
        if several:
            gr.Info(f"{file.name} holds {len(file.labels)} labels; the largest one is taken. Pick others below.")
        if message := file.message(mask):
            gr.Info(message)
        choices = [(f"{label.name} · {label.share:.1%}", label.name) for label in file.labels]
        chips = gr.update(choices=choices, value=list(choice.labels), visible=several)
        return choice, painter_value(photo, mask), chips, gr.update(visible=True)

    @friendly
    def on_labels(picked: list[str], choice: MaskChoice | None, photo: Photo | None):
        if choice is None or photo is None:
            return gr.skip(), gr.skip()
        if not picked:
            raise ValueError("no label is picked; pick at least one")
        choice = replace(choice, labels=tuple(picked))
        return choice, painter_value(photo, choice.mask())

    @friendly
    def on_invert(choice: MaskChoice | None, photo: Photo | None):
        if choice is None or photo is None:
            return gr.skip(), gr.skip()
        choice = replace(choice, inverted=not choice.inverted)
        return choice, painter_value(photo, choice.mask())

    def forget():
        return None, gr.update(choices=[], value=[], visible=False), gr.update(visible=False)

    given, shown = [reference.mask_file, reference.current], [reference.opened, reference.painter]
    reference.mask_file.upload(on_mask, given, [*shown, reference.labels, reference.invert], **QUIET)
    reference.labels.input(on_labels, [reference.labels, reference.opened, reference.current], shown, **QUIET)
    reference.invert.click(on_invert, [reference.opened, reference.current], shown, **QUIET)
    gone = [reference.opened, reference.labels, reference.invert]
    gr.on([reference.mask_file.clear, reference.photo.upload, reference.photo.clear], forget, None, gone, **QUIET)
