"""What a server removes by its age, on a machine whose clock is set: nothing that lives."""

import os
from types import SimpleNamespace

import gradio as gr
import pytest
from clocks import YEAR
from gradio import route_utils, state_holder
from test_tune import uploaded

from dinodemo.tasks.retrieval.index_store import PRIVATE_AGE, IndexStore
from dinodemo.web import components
from dinodemo.web.gradio_clock import steady_gradio
from dinodemo.web.owner import new_owner

JUMPS = pytest.mark.parametrize("jump", [YEAR, -YEAR])


def date(path, clocks) -> None:
    """Date a file or folder as the clock stands."""
    os.utime(path, (clocks.wall(),) * 2)


@pytest.fixture
def steady(monkeypatch):
    """Let Gradio heed the clock during one test."""
    monkeypatch.setattr(state_holder, "datetime", state_holder.datetime)
    monkeypatch.setattr(route_utils, "delete_files_created_by_app", route_utils.delete_files_created_by_app)
    steady_gradio()


@JUMPS
def test_photos_of_visitors_stay(store, runs, tmp_path, clocks, jump):
    owner, tokens = new_owner(), []
    for by in (0.0, jump, -jump):
        clocks.set(by)
        tokens.append(store.new())
        store.add(owner, tokens[-1], uploaded(tmp_path, ["a.png"]))
        date(store.folder(owner, tokens[-1]), clocks)
        store.sweep_all()
    assert all(store.folder(owner, token).is_dir() for token in tokens)
    clocks.let_pass((runs.limits.age_days + 1) * 86400)
    store.sweep_all()
    assert not any(store.folder(owner, token).is_dir() for token in tokens)


def test_photos_that_were_added_last_are_the_current_ones_whatever_the_clock_said_before(store, tmp_path):
    owner, first, second = new_owner(), store.new(), store.new()
    store.add(owner, first, uploaded(tmp_path, ["a.png"]))
    ahead = store.folder(owner, first).stat().st_mtime + YEAR
    os.utime(store.folder(owner, first), (ahead, ahead))
    store.add(owner, second, uploaded(tmp_path, ["a.png", "b.png"]))
    assert store.current(owner) == second
    photos = store.describe(owner, second)
    part = store.select(owner, photos, {photos.paths[0]})
    assert store.current(owner) == part.token


@JUMPS
def test_indexes_and_downloads_of_visitors_stay(tmp_path, clocks, jump, monkeypatch):
    monkeypatch.setattr(components.tempfile, "gettempdir", lambda: str(tmp_path))
    indexes = IndexStore(SimpleNamespace(settings=SimpleNamespace(indexes=None)), tmp_path / "indexes")
    made = []
    for number, by in enumerate((0.0, jump, -jump)):
        clocks.set(by)
        made += [tmp_path / "indexes" / str(number), components.passing_folder()]
        made[-2].mkdir(parents=True)
        for folder in made[-2:]:
            date(folder, clocks)
        indexes.sweep()
        components.passing_folder()
    assert all(folder.is_dir() for folder in made)
    clocks.let_pass(PRIVATE_AGE + 100)
    indexes.sweep()
    components.passing_folder()
    assert not any(folder.exists() for folder in made)


@JUMPS
def test_a_pages_state_stays_for_its_time(steady, clocks, jump):
    with gr.Blocks() as page:
        kept = gr.State(None, time_to_live=100)
    holder = state_holder.StateHolder()
    holder.set_blocks(page)
    for by in (jump, -jump):
        holder["page"][kept._id] = "a photo"
        clocks.set(by)
        holder.delete_all_expired_state()
        assert holder["page"].state_data[kept._id] == "a photo"
    clocks.let_pass(101)
    holder.delete_all_expired_state()
    assert kept._id not in holder["page"].state_data


@JUMPS
def test_uploads_stay_for_their_time(steady, tmp_path, clocks, jump):
    files = {str(tmp_path / name) for name in ("a.png", "b.png", "example.png", "gone.png")}
    for file in sorted(files)[:3]:
        (tmp_path / file).write_bytes(b"x")
    page = SimpleNamespace(
        blocks={1: SimpleNamespace(keep_in_cache={str(tmp_path / "example.png")})}, temp_file_sets=[set(files)]
    )
    for by in (jump, -jump):
        clocks.set(by)
        route_utils.delete_files_created_by_app(page, 3600)
        assert (tmp_path / "a.png").exists() and (tmp_path / "b.png").exists()
    clocks.let_pass(3601)
    route_utils.delete_files_created_by_app(page, 3600)
    assert [path.name for path in tmp_path.iterdir()] == ["example.png"]


def test_all_uploads_go_when_the_server_ends(steady, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    page = SimpleNamespace(blocks={}, temp_file_sets=[{str(tmp_path / "a.png")}])
    route_utils.delete_files_created_by_app(page, age=None)
    assert not list(tmp_path.iterdir()) and page.temp_file_sets == [set()]
