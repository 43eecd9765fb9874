"""Indexes are private to the browser that made them, unless the server shares a folder."""

import os
import time
from types import SimpleNamespace

import pytest
from PIL import Image

from dinodemo.tasks.retrieval.index_store import MOST_PRIVATE, PRIVATE_AGE, IndexStore
from dinodemo.web.owner import new_owner
from dinodemo.web.services import Services
from dinodemo.web.settings import Settings


@pytest.fixture
def store(tmp_path):
    return IndexStore(Services(Settings(), None), tmp_path / "private")


def make(store, owner: str, name: str) -> str:
    key = store.new_key(owner, name)
    store.path(owner, key).mkdir(parents=True)
    return key


def test_two_people_do_not_see_each_others(store):
    anna, ben = new_owner(), new_owner()
    key = make(store, anna, "holiday")
    assert store.choices(anna) == [("holiday", "mine:holiday")] and store.choices(ben) == []
    assert store.path(anna, key) != store.path(ben, key)


KEYS = ["mine:../other", "mine:", "mine:/etc", "theirs:a", "", None, "shared:a", "mine:.photos"]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_never_leads_out_of_the_store(store, key):
    with pytest.raises(ValueError, match="choose one"):
        store.path(new_owner(), key)


@pytest.mark.parametrize("owner", ["", "..", "../../../etc/passwd-------", "a" * 21, None, 7])
def test_an_owner_is_a_secret_and_not_a_path(store, owner):
    with pytest.raises(ValueError, match="reload"):
        store.path(owner, "mine:a")


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "x" * 61, "a\nb/c"])
def test_names_that_cannot_be_are_refused(store, name):
    with pytest.raises(ValueError, match="needs a name"):
        store.new_key(new_owner(), name)


def test_a_taken_name_is_refused_and_there_is_a_limit(store):
    owner = new_owner()
    make(store, owner, "one")
    with pytest.raises(ValueError, match="already"):
        store.new_key(owner, " one ")
    for i in range(MOST_PRIVATE - 1):
        make(store, owner, f"index {i}")
    with pytest.raises(ValueError, match="delete one"):
        store.new_key(owner, "one more")


def test_a_shared_folder_is_everybodys(tmp_path):
    store = IndexStore(Services(Settings(indexes=str(tmp_path / "shared")), None), tmp_path / "private")
    key = make(store, new_owner(), "team")
    assert key == "shared:team" and store.choices(new_owner()) == [("team · shared", "shared:team")]
    assert store.path(new_owner(), key) == tmp_path / "shared" / "team"


def test_delete_takes_the_uploads_too(store):
    owner = new_owner()
    key = make(store, owner, "one")
    store.uploads(owner, key).mkdir(parents=True)
    (store.uploads(owner, key) / "a.jpg").write_bytes(b"x")
    store.delete(owner, key)
    assert store.choices(owner) == [] and not store.uploads(owner, key).exists()


def test_a_second_backbones_index_is_private_unlisted_and_goes_with_the_first(tmp_path, make_engine, make_picture):
    engines = {"dinov2": make_engine("dinov2"), "dinov3": make_engine("dinov3")}
    pool = SimpleNamespace(get=lambda name: engines.get(name) or engines["dinov2"])
    shared = IndexStore(Services(Settings(indexes=str(tmp_path / "shared")), pool), tmp_path / "private")
    picture = tmp_path / "a.png"
    Image.fromarray(make_picture()).save(picture)
    anna, ben = new_owner(), new_owner()
    key = shared.new_key(anna, "team")
    shared.open(anna, key, "dinov2").add(picture)
    twin = shared.open_comparison(anna, key, "dinov3")
    assert twin.follow(shared.open(anna, key)).added == 1
    assert (
        shared.open_comparison(anna, key, "dinov3") is twin and twin.recipe.backbone == engines["dinov3"].backbone.name
    )
    assert shared.open_comparison(ben, key, "dinov3").path != twin.path and shared.choices(ben) == [
        ("team · shared", key)
    ]
    shared.delete(anna, key)
    assert not os.path.exists(twin.path)


def test_what_nobody_used_for_long_is_swept(store):
    old, new = new_owner(), new_owner()
    for owner in (old, new):
        make(store, owner, "one")
    folder = store.path(old, "mine:one").parent
    os.utime(folder, (time.time() - PRIVATE_AGE - 10,) * 2)
    store.sweep()
    assert store.choices(old) == [] and len(store.choices(new)) == 1
