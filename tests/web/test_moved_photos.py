"""What the Retrieval tab says of hits whose photos have moved, and to whom it offers the new folder."""

from types import SimpleNamespace

import pytest
from PIL import Image

from dinodemo.tasks.retrieval import draw
from dinodemo.tasks.retrieval.hits_tab import target_folder, what_moved
from dinodemo.tasks.retrieval.index_store import IndexStore
from dinodemo.web.owner import new_owner
from dinodemo.web.services import Services
from dinodemo.web.settings import Settings


@pytest.fixture
def moved(tmp_path, engine, make_picture):
    """Index photos, move them, and search: for a server with the given settings."""

    def move(**settings):
        (tmp_path / "old").mkdir()
        for i in range(3):
            Image.fromarray(make_picture(seed=i)).save(tmp_path / "old" / f"{i}.png")
        pool = SimpleNamespace(get=lambda name: engine)
        indexes = IndexStore(
            Services(Settings(indexes=str(tmp_path / "shared"), **settings), pool), tmp_path / "private"
        )
        owner, key = new_owner(), "shared:team"
        index = indexes.open(owner, key, "tiny")
        index.add(tmp_path / "old")
        query = index.photo(index.gallery()[0][0].sha256)
        assert what_moved(indexes, owner, draw.find(index, key, query, None, 3, [], "", False)) == ("", None)
        (tmp_path / "old").rename(tmp_path / "new")
        return indexes, owner, draw.find(index, key, query, None, 3, [], "", False)

    return move


def test_the_owner_is_offered_the_folder_and_hits_open_again(moved, tmp_path):
    indexes, owner, found = moved()
    text, folder = what_moved(indexes, owner, found)
    assert "3 of 3 hits no longer where the index says" in text
    assert folder == (str(tmp_path / "old"), str(tmp_path / "new"))
    index = indexes.open(owner, found.key)
    assert index.relocate(folder[0], str(target_folder(indexes, folder[1]))).moved == 3
    assert what_moved(indexes, owner, found) == ("", None) and index.photo(found.hits[0].sha256).size


def test_strangers_see_no_folders_of_the_server(moved, tmp_path):
    indexes, owner, found = moved(public=True)
    text, folder = what_moved(indexes, owner, found)
    assert "3 of 3 hits" in text and str(tmp_path) not in text and folder is None
    with pytest.raises(ValueError, match="takes no folders by name"):
        target_folder(indexes, "/etc")


def test_without_hits_nothing_is_said(moved):
    indexes, owner, _ = moved()
    assert what_moved(indexes, owner, None) == ("", None)
