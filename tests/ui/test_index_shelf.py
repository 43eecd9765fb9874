"""Indexes are private to the browser that made them, unless the server shares a folder."""

import os
import time

import pytest

from dinodemo.settings import Settings
from dinodemo.ui.index_shelf import MOST_PRIVATE, PRIVATE_AGE, IndexShelf
from dinodemo.ui.memory import new_owner
from dinodemo.ui.services import Services


@pytest.fixture
def shelf(tmp_path):
    return IndexShelf(Services(Settings(), None), tmp_path / "private")


def make(shelf, owner: str, name: str) -> str:
    key = shelf.new_key(owner, name)
    shelf.path(owner, key).mkdir(parents=True)
    return key


def test_two_people_do_not_see_each_others(shelf):
    anna, ben = new_owner(), new_owner()
    key = make(shelf, anna, "holiday")
    assert shelf.choices(anna) == [("holiday", "mine:holiday")] and shelf.choices(ben) == []
    assert shelf.path(anna, key) != shelf.path(ben, key)


KEYS = ["mine:../other", "mine:", "mine:/etc", "theirs:a", "", None, "shared:a", "mine:.photos"]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_never_leads_out_of_the_shelf(shelf, key):
    with pytest.raises(ValueError, match="choose one"):
        shelf.path(new_owner(), key)


@pytest.mark.parametrize("owner", ["", "..", "../../../etc/passwd-------", "a" * 21, None, 7])
def test_an_owner_is_a_secret_and_not_a_path(shelf, owner):
    with pytest.raises(ValueError, match="reload"):
        shelf.path(owner, "mine:a")


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "x" * 61, "a\nb/c"])
def test_names_that_cannot_be_are_refused(shelf, name):
    with pytest.raises(ValueError, match="needs a name"):
        shelf.new_key(new_owner(), name)


def test_a_taken_name_is_refused_and_there_is_a_limit(shelf):
    owner = new_owner()
    make(shelf, owner, "one")
    with pytest.raises(ValueError, match="already"):
        shelf.new_key(owner, " one ")
    for i in range(MOST_PRIVATE - 1):
        make(shelf, owner, f"index {i}")
    with pytest.raises(ValueError, match="delete one"):
        shelf.new_key(owner, "one more")


def test_a_shared_folder_is_everybodys(tmp_path):
    shelf = IndexShelf(Services(Settings(indexes=str(tmp_path / "shared")), None), tmp_path / "private")
    key = make(shelf, new_owner(), "team")
    assert key == "shared:team" and shelf.choices(new_owner()) == [("team · shared", "shared:team")]
    assert shelf.path(new_owner(), key) == tmp_path / "shared" / "team"


def test_delete_takes_the_uploads_too(shelf):
    owner = new_owner()
    key = make(shelf, owner, "one")
    shelf.uploads(owner, key).mkdir(parents=True)
    (shelf.uploads(owner, key) / "a.jpg").write_bytes(b"x")
    shelf.delete(owner, key)
    assert shelf.choices(owner) == [] and not shelf.uploads(owner, key).exists()


def test_what_nobody_used_for_long_is_swept(shelf):
    old, new = new_owner(), new_owner()
    for owner in (old, new):
        make(shelf, owner, "one")
    folder = shelf.path(old, "mine:one").parent
    os.utime(folder, (time.time() - PRIVATE_AGE - 10,) * 2)
    shelf.sweep()
    assert shelf.choices(old) == [] and len(shelf.choices(new)) == 1
