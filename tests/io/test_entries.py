"""Folders, zips and lists as entries: limits, names, links, damage."""

import os
import pickle
import zipfile
from pathlib import PurePosixPath

import pytest
from zip_samples import HUGE, PHOTO, build, member, pack, zip64

from dinodemo.io import zips
from dinodemo.io.archives import BadFile, Entry, open_entries, read_member
from dinodemo.io.zips import Limits


def test_a_zip_of_nothing_is_empty(tmp_path):
    with open_entries(pack(tmp_path / "a.zip", {})) as found:
        assert found == ([], [])


def test_more_files_or_bytes_than_the_limits_are_refused_before_anything_is_read(tmp_path):
    path = pack(tmp_path / "a.zip", {"a.jpg": b"1" * 60, "b.jpg": b"2" * 60})
    for limits in (Limits(files=1), Limits(total_bytes=100)):
        with pytest.raises(ValueError, match=r"a\.zip holds 2 files, .*split it"), open_entries(path, limits):
            pass
    (tmp_path / "a.zip").write_bytes(build([member("a.jpg", b"", size=HUGE, extra=zip64(HUGE))]))
    with pytest.raises(ValueError, match="GB unpacked"), open_entries(path):
        pass


def test_a_list_of_members_that_no_limit_allows_is_not_even_parsed(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(build([member(f"{i:0200}.jpg", b"") for i in range(2000)]))
    made = []
    monkeypatch.setattr(zips.zipfile, "ZipInfo", lambda *told: made.append(told))
    with (
        pytest.raises(ValueError, match=r"a\.zip lists more than the 9 files that are read; split it"),
        open_entries(tmp_path / "a.zip", Limits(9)),
    ):
        pass
    assert not made


def test_twenty_thousand_equal_names_are_one_entry_and_one_problem(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(build([member("a.jpg", b"") for _ in range(20_000)]))
    compared, equal = [], PurePosixPath.__eq__
    monkeypatch.setattr(PurePosixPath, "__eq__", lambda self, other: compared.append(1) or equal(self, other))
    with open_entries(tmp_path / "a.zip") as (entries, problems):
        assert [entry.name.name for entry in entries] == ["a.jpg"]
        assert problems == [("a.jpg", "occurs 20000 times in the archive; keep one")]
    assert len(compared) < 50_000


def test_a_name_that_is_not_utf8_is_told_and_the_others_are_read(tmp_path):
    names = [b"\xff\xfe.jpg", "é.jpg".encode(), "ü.jpg".encode("cp437")]
    members = [member(name, PHOTO, flags=flags) for name, flags in zip(names, (0x800, 0x800, 0), strict=True)]
    (tmp_path / "a.zip").write_bytes(build(members))
    with open_entries(tmp_path / "a.zip") as (entries, problems):
        assert [entry.read() for entry in entries[1:]] == [PHOTO] * 2 and not problems
        assert [str(entry.name) for entry in entries[1:]] == ["é.jpg", "ü.jpg"] and str(entries[0].name).encode()
        with pytest.raises(BadFile, match="its name is not UTF-8"):
            entries[0].read()


def test_a_photo_that_holds_a_directory_comes_out_as_it_went_in(tmp_path):
    inner = build([member(b"\xff.jpg", PHOTO, flags=0x800)])
    data = inner[inner.index(b"PK\1\2") :]
    with open_entries(pack(tmp_path / "a.zip", {"a.jpg": data})) as (entries, _):
        assert entries[0].read() == data


def test_what_systems_leave_behind_is_passed_over_without_a_word(tmp_path):
    names = ["a.jpg", "__MACOSX/._a.jpg", ".DS_Store", "sub/.hidden/b.jpg", "Thumbs.db", "sub/desktop.ini"]
    path = pack(tmp_path / "a.zip", dict.fromkeys(names, PHOTO))
    for name in names:
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(PHOTO)
    for source in (path, tmp_path / "folder"):
        with open_entries(source) as (entries, problems):
            assert [str(entry.name) for entry in entries] == ["a.jpg"] and not problems


def test_names_are_clean_and_shown_on_one_line(tmp_path):
    path = pack(tmp_path / "a.zip", {"a\nb/c\td.jpg": PHOTO, "../x\ny\x1b[31m" + "z" * 500: b""})
    with open_entries(path) as (entries, [(shown, _)]):
        assert [str(entry.name) for entry in entries] == ["ab/cd.jpg"]
        assert shown.isprintable() and len(shown) <= 300


def test_a_zip_behind_other_bytes_is_read(tmp_path):
    path = pack(tmp_path / "a.zip", {"a.jpg": PHOTO}, zipfile.ZIP_DEFLATED)
    path.write_bytes(b"#!/bin/sh\n" * 9 + path.read_bytes())
    with open_entries(path) as (entries, problems):
        assert entries[0].read() == PHOTO and not problems


def test_a_folder_is_listed_in_order_with_sizes_and_reads_what_it_holds(tmp_path):
    for name in ("b/2.jpg", "b/1.jpg", "a/3.jpg", "z.jpg", "y.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "zip.zip").write_bytes(b"")
    with open_entries(tmp_path, accept=lambda name: None if name.suffix == ".jpg" else "is no photo") as found:
        assert [str(e.name) for e in found.entries] == ["z.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg"]
        assert found.problems == [("y.txt", "is no photo"), ("zip.zip", "is an archive inside; unpack it first")]
    entry = pickle.loads(pickle.dumps(found.entries[-1]))  # other machines of a cluster read it
    assert entry.read() == b"b/2.jpg" and entry.size == 7 and entry.where == (tmp_path / "b/2.jpg").as_posix()


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_links_that_lead_out_of_a_folder_are_not_followed(tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(PHOTO)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (folder / "inside.jpg").symlink_to(folder / "a.jpg")
    (folder / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "sub" / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.jpg")
    (tmp_path / "link").symlink_to(folder)
    for source in (folder, tmp_path / "link"):
        with open_entries(source) as (entries, problems):
            assert [entry.name.name for entry in entries] == ["a.jpg", "inside.jpg"]
        told = dict(problems)
        assert "leads out of the folder" in told["out.jpg"] and "no regular file" in told["pipe.jpg"]
        assert "cannot be read" in told["nowhere.jpg"] and "cannot be read" in told["loop.jpg"]


@pytest.mark.skipif(os.name != "posix", reason="names that are bytes")
def test_names_of_a_folder_that_are_not_utf8_are_told(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(PHOTO)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with open_entries(tmp_path) as (entries, problems):
        assert not entries and problems == [("?.jpg", "its name is not UTF-8; rename it")]


def test_a_folder_keeps_to_the_limits(tmp_path):
    deep = tmp_path / "1" / "2" / "3"
    deep.mkdir(parents=True)
    for path in (tmp_path / "a.jpg", tmp_path / "1" / "b.jpg", deep / "c.jpg"):
        path.write_bytes(b"x" * 2_000_000)
    with open_entries(tmp_path, Limits(depth=1)) as (entries, problems):
        assert [entry.name.name for entry in entries] == ["a.jpg", "b.jpg"]
        assert problems == [("1/2", "lies in more than 1 folders, one in another; move it up")]
    with open_entries(tmp_path, Limits(file_bytes=1_000_000)) as (entries, problems):
        assert not entries and "is larger than 1 MB" in problems[0][1]
    with pytest.raises(ValueError, match="holds more than 2 files"), open_entries(tmp_path, Limits(files=2)):
        pass


def test_a_file_that_grows_or_goes_after_it_was_listed_is_told_without_its_path(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    with open_entries(tmp_path, Limits(file_bytes=1_000_000)) as (entries, _):
        (tmp_path / "a.jpg").write_bytes(b"1" * 1_000_001)
        with pytest.raises(BadFile, match="larger than 1 MB"):
            entries[0].read()
        (tmp_path / "a.jpg").unlink()
        with pytest.raises(BadFile, match=r"^cannot be read \(No such file or directory\)"):
            entries[0].read()


def test_a_list_gives_files_and_named_bytes_and_names_what_is_missing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    pack(tmp_path / "b.zip", {"c.jpg": PHOTO})
    sources = [tmp_path / "a.jpg", str(tmp_path / "gone.jpg"), ("d.jpg", b"bytes"), ("../e.jpg", b""), ("f.zip", b"")]
    with open_entries([*sources, tmp_path / "b.zip"]) as (entries, problems):
        assert [(str(entry.name), entry.read()) for entry in entries] == [("a.jpg", PHOTO), ("d.jpg", b"bytes")]
        assert [name for name, _ in problems] == ["gone.jpg", "../e.jpg", "f.zip", "b.zip"]
    with pytest.raises(ValueError, match="does not exist"), open_entries(tmp_path / "nothing"):
        pass


def test_a_member_is_read_by_its_name_and_only_if_it_may_be(tmp_path):
    link = member("link.jpg", b"/etc/passwd", kind=0o120777)
    (tmp_path / "a.zip").write_bytes(build([member("a\\b.jpg", PHOTO), member("../x.jpg", PHOTO), link]))
    assert read_member(tmp_path / "a.zip", PurePosixPath("a/b.jpg")) == PHOTO
    for name, reason in (("link.jpg", "symbolic link"), ("../x.jpg", "leads out"), ("none.jpg", "no longer there")):
        with pytest.raises(ValueError, match=reason):
            read_member(tmp_path / "a.zip", PurePosixPath(name))


def test_a_reader_may_give_bytes_of_its_own():
    assert Entry(PurePosixPath("a.jpg"), lambda: b"own").read() == b"own"
