"""An index follows its photos: moved, changed and renamed files; with a tiny random network."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import load_image
from dinodemo.tasks.retrieval import ImageIndex, adding
from dinodemo.tasks.retrieval.moves import moved_folder

SIDE = 70


@pytest.fixture
def write(make_picture):
    def write(path, seed: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_picture(seed=seed)).save(path)
        return path

    return write


@pytest.fixture
def folder(tmp_path, write):
    for i, name in enumerate(("cat/0.png", "cat/1.png", "dog/0.png", "loose.png")):
        write(tmp_path / "old" / name, i)
    return tmp_path / "old"


@pytest.fixture
def index(tmp_path, engine, folder):
    index = ImageIndex(tmp_path / "index", engine, SIDE)
    index.add(folder)
    return index


@pytest.fixture
def no_network(monkeypatch):
    """Fail when the network is asked."""

    def refuse(*_, **__):
        raise AssertionError("the network ran")
        yield

    return lambda: monkeypatch.setattr(adding, "describe", lambda engine, photos, *_: (refuse() for _ in photos))


def paths(index, root) -> dict[str, str | None]:
    return {os.path.relpath(e.path, root): e.label for e in index.gallery()[0]}


def test_a_moved_folder_is_followed_without_the_network(index, folder, tmp_path, no_network):
    before = dict(zip([e.sha256 for e in index.gallery()[0]], index.gallery()[1], strict=True))
    folder.rename(tmp_path / "new")
    no_network()
    report = index.add(tmp_path / "new")
    assert (report.added, report.skipped, report.moved, report.replaced) == (0, 4, 4, 0)
    expected = {"cat/0.png": "cat", "cat/1.png": "cat", "dog/0.png": "dog", "loose.png": None}
    assert paths(index, tmp_path / "new") == expected
    after = dict(zip([e.sha256 for e in index.gallery()[0]], index.gallery()[1], strict=True))
    assert before.keys() == after.keys() and all(np.array_equal(before[k], after[k]) for k in before)
    (hit,) = index.search(tmp_path / "new" / "cat" / "1.png", k=1)
    assert (index.photo(hit.sha256).rgb == load_image(tmp_path / "new" / "cat" / "1.png")).all()
    assert index.add(tmp_path / "new").moved == 0


def test_what_has_moved_is_not_read_a_second_time(index, folder, tmp_path, monkeypatch):
    folder.rename(tmp_path / "new")
    index.add(tmp_path / "new")
    monkeypatch.setattr(adding.hashlib, "sha256", lambda data: pytest.fail("a file was read"))
    assert index.add(tmp_path / "new").skipped == 4


def test_a_copy_beside_its_original_changes_nothing(index, folder, tmp_path):
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "0.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    report = index.add(tmp_path / "copies")
    assert (report.skipped, report.moved) == (1, 0) and "cat/0.png" in paths(index, folder)


def test_a_photo_put_into_another_class_folder_changes_its_label(index, folder):
    (folder / "cat" / "1.png").rename(folder / "dog" / "9.png")
    (folder / "dog" / "0.png").rename(folder / "0.png")
    assert index.add(folder).moved == 2
    assert paths(index, folder) == {"cat/0.png": "cat", "dog/9.png": "dog", "0.png": None, "loose.png": None}


def test_a_class_folder_that_is_added_by_itself_keeps_its_label(index, folder, tmp_path):
    (folder / "cat").rename(tmp_path / "cat")
    assert index.add(tmp_path / "cat").moved == 2
    assert [e.label for e in index.gallery()[0]].count("cat") == 2


def test_a_changed_photo_replaces_its_row(index, folder, write):
    old = load_image(folder / "cat" / "0.png")
    write(folder / "cat" / "0.png", 50)
    (hit,) = index.search(old, k=1)
    with pytest.raises(ValueError, match=r"cat/0\.png has changed since it was added"):
        index.photo(hit.sha256)
    report = index.add(folder)
    assert (report.added, report.skipped, report.replaced) == (1, 3, 1)
    assert [e.path for e in index.gallery()[0]].count((folder / "cat" / "0.png").as_posix()) == 1
    (hit,) = index.search(folder / "cat" / "0.png", k=1)
    assert (index.photo(hit.sha256).rgb == load_image(folder / "cat" / "0.png")).all()


def test_a_photo_that_became_a_copy_of_another_loses_its_row(index, folder):
    (folder / "loose.png").write_bytes((folder / "dog" / "0.png").read_bytes())
    report = index.add(folder)
    assert (report.added, report.replaced) == (0, 1) and set(paths(index, folder)) == {
        "cat/0.png",
        "cat/1.png",
        "dog/0.png",
    }


def test_two_photos_that_changed_places(index, folder, tmp_path, no_network):
    a, b = folder / "cat" / "0.png", folder / "dog" / "0.png"
    a.rename(tmp_path / "between.png")
    b.rename(a)
    (tmp_path / "between.png").rename(b)
    no_network()
    report = index.add(folder)
    assert (report.moved, report.replaced, len(index)) == (2, 0, 4)
    for entry in index.gallery()[0]:
        index.photo(entry.sha256)  # raises where the content is another


def test_an_index_with_two_rows_of_one_path_is_mended(index, folder, write):
    write(folder / "loose.png", 60)
    index.add(folder)
    old = index._store.open().search().where("path LIKE '%loose.png'").limit(None).to_arrow()
    row = old.set_column(0, old.schema.field(0), [["0" * 64]])  # as version 0.1 left it
    index._store.open().add(row)
    assert len(index) == 5
    assert index.add(folder).replaced == 1 and len(index) == 4


def test_members_of_a_zip_that_was_renamed_are_followed(engine, folder, tmp_path, no_network):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in (folder / "cat").iterdir():
            archive.write(path, f"cat/{path.name}")
    index = ImageIndex(tmp_path / "zipped", engine, SIDE)
    index.add(tmp_path / "a.zip")
    (tmp_path / "a.zip").rename(tmp_path / "b.zip")
    no_network()
    assert index.add(tmp_path / "b.zip").moved == 2
    assert set(paths(index, tmp_path)) == {"b.zip/cat/0.png", "b.zip/cat/1.png"}


def test_uploads_of_one_name_are_kept_side_by_side(engine, folder, tmp_path):
    index = ImageIndex(tmp_path / "uploads", engine, SIDE)
    for name in ("cat/0.png", "dog/0.png"):
        assert index.add(("image.jpg", (folder / name).read_bytes())).replaced == 0
    assert len(index) == 2 and index.add(("other.jpg", (folder / "dog" / "0.png").read_bytes())).moved == 0


def test_relocating_changes_paths_and_names_what_is_not_there(index, folder, tmp_path, write):
    folder.rename(tmp_path / "new")
    (tmp_path / "new" / "cat" / "1.png").unlink()
    report = index.relocate(str(folder), str(tmp_path / "new"))
    assert (report.moved, report.missing, report.taken) == (4, [f"{tmp_path}/new/cat/1.png"], [])
    assert "dog/0.png" in paths(index, tmp_path / "new")
    with pytest.raises(ValueError, match=f"holds no photo under {folder}; its photos lie in {tmp_path}/new"):
        index.relocate(str(folder), str(tmp_path / "other"))
    write(folder / "cat" / "0.png", 70)
    index.add(folder)
    report = index.relocate(str(tmp_path / "new"), str(folder))  # one of them is another photo there
    assert report.taken == [f"{tmp_path}/new/cat/0.png"] and report.moved == 3
    assert len({e.path for e in index.gallery()[0]}) == len(index) == 5


def test_hits_without_a_file_are_found_and_so_is_the_folder(index, folder, tmp_path):
    digests = [e.sha256 for e in index.gallery()[0]]
    assert index.missing(digests) == []
    (folder / "loose.png").unlink()
    missing = index.missing(digests)
    assert missing == [f"{folder}/loose.png"] and moved_folder(missing) is None
    folder.rename(tmp_path / "new")
    missing = index.missing(digests)
    assert len(missing) == 4 and moved_folder(sorted(missing)) == (str(folder), str(tmp_path / "new"))
    (tmp_path / "new").rename(tmp_path.parent / f"{tmp_path.name}-far")
    assert moved_folder(missing) == (str(folder), "")


def test_a_rebuild_names_changed_photos_and_ends(index, folder, write, make_engine):
    write(folder / "loose.png", 80)
    report = index.rebuild(make_engine("dinov3"))
    assert report.added == 3 and ["changed since" in reason for _, reason in report.problems] == [True]


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
@pytest.mark.parametrize("place", ["file", "folder", "root"])
def test_names_that_are_not_utf8_are_left_out_with_a_reason(engine, tmp_path, folder, place):
    bad = os.fsdecode(b"caf\xe9")
    root = tmp_path / (bad if place == "root" else "photos")
    target = root / (bad if place == "folder" else "in") / (f"{bad}.png" if place == "file" else "1.png")
    try:
        target.parent.mkdir(parents=True)
        target.write_bytes((folder / "loose.png").read_bytes())
        (root / "0.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    index = ImageIndex(tmp_path / "index2", engine, SIDE)
    for _ in range(2):
        report = index.add(root)
        assert all("not UTF-8" in reason and name.isprintable() for name, reason in report.problems)
    assert len(index) == (0 if place == "root" else 1) and len(report.problems) == 1
