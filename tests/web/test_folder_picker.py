"""What a browser says it uploaded is checked before it is believed."""

from pathlib import Path, PurePosixPath

import pytest

from dinodemo.io import uploads as uploads_module
from dinodemo.io.uploads import put_into
from dinodemo.web import folder_picker
from dinodemo.web.folder_picker import read_upload


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setattr(folder_picker, "get_upload_folder", lambda: str(folder))
    return folder


def uploaded(folder: Path, name: str, content: bytes = b"photo") -> dict:
    path = folder / f"{abs(hash(name + content.decode()))}.bin"
    path.write_bytes(content)
    return {"path": str(path), "name": name}


def test_folders_are_kept(uploads, tmp_path):
    files = read_upload({"files": [uploaded(uploads, "all/cats/a.jpg"), uploaded(uploads, "all/dogs/é 犬.jpg")]})
    put_into(files, tmp_path / "kept")
    found = sorted(p.relative_to(tmp_path / "kept").as_posix() for p in (tmp_path / "kept").rglob("*.jpg"))
    assert found == ["all/cats/a.jpg", "all/dogs/é 犬.jpg"]


@pytest.mark.parametrize("name", ["../../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "..\\..\\evil.jpg"])
def test_names_never_lead_out(uploads, tmp_path, name):
    put_into(read_upload({"files": [uploaded(uploads, name)]}), tmp_path / "kept")
    (file,) = tmp_path.rglob("*.jpg")
    assert file.name == "evil.jpg" and file.is_relative_to(tmp_path / "kept")


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "/etc/passwd", "name": "a.jpg"},
        {"path": None, "name": "a.jpg"},
        "a.jpg",
        {},
        {"path": "x", "name": 3},
    ],
)
def test_files_that_were_not_uploaded_are_refused(uploads, entry):
    with pytest.raises(ValueError, match="did not upload"):
        read_upload({"files": [entry]})


def test_a_link_out_of_the_uploads_is_refused(uploads, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (uploads / "link.jpg").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError):
        read_upload({"files": [{"path": str(uploads / "link.jpg"), "name": "a.jpg"}]})


@pytest.mark.parametrize("name", ["", "..", "/", "../.."])
def test_a_file_without_a_name_is_refused(uploads, name):
    with pytest.raises(ValueError, match="did not arrive"):
        read_upload({"files": [uploaded(uploads, name)]})


def test_equal_names_of_different_photos_are_both_kept_and_the_same_photo_once(uploads, tmp_path):
    first, other = uploaded(uploads, "a.jpg"), uploaded(uploads, "a.jpg", b"other")
    for files in ([first], [other], [first]):
        put_into(read_upload({"files": files}), tmp_path / "kept")
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["a (2).jpg", "a.jpg"]


def test_many_uploads_of_one_name_are_each_read_once(uploads, tmp_path, monkeypatch):
    read, digest = [], uploads_module._digest
    monkeypatch.setattr(uploads_module, "_digest", lambda path: read.append(path) or digest(path))
    files = read_upload({"files": [uploaded(uploads, "a.jpg", f"{i // 2}".encode()) for i in range(400)]})
    put_into(files, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 200 and len(read) <= 600


def test_folders_that_differ_in_case_alone_stay_apart(uploads, tmp_path):
    put_into(
        read_upload({"files": [uploaded(uploads, "Cats/a.jpg"), uploaded(uploads, "cats/b.jpg")]}), tmp_path / "kept"
    )
    found = {p.relative_to(tmp_path / "kept").as_posix().lower() for p in (tmp_path / "kept").rglob("*.jpg")}
    assert found == {"cats/a.jpg", "cats/b.jpg"}


def test_nothing_uploaded_is_an_empty_list():
    assert read_upload(None) == read_upload({"files": []}) == []
    with pytest.raises(ValueError, match="at most"):
        read_upload({"files": [{}] * (folder_picker.MAX_FILES + 1)})


def test_a_long_name_is_cut(uploads):
    ((_, name),) = read_upload({"files": [uploaded(uploads, "x" * 500)]})
    assert name == PurePosixPath("x" * 120)


def test_names_of_great_depth_are_refused_with_a_sentence(uploads):
    with pytest.raises(ValueError, match="more than 32 folders"):
        read_upload({"files": [uploaded(uploads, "a/" * 2000 + "b.jpg")]})


def test_a_file_called_as_a_folder_is_told(uploads, tmp_path):
    for names in (["a", "a/b.jpg"], ["a/b.jpg", "a"]):
        files = read_upload({"files": [uploaded(uploads, name) for name in names]})
        with pytest.raises(ValueError, match="name of a file and of a folder"):
            put_into(files, tmp_path / names[0].replace("/", "_"))


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "a\0b", "../" * 2000])
def test_odd_names_of_server_folders_are_refused_with_a_sentence(name, tmp_path):
    from dinodemo.web.folder_picker import server_folder
    from dinodemo.web.settings import Settings

    with pytest.raises(ValueError, match="there is no folder"):
        server_folder(Settings(photos=str(tmp_path)), name)
