"""Retrieval's sub-tab Build: make an index, add photos, take some out, rename, delete, make it anew."""

from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from ...io.files import plural
from ...io.uploads import put_into
from ...web.background import Work
from ...web.components import problem_list
from ...web.errors import friendly
from ...web.events import QUIET, runs_network
from ...web.folder_picker import folder_picker, read_upload, server_folder, server_folder_box
from ...web.header import Header
from ...web.services import Services
from . import draw
from .index_store import IndexStore

HELP = (
    "Photos in folders keep the folder's name as their label. Photos that are in the index already are skipped, so "
    "adding the same folder again goes on where it stopped."
)


@dataclass(frozen=True)
class Parts:
    """The sub-tab's components and the person's running work."""

    name: gr.Textbox
    picker: gr.HTML
    folder: gr.Textbox
    add: gr.Button
    rebuild: gr.Button
    stop: gr.Button
    status: gr.Markdown
    remove_text: gr.Textbox
    remove: gr.Button
    sure: gr.Checkbox
    delete: gr.Button
    changed: gr.State
    work: gr.State


def build_building(indexes: IndexStore, header: Header, index: gr.Dropdown, services: Services) -> gr.State:
    """Build the sub-tab; returns a state that changes whenever an index has changed."""
    parts = _parts(services)
    _wire_adding(services, indexes, header, index, parts)
    _wire_changing(indexes, header.owner, index, parts)
    return parts.changed


def _parts(services: Services) -> Parts:
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            name = gr.Textbox(
                label="Name of a new index",
                placeholder="holiday 2026",
                max_length=60,
                max_lines=1,
                info="Leave empty to add to the chosen index.",
                elem_id="build-name",
            )
            picker = folder_picker("build-picker")
            folder = server_folder_box(services.settings, "build-folder")
            gr.Markdown(HELP)
            with gr.Row():
                add = gr.Button("Add to the index", variant="primary", elem_id="build-add")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="build-stop")
            status = gr.Markdown(elem_id="build-status")
        with gr.Column(scale=1, min_width=320):
            with gr.Accordion("Remove photos", open=True):
                text = gr.Textbox(
                    label="Path, folder or sha256",
                    max_lines=1,
                    elem_id="build-remove-text",
                    info="As shown in the results. Files are not deleted.",
                )
                remove = gr.Button("Take out", size="sm", elem_id="build-remove")
            with gr.Accordion("Rebuild with the current model", open=True):
                gr.Markdown("An index holds one backbone's vectors. The old one serves until the new one is ready.")
                rebuild = gr.Button("Rebuild", size="sm", elem_id="build-rebuild")
            with gr.Accordion("Delete this index", open=True):
                sure = gr.Checkbox(False, label="Yes, delete it with the photos uploaded for it", elem_id="build-sure")
                delete = gr.Button("Delete", size="sm", variant="stop", elem_id="build-delete")
    changed, work = gr.State(0), gr.State(None)
    return Parts(name, picker, folder, add, rebuild, stop, status, text, remove, sure, delete, changed, work)


def _wire_adding(services: Services, indexes: IndexStore, header: Header, index, parts: Parts) -> None:
    @friendly
    def on_add(owner: str, key: str | None, name: str, value: dict | None, folder: str, backbone: str, count: int):
        uploaded = read_upload(value)
        if not uploaded and not (folder or "").strip():
            raise ValueError("there are no photos yet; choose a folder, photos or a zip first")
        key = indexes.new_key(owner, name) if (name or "").strip() else key
        indexes.check_may_change(key)
        source = indexes.uploads(owner, key)
        if uploaded:
            put_into(uploaded, source)
        sources = [source] if source.is_dir() else []
        if (folder or "").strip():
            sources.append(server_folder(services.settings, folder))
        target = indexes.open(owner, key, backbone)
        job = Work(lambda _: _added(target, sources, job.report, job.asked_to_stop))
        yield from _follow(indexes, owner, key, job, count)

    @friendly
    def on_rebuild(owner: str, key: str | None, backbone: str, count: int):
        indexes.check_may_change(key)
        target = indexes.open(owner, key)
        engine = indexes.services.pool.get(backbone)
        job = Work(lambda _: target.rebuild(engine, progress=_with_message(job.report), stopped=job.asked_to_stop))
        yield from _follow(indexes, owner, key, job, count)

    outputs = [parts.work, index, parts.status, parts.stop, parts.changed, parts.name, parts.picker]
    run = runs_network(parts.status)
    given = [header.owner, index, parts.name, parts.picker, parts.folder, header.backbone, parts.changed]
    events = [
        parts.add.click(on_add, given, outputs, **run),
        parts.rebuild.click(on_rebuild, [header.owner, index, header.backbone, parts.changed], outputs, **run),
    ]
    for event in events:
        event.failure(lambda: gr.update(visible=False), None, parts.stop, **QUIET)
    parts.picker.submit(
        lambda value: f"{len(read_upload(value))} files are here; press **Add to the index**.",
        parts.picker,
        parts.status,
        **QUIET,
    )
    parts.stop.click(_stop, parts.work, parts.stop, **QUIET)


def _wire_changing(indexes: IndexStore, owner, index, parts: Parts) -> None:
    @friendly
    def on_remove(owner: str, key: str | None, text: str, count: int):
        if not text.strip():
            raise ValueError("name a path, a folder or a sha256 to take out")
        indexes.check_may_change(key)
        gone = indexes.open(owner, key).remove([text.strip()])
        return f"{plural(gone, 'photo')} removed.", "", count + 1

    @friendly
    def on_delete(owner: str, key: str | None, sure: bool, count: int):
        if not sure:
            raise ValueError("tick the box first: a deleted index cannot be brought back")
        indexes.delete(owner, key)
        rows = indexes.choices(owner)
        return gr.update(choices=rows, value=rows[0][1] if rows else None), False, "Deleted.", count + 1

    parts.remove.click(
        on_remove,
        [owner, index, parts.remove_text, parts.changed],
        [parts.status, parts.remove_text, parts.changed],
        **QUIET,
    )
    parts.delete.click(
        on_delete, [owner, index, parts.sure, parts.changed], [index, parts.sure, parts.status, parts.changed], **QUIET
    )


def _follow(indexes: IndexStore, owner: str, key: str | None, job: Work, count: int):
    """Yield the page's updates while an index is filled, and the report at the end."""
    yield job, gr.skip(), "Reading the list of files", gr.update(visible=True), gr.skip(), gr.skip(), gr.skip()
    for share, message in job.steps():
        yield gr.skip(), gr.skip(), f"{share:.0%} · {message}", *[gr.skip()] * 4
    report = job.result
    rows = indexes.choices(owner)
    known = [key for _, key in rows]
    chosen = gr.update(choices=rows, value=key if key in known else None)
    yield None, chosen, _message(report), gr.update(visible=False), count + 1, "", None


def _message(report) -> str:
    start = "Stopped; what was added is there for good. " if report.stopped else ""
    problems = [(draw.short(file), reason) for file, reason in report.problems]
    return f"{start}**{report.sentence()}.**" + problem_list(problems)


def _added(index, sources: list[Path], progress, stopped):
    return index.add(sources, progress=_with_message(progress), stopped=stopped)


def _with_message(progress):
    """Return what an index calls as progress(done, total)."""
    return lambda done, total: progress(done, total, f"{done} of {total} photos")


def _stop(job: Work | None):
    if job is not None:
        job.stop()
    return gr.update(visible=False)
