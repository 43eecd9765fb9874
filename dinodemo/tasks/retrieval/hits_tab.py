"""What can be done with hits: give them a label, and tell the index where their photos have moved."""

from pathlib import Path

import gradio as gr

from ...io.files import plural
from ...web.clicks import Choice
from ...web.errors import friendly
from ...web.events import LIVE, QUIET
from ...web.folder_picker import server_folder
from ...web.header import Header
from ...web.use_photo import use_photo_menu
from .draw import Search, short
from .index_store import IndexStore
from .moves import moved_folder


def offer_new_folder(indexes: IndexStore, owner: gr.Textbox, search: gr.State, hits: gr.Gallery) -> gr.State:
    """Build what shows when hits have no file any more; returns a state that changes when paths were updated."""
    note = gr.Markdown(visible=False, elem_id="moved-note")
    with gr.Row(visible=False, equal_height=True) as row:
        old = gr.Textbox(label="Folder that has moved", max_lines=1, elem_id="moved-old", min_width=200)
        new = gr.Textbox(label="Where it is now", max_lines=1, elem_id="moved-new", min_width=200)
        update = gr.Button("Update the paths", size="sm", min_width=140, elem_id="moved-update")
    updated = gr.State(0)

    @friendly
    def look(who: str, found: Search | None):
        text, folder = what_moved(indexes, who, found)
        shown = gr.update(value=text, visible=bool(text)), gr.update(visible=folder is not None)
        return *shown, *(folder or ("", ""))

    @friendly
    def on_update(who: str, found: Search | None, before: str, now: str, count: int):
        if found is None or not before.strip() or not now.strip():
            raise ValueError("name the folder that has moved, and where it is now")
        indexes.check_may_change(found.key)
        report = indexes.open(who, found.key).relocate(before.strip(), str(target_folder(indexes, now)))
        left = f"; {len(report.missing)} are not there" if report.missing else ""
        gr.Info(f"{plural(report.moved, 'photo')} at the new place{left}.")
        return count + 1

    update.click(on_update, [owner, search, old, new, updated], updated, **QUIET)
    for trigger in (hits.change, updated.change):  # captions may stay the same when paths change
        trigger(look, [owner, search], [note, row, old, new], **LIVE)
    return updated


def what_moved(indexes: IndexStore, owner: str, found: Search | None) -> tuple[str, tuple[str, str] | None]:
    """Return what to say of hits without a file, and (old, new) folder where a folder seems to have moved.

    The text is empty where every hit has its file. There is no folder for visitors who may not name one.
    """
    if found is None or not found.hits:
        return "", None
    missing = indexes.open(owner, found.key).missing([hit.sha256 for hit in found.hits])
    if not missing:
        return "", None
    allowed = may_move(indexes, found.key)
    where = missing[0] if allowed else short(missing[0])  # no folders of the server for strangers
    text = f"{len(missing)} of {plural(len(found.hits), 'hit')} no longer where the index says: {where}"
    return text, moved_folder(missing) if allowed else None


def label_hits(indexes: IndexStore, owner: gr.Textbox, search: gr.State) -> gr.State:
    """Build what makes a class of the hits; returns a state that changes when labels have changed."""
    with gr.Row(equal_height=True):
        label = gr.Textbox(
            label="Class of these hits", max_lines=1, max_length=60, elem_id="hits-label", min_width=200, scale=2
        )
        button = gr.Button("Label these hits", size="sm", elem_id="hits-label-set", min_width=140)
    changed = gr.State(0)

    @friendly
    def on_label(who: str, found: Search | None, text: str, count: int):
        if found is None or not found.hits:
            raise ValueError("there are no hits yet; choose an index and drop a photo first")
        indexes.check_may_change(found.key)
        done = indexes.open(who, found.key).label([hit.sha256 for hit in found.hits], text)
        gr.Info(f"{plural(done, 'photo')} labelled {text.strip()}; Classify takes the labels of this index.")
        return count + 1

    button.click(on_label, [owner, search, label, changed], changed, **QUIET)
    return changed


def use_hit(indexes: IndexStore, header: Header, search: gr.State, hits: gr.Gallery) -> None:
    """Build the menu that opens another tab with the hit that was clicked; hidden until one was."""
    chosen = gr.State(None)  # the hit's checksum

    @friendly
    def photo_of(who: str, found: Search | None, sha256: str | None):
        if found is None or sha256 not in [hit.sha256 for hit in found.hits]:
            raise ValueError("click a hit first")
        return indexes.open(who, found.key).photo(sha256)

    menu = use_photo_menu(
        header,
        ("attention", "segmentation", "depth"),
        photo_of,
        [header.owner, search, chosen],
        "hit-use",
        visible=False,
    )

    @friendly
    def on_hit(found: Search | None, event: Choice):
        known = found is not None and event.index < len(found.hits)
        return (found.hits[event.index].sha256 if found and known else None), gr.update(visible=known)

    hits.select(on_hit, search, [chosen, menu], **QUIET)


def may_move(indexes: IndexStore, key: str) -> bool:
    """Return whether this visitor may name folders of the server, and change the index."""
    settings = indexes.services.settings
    return bool(settings.local or settings.photos) and not (settings.public and key.startswith("shared:"))


def target_folder(indexes: IndexStore, text: str) -> Path:
    """Return the folder that was named; a visitor from elsewhere may name one that the server allows only."""
    settings = indexes.services.settings
    return Path(text.strip()).expanduser().absolute() if settings.local else server_folder(settings, text)
