"""Uploaded zips are hostile until shown otherwise."""

import stat
import zipfile

import pytest

from dinodemo.web import unzip
from dinodemo.web.unzip import unpack


def pack(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_photos_keep_their_folders(tmp_path):
    path = pack(tmp_path / "a.zip", [("cats/1.jpg", b"1"), ("cats/deep/2.PNG", b"2"), ("é 犬/3.webp", b"3"),
                                     ("__MACOSX/._1.jpg", b"x"), (".hidden.jpg", b"x"), ("empty/", b"")])  # fmt: skip
    assert unpack(path, tmp_path / "out") == []
    assert files(tmp_path / "out") == ["cats/1.jpg", "cats/deep/2.PNG", "é 犬/3.webp"]


@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg",
                                  "../x/evil.jpg"])  # fmt: skip
def test_nothing_is_written_outside(tmp_path, name):
    problems = unpack(pack(tmp_path / "a.zip", [(name, b"x"), ("ok.jpg", b"y")]), tmp_path / "out" / "deep")
    assert len(problems) == 1 and "leads out" in problems[0][1]
    assert files(tmp_path) == ["a.zip", "out/deep/ok.jpg"]


def test_links_archives_and_other_files_are_told(tmp_path):
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    inner = pack(tmp_path / "inner.zip", [("deep.jpg", b"x")]).read_bytes()
    problems = dict(unpack(pack(tmp_path / "a.zip", [(link, b"/etc/passwd"), ("inner.zip", inner), ("run.sh", b"")]),
                           tmp_path / "out"))  # fmt: skip
    assert problems == {"link.jpg": "is a link", "inner.zip": "is no photo that can be read",
                        "run.sh": "is no photo that can be read"}  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_stopped_while_it_unpacks(tmp_path):
    path = pack(tmp_path / "bomb.zip", [("a.jpg", b"\0" * 3_000_000), ("b.jpg", b"\0" * 3_000_000)])
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match="more than is taken"):
        unpack(path, tmp_path / "out", most_bytes=4_000_000)
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*")) <= 4_000_000


def test_too_many_files_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(unzip, "MOST_FILES", 3)
    with pytest.raises(ValueError, match="holds 4 files"):
        unpack(pack(tmp_path / "a.zip", [(f"{i}.jpg", b"") for i in range(4)]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_with_newlines_and_of_great_length_become_files(tmp_path):
    unpack(pack(tmp_path / "a.zip", [("a\nb/c\td.jpg", b"1"), ("x" * 200 + ".jpg", b"2"), ("ab/cd.jpg", b"3")]),
           tmp_path / "out")  # fmt: skip
    assert files(tmp_path / "out") == ["ab/cd (2).jpg", "ab/cd.jpg", "x" * 100 + ".jpg"]


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
    with pytest.raises(ValueError, match="no zip or damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
