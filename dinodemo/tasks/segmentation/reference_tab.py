"""The reference side of the tab: photo, painter, label, mask files, and the references that are kept."""

from dataclasses import dataclass, replace

import gradio as gr

from ...io.images import Photo
from ...web.components import DROP_HEIGHT, option_control, photo_input
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE, LIVE, QUIET
from ...web.header import Header
from ...web.painter import is_painted, mask_painter, outline_layer, outline_value, painter_value
from ...web.services import Services
from . import draw
from .grow import THIN, Grown
from .masks import open_mask_file
from .reference import ReferenceSegmenter
from .references import DEFAULT_NAME, grown, object_of
from .search_tab import MaskChoice, read_reference


@dataclass(frozen=True)
class ReferenceParts:
    """The components of the reference side."""

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
    exact: gr.Checkbox
    outline: gr.HTML
    hint: gr.Markdown

    def drawing(self) -> list:
        """Return what `gather` is asked with."""
        return [self.references, self.painter, self.current, self.name, self.exact, self.opened]


def reference_parts() -> ReferenceParts:
    """Make the components of the reference side."""
    photo = photo_input("1. Reference photo", "seg-reference", height=DROP_HEIGHT)
    painter = mask_painter("seg-painter")
    outline = outline_layer("seg-outline", "seg-painter")
    hint = gr.Markdown(elem_id="seg-paint-status")
    exact = option_control(draw.EXACT, elem_id="seg-exact")
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
        exact=exact,
        outline=outline,
        hint=hint,
    )


def wire_reference(services: Services, header: Header, reference: ReferenceParts) -> None:
    """Wire the photo on the painter, the live outline of the object, and the references that are kept."""
    on_painter = [reference.painter, reference.current]
    network = [header.backbone, header.resolution]

    @friendly
    def on_photo(photo: Photo | None):
        return painter_value(photo), photo, outline_value(None), ""

    @friendly
    def on_paint(value: dict, photo: Photo | None, exact: bool, backbone: str, resolution: float):
        if photo is None or not is_painted(value):
            return outline_value(None), ""
        try:
            given = read_reference(value, photo, "", exact=False)
        except ValueError:  # only excluded, or cleared: nothing to show yet
            return outline_value(None), ""
        segmenter = ReferenceSegmenter(services.pool.get(backbone), resolution=int(resolution))
        found = object_of(segmenter, given)
        return outline_value(None if exact else found.mask), paint_message(found, exact)

    @friendly
    def keep(kept, value, photo, name, exact, opened, backbone: str, resolution: float):
        given = read_reference(value, photo, name, exact, opened)
        segmenter = ReferenceSegmenter(services.pool.get(backbone), resolution=int(resolution))
        kept = (*kept, grown(segmenter, given))
        pictures = [(draw.draw_reference(r), r.name) for r in kept]
        return kept, gr.update(value=pictures, visible=True), None, painter_value(None), None, outline_value(None), ""

    def forget():
        return (), gr.update(value=[], visible=False)

    cleared = [*on_painter, reference.outline, reference.hint]
    reference.photo.upload(lambda photo: (*on_photo(photo), photo), reference.photo, [*cleared, header.photo], **QUIET)
    reference.photo.clear(lambda: (painter_value(None), None, outline_value(None), ""), None, cleared, **QUIET)
    painted = [*on_painter, reference.exact, *network]
    gr.on(
        [reference.painter.change, reference.exact.input],
        on_paint,
        painted,
        [reference.outline, reference.hint],
        **LIVE,
        **ENGINE_QUEUE,
    )
    filled = [reference.references, reference.kept, reference.photo, *cleared]
    reference.add.click(keep, [*reference.drawing(), *network], filled, **QUIET, **ENGINE_QUEUE)
    reference.clear.click(forget, None, [reference.references, reference.kept], **QUIET)


def paint_message(found: Grown, exact: bool) -> str:
    """Return a line on the object that paint means, and a warning where exact paint is thin against it."""
    if exact:
        if found.share < THIN:
            return (
                f"**Your paint covers only {found.share:.0%} of the object it lies on.** Paint it fully, or switch off "
                "*Use exactly what I painted*."
            )
        return "Your paint is taken as it is."
    return (
        f"The yellow outline is the object: {found.mask.mean():.1%} of the photo. Correct it with more strokes or "
        "**Exclude**."
    )


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
