"""Fine-tune's photos: chosen or named, unpacked until somebody stops it, shown, removed."""

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from ...io.uploads import Uploaded, photos_in
from ...web.background import Work
from ...web.components import problem_list
from ...web.errors import friendly
from ...web.events import QUIET
from ...web.folder_picker import folder_picker, read_upload, server_folder, server_folder_box
from ...web.header import Header
from ...web.memory import WITH_KEY
from ...web.services import Services
from . import draw
from .photo_store import PhotoStore

NO_PHOTOS = "No photos yet."


@dataclass(frozen=True)
class PhotoParts:
    """The components of the photos, and the person's running work."""

    picker: gr.HTML
    folder: gr.Textbox
    stop: gr.Button
    about: gr.Markdown
    thumbs: gr.Gallery
    forget: gr.Button
    token: gr.State  # of the uploaded photos
    work: gr.State


def photo_parts(services: Services) -> PhotoParts:
    """Make the components, one under another."""
    picker = folder_picker("tune-picker")
    folder = server_folder_box(services.settings, "tune-folder")
    stop = gr.Button("Stop", variant="stop", size="sm", visible=False, elem_id="tune-stop")
    about = gr.Markdown(NO_PHOTOS, elem_id="tune-about")
    thumbs = gr.Gallery(
        show_label=False,
        columns=5,
        height="auto",
        buttons=[],
        allow_preview=False,
        format="jpeg",
        object_fit="cover",
        elem_id="tune-thumbs",
        elem_classes="examples",
    )
    forget = gr.Button("Remove photos", size="sm", elem_id="tune-forget")
    return PhotoParts(picker, folder, stop, about, thumbs, forget, gr.State(None), gr.State(None))


def wire_photos(
    services: Services, header: Header, page: gr.Blocks, store: PhotoStore, parts: PhotoParts, selected: Callable
) -> list:
    """Wire adding and removing photos; returns the events that change the set."""

    @friendly
    def on_load(owner: str, _: None):
        token = store.current(owner)
        return token, *_shown(store, owner, token)

    @friendly
    def on_upload(owner: str, token: str | None, value: dict | None):
        yield from _add(store, owner, token, read_upload(value))

    @friendly
    def on_folder(owner: str, token: str | None, text: str):
        yield from _add(store, owner, token, _server_photos(services, text))

    @friendly
    def on_failure(owner: str, token: str | None):
        token = token or store.current(owner)  # what was written until then stays
        return None, token, *_shown(store, owner, token), gr.update(visible=False)

    @friendly
    def on_forget(owner: str, token: str | None):
        if token:
            store.put_away(owner, token)
        return None, *_shown(store, owner, None)

    @friendly
    def on_selected(owner: str, token: str | None):
        return _shown(store, owner, token)

    known, shown = [header.owner, parts.token], [parts.about, parts.thumbs]
    photos = [parts.token, *shown]
    added = [parts.work, *photos, parts.stop]
    adding = [
        parts.picker.submit(on_upload, [*known, parts.picker], added, **QUIET),
        parts.folder.submit(on_folder, [*known, parts.folder], added, **QUIET),
    ]
    for event in adding:
        event.failure(on_failure, known, added, **QUIET)
    parts.stop.click(lambda job: job and job.stop(), parts.work, None, **QUIET)
    return [
        page.load(on_load, known, photos, js=WITH_KEY, **QUIET),
        *adding,
        parts.forget.click(on_forget, known, photos, **QUIET),
        selected(on_selected, known, shown, **QUIET),
    ]


def _add(store: PhotoStore, owner: str, token: str | None, uploaded: Uploaded):
    """Yield the page's updates while photos are added: work, token, text, thumbnails, the button that stops it."""
    token = token or store.new()
    job = Work(lambda _: store.add(owner, token, uploaded, job.asked_to_stop, job.report))
    yield job, gr.skip(), "Reading the list of files", gr.skip(), gr.update(visible=True)
    for share, message in job.steps():
        yield gr.skip(), gr.skip(), f"{share:.0%} · {message}", gr.skip(), gr.skip()
    about, thumbs = _shown(store, owner, token)
    yield None, token, about + problem_list(job.result), thumbs, gr.update(visible=False)


def _server_photos(services: Services, text: str) -> Uploaded:
    """Return the photos of a folder of the server; raises ValueError when there are none or too many."""
    found = photos_in(server_folder(services.settings, text))
    if not found:
        raise ValueError(f"there are no photos in {text.strip()!r}; name another folder")
    if len(found) > services.settings.run_photos:
        raise ValueError(f"{text.strip()!r} holds {len(found)} photos; {services.settings.run_photos} are the most")
    return found


def _shown(store: PhotoStore, owner: str, token: str | None) -> tuple[str, list]:
    if not token:
        return NO_PHOTOS, []
    photos = store.describe(owner, token)
    classes = (
        f", {len(photos.classes)} class folders: k-NN will judge the result"
        if photos.classes
        else (", no class folders: the result is judged by whether a crop of a photo finds its photo")
    )
    return f"**{len(photos.paths)} photos**, {photos.size / 1e6:.1f} MB{classes}.", draw.thumbnails(list(photos.paths))
