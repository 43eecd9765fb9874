"""Uploaded zips are hostile until shown otherwise."""

import stat
import zipfile
from pathlib import PurePosixPath

import hostile
import pytest

from dinodemo.io.zips import Limits
from dinodemo.tasks.classify import apply_tab, tab
from dinodemo.tasks.finetune import photo_store
from dinodemo.tasks.finetune.photo_store import unpack


def pack(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_photos_keep_their_folders(tmp_path):
    path = pack(
        tmp_path / "a.zip",
        [
            ("cats/1.jpg", b"1"),
            ("cats/deep/2.PNG", b"2"),
            ("é 犬/3.webp", b"3"),
            ("__MACOSX/._1.jpg", b"x"),
            (".hidden.jpg", b"x"),
            ("empty/", b""),
        ],
    )
    assert unpack(path, tmp_path / "out") == []
    assert files(tmp_path / "out") == ["cats/1.jpg", "cats/deep/2.PNG", "é 犬/3.webp"]


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "a/../../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "../x/evil.jpg"]
)
def test_nothing_is_written_outside(tmp_path, name):
    problems = unpack(pack(tmp_path / "a.zip", [(name, b"x"), ("ok.jpg", b"y")]), tmp_path / "out" / "deep")
    assert len(problems) == 1 and "leads out" in problems[0][1]
    assert files(tmp_path) == ["a.zip", "out/deep/ok.jpg"]


def test_links_archives_and_other_files_are_told(tmp_path):
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    inner = pack(tmp_path / "inner.zip", [("deep.jpg", b"x")]).read_bytes()
    told = dict(
        unpack(
            pack(tmp_path / "a.zip", [(link, b"/etc/passwd"), ("inner.zip", inner), ("run.sh", b"")]), tmp_path / "out"
        )
    )
    assert list(told) == ["link.jpg", "inner.zip", "run.sh"]
    for reason, words in zip(told.values(), ("symbolic link", "an archive inside", "is no photo"), strict=True):
        assert words in reason
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_stopped_before_it_unpacks(tmp_path):
    path = pack(tmp_path / "bomb.zip", [("a.jpg", b"\0" * 3_000_000), ("b.jpg", b"\0" * 3_000_000)])
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match=r"holds 2 files.*split it"):
        unpack(path, tmp_path / "out", most_bytes=4_000_000)
    assert not (tmp_path / "out").exists()


def test_too_many_files_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(photo_store, "Limits", lambda **kinds: Limits(files=3, **kinds))
    with pytest.raises(ValueError, match="holds 4 files"):
        unpack(pack(tmp_path / "a.zip", [(f"{i}.jpg", b"") for i in range(4)]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_with_newlines_and_of_great_length_become_files(tmp_path):
    entries = [("a\nb/c\td.jpg", b"1"), ("x" * 200 + ".jpg", b"2"), ("x" * 200 + "y.jpg", b"3")]
    assert unpack(pack(tmp_path / "a.zip", entries), tmp_path / "out") == []
    assert files(tmp_path / "out") == ["ab/cd.jpg", "x" * 100 + " (2).jpg", "x" * 100 + ".jpg"]


def test_twenty_thousand_names_that_become_equal_look_once_for_each_place(tmp_path, monkeypatch):
    path = pack(tmp_path / "a.zip", [("x" * 100 + f"{i}.jpg", b"") for i in range(20_000)])
    looked = []
    exists = type(path).exists
    monkeypatch.setattr(type(path), "exists", lambda self: looked.append(self) or exists(self))
    assert unpack(path, tmp_path / "out") == []
    assert len(looked) <= 20_001 and len(files(tmp_path / "out")) == 20_000


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    for content in (b"1", b"2"):
        unpack(pack(tmp_path / "a.zip", [("a.jpg", content), ("A.jpg", content)]), tmp_path / "out")
    assert sorted(p.read_bytes() for p in (tmp_path / "out").iterdir()) == [b"1", b"1", b"2", b"2"]


def test_a_file_that_is_called_as_a_folder_is_told(tmp_path):
    path = pack(tmp_path / "a.zip", [("a.jpg", b"1"), ("a.jpg/b.jpg", b"2"), ("c.jpg", b"3")])
    assert [name for name, _ in unpack(path, tmp_path / "out")] == ["a.jpg/b.jpg"]
    assert files(tmp_path / "out") == ["a.jpg", "c.jpg"]


def test_a_damaged_member_is_told_and_the_rest_goes_on(tmp_path):
    path = pack(tmp_path / "a.zip", [("bad.jpg", b"a" * 1000), ("good.jpg", b"b" * 10)], zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[100] ^= 0xFF
    path.write_bytes(data)
    problems = unpack(path, tmp_path / "out")
    assert [name for name, _ in problems] == ["bad.jpg"] and files(tmp_path / "out") == ["good.jpg"]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + b"\0" * 40])
def test_what_is_no_zip_says_so(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ValueError, match="not a zip or damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("count", [20_001, 1_000_000])
def test_a_zip_of_too_many_photos_is_refused_by_both_halves_of_the_page(tmp_path, monkeypatch, count):
    path = tmp_path / "many.zip"
    path.write_bytes(hostile.members(count))
    uploaded = [(path, PurePosixPath("many.zip"))]
    with pytest.raises(ValueError, match=r"many\.zip (holds 20001|lists more than the 20000) files"):
        apply_tab._answers(None, uploaded)
    monkeypatch.setattr(tab, "read_upload", lambda value: uploaded)
    with pytest.raises(ValueError, match=r"many\.zip (holds 20001|lists more than the 20000) files"):
        tab._sources(None, None, "", None, "", None, "")


def test_an_upload_without_class_folders_is_told_without_the_servers_folder(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr(tab, "read_upload", lambda value: [(tmp_path / "a.jpg", PurePosixPath("a.jpg"))])
    with pytest.raises(ValueError, match=r"^your upload has no class folders with photos"):
        tab._sources(None, None, "", None, "", None, "")
