"""Zips from anybody through every reader of them: the same is refused everywhere, and the rest goes on."""

import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from dinodemo.io import zips
from dinodemo.io.archives import BadFile, Entry, open_entries, read_member
from dinodemo.io.files import PHOTO_SUFFIXES
from dinodemo.io.zips import Limits


def picture(kind: str, pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


PHOTO = picture("JPEG", np.full((8, 8, 3), 90, np.uint8))
MASK = picture("PNG", np.arange(64, dtype=np.uint8).reshape(8, 8) // 32 * 255)
DEPTH = picture("PNG", np.arange(600, 664, dtype=np.uint16).reshape(8, 8))
GOOD = {"images/good.jpg": PHOTO, "depth/good.png": DEPTH, "masks/good.png": MASK}
HUGE = 1 << 62
METHODS = {"bzip2": 12, "lzma": 14, "unknown": 99}


def member(name: bytes | str, data: bytes, **told) -> dict:
    """Describe a member; what it tells of itself may be lies: size, packed, crc, flags, method, kind, at, extra."""
    return {"name": name.encode() if isinstance(name, str) else name, "data": data, **told}


def build(members: list[dict], tail: bytes = b"") -> bytes:
    """Write a zip byte by byte (APPNOTE 4.3), as no library would."""
    body, directory = b"", b""
    for one in members:
        data, name, method = one["data"], one["name"], one.get("method", 0)
        packed = zlib.compress(data, 9)[2:-4] if method == 8 and not one.get("raw") else data
        size, length = one.get("size", len(data)), one.get("packed", len(packed))
        crc, flags, extra = one.get("crc", zlib.crc32(data)), one.get("flags", 0), one.get("extra", b"")
        at = one.get("at", len(body))
        fields = struct.pack(
            "<HHHHLLLHH", flags, method, 0, 0, crc, min(length, 2**32 - 1), min(size, 2**32 - 1), len(name), len(extra)
        )
        if "at" not in one:
            body += b"PK\3\4" + struct.pack("<H", 45) + fields[:-2] + b"\0\0" + name + packed
        directory += b"PK\1\2" + struct.pack("<HH", 0x032D, 45) + fields
        directory += struct.pack("<HHHLL", 0, 0, 0, one.get("kind", 0o100644) << 16, min(at, 2**32 - 1)) + name + extra
    end = struct.pack("<HHHHLLH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end + tail


def zip64(*values: int) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)


def crc_of_a_prefix(data: bytes, size: int) -> dict:
    return {"size": size, "crc": zlib.crc32(data[:size])}


EVIL = {  # what it is -> the member, which follows the good ones
    "leads up": member("../evil.jpg", PHOTO),
    "leads up inside": member("a/../../evil.jpg", PHOTO),
    "leads up with backslashes": member("..\\evil.jpg", PHOTO),
    "is absolute": member("/etc/evil.jpg", PHOTO),
    "is on a share": member("//server/evil.jpg", PHOTO),
    "is on a drive": member("C:\\evil.jpg", PHOTO),
    "leads up once cleaned": member(".\n./evil.jpg", PHOTO),
    "has a folder of dots and spaces": member("a/.. /evil.jpg", PHOTO),
    "has no name": member("", PHOTO),
    "is a link": member("evil.jpg", b"/etc/passwd", kind=0o120777),
    "is a pipe": member("evil.jpg", b"", kind=0o010644),
    "is a device": member("evil.jpg", b"", kind=0o020644),
    "is a folder that is none": member("evil.jpg", b"", kind=0o040755),
    "is encrypted": member("evil.jpg", PHOTO, flags=1),
    "is encrypted strongly": member("evil.jpg", PHOTO, flags=0x40),
    **{f"is packed by {name}": member("evil.jpg", PHOTO, method=number) for name, number in METHODS.items()},
    "is called as a device": member("images/CON.jpg", PHOTO),
    "is called as another device": member("com1/evil.jpg", PHOTO),
    "lies too deep": member("d/" * 40 + "evil.jpg", PHOTO),
    "has a name too long": member("x" * 2000 + ".jpg", PHOTO),
    "is a zip": member("evil.zip", build([member("inner.jpg", PHOTO)])),
    "is another archive": member("evil.tar.gz", b"\x1f\x8b"),
    "is larger than a file may be": member("evil.jpg", PHOTO, size=600_000_000),
    "unpacks to too much": member("evil.jpg", PHOTO, size=100_000_000),
    "lies beyond the end": member("evil.jpg", PHOTO, at=1 << 30),
    "reaches into the directory": member("evil.jpg", PHOTO, packed=1 << 20),
    "lies inside another": member("images/evil.jpg", PHOTO, at=40, packed=9),
    "lies beyond the end by 64 bits": member("evil.jpg", PHOTO, at=HUGE, extra=zip64(HUGE)),
    "is packed to more than there is by 64 bits": member("evil.jpg", PHOTO, packed=HUGE, extra=zip64(HUGE)),
}
DAMAGED = {  # what can only be seen when it is read
    "is larger than it says": member("images/evil.jpg", PHOTO, size=len(PHOTO) - 5),
    "is smaller than it says": member("images/evil.jpg", PHOTO, size=len(PHOTO) + 5),
    "is packed larger than it says": member("images/evil.jpg", b"\0" * 9_000_000, method=8, size=10),
    "has another checksum": member("images/evil.jpg", PHOTO, crc=1),
    "is not packed as it says": member("images/evil.jpg", b"\xff" * 99, method=8, raw=True),
    "has a name that is not UTF-8": member(b"images/\xff.jpg", PHOTO, flags=0x800),
    "is patched data": member("images/evil.jpg", PHOTO, flags=0x20),
}


def as_finetune(path: Path, folder: Path) -> tuple[list[str], list]:
    from dinodemo.tasks.finetune.photo_store import unpack

    problems = unpack(path, folder / "out")
    return sorted(p.name for p in (folder / "out").rglob("*") if p.is_file() and "good" in p.name), problems


def as_depth(path: Path, folder: Path) -> tuple[list[str], list]:
    from dinodemo.tasks.depth import read_pairs

    pairs, problems = read_pairs(path)
    return [pair.name for pair in pairs], problems


def as_masks(path: Path, folder: Path) -> tuple[list[str], list]:
    from dinodemo.tasks.segmentation_head import read_pairs

    pairs, problems = read_pairs(path, out=folder / "out")
    return [photo.name for photo, _ in pairs], problems


def as_retrieval(path: Path, folder: Path) -> tuple[list[str], list]:
    from dinodemo.tasks.retrieval.sources import open_source

    with open_source(path) as (items, problems):
        read = []
        for item in items:
            try:
                read.append(item.read())
            except ValueError as error:
                problems.append((item.path, str(error)))
    return [data for data in read if data == PHOTO], problems


READERS = {"depth": as_depth, "masks": as_masks, "retrieval": as_retrieval, "finetune": as_finetune}


def good_for(reader: str) -> list[dict]:
    """Return the good members that a reader makes something of, and no others."""
    kinds = {"depth": ("images", "depth"), "masks": ("images", "masks")}.get(reader, ("images",))
    return [member(name, data) for name, data in GOOD.items() if name.startswith(kinds)]


def about(problems: list) -> list[str]:
    """Return what was said, but for what each says of a photo that lacks its partner."""
    return [reason for _, reason in problems if "of the same name" not in reason]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", EVIL)
def test_every_reader_refuses_the_same_and_goes_on(what, reader, tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(build([*good_for(reader), EVIL[what]]))
    with open_entries(path) as (entries, problems):
        assert len(entries) == len(good_for(reader))
        (expected,) = [reason for _, reason in problems]
    kept, problems = READERS[reader](path, tmp_path)
    assert len(kept) == 1 and about(problems) == [expected]
    assert {p.name for p in tmp_path.iterdir()} <= {"a.zip", "out"}


def test_two_members_at_one_place_are_both_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(build([member("a.jpg", PHOTO), member("b.jpg", PHOTO, at=0)]))
    with open_entries(tmp_path / "a.zip") as (entries, problems):
        assert not entries and [name for name, _ in problems] == ["a.jpg", "b.jpg"]
        assert all("shares its bytes" in reason for _, reason in problems)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", DAMAGED)
def test_every_reader_names_a_damaged_member_and_goes_on(what, reader, tmp_path):
    partner = {"depth": DEPTH, "masks": MASK}.get(reader)
    stem = PurePosixPath(DAMAGED[what]["name"].decode("cp437")).stem  # the one that its photo goes by
    evil = [DAMAGED[what], *([member(f"{reader}/{stem}.png".encode(), partner, flags=0x800)] if partner else [])]
    (tmp_path / "a.zip").write_bytes(build([*good_for(reader), *evil]))
    kept, problems = READERS[reader](tmp_path / "a.zip", tmp_path)
    assert len(kept) == 1
    (problem,) = problems
    assert problem[0].endswith(".jpg") and problem[1].startswith("cannot be read (")
    assert not list(tmp_path.rglob("*evil*"))


def pack(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", sorted(PHOTO_SUFFIXES))
def test_every_reader_takes_the_same_photos(reader, suffix):
    from dinodemo.tasks.depth.files import reason_against as depth
    from dinodemo.tasks.finetune.photo_store import _reason_against as finetune
    from dinodemo.tasks.retrieval.sources import _reason_against as retrieval
    from dinodemo.tasks.segmentation_head.pairs import _reason_against as masks

    accepts = {"depth": depth, "masks": masks, "retrieval": retrieval, "finetune": finetune}[reader]
    assert accepts(PurePosixPath(f"a/b{suffix.upper()}")) is None
    assert accepts(PurePosixPath("a/b.docx"))


def test_a_member_that_lies_of_its_size_is_not_unpacked_beyond_it(tmp_path, monkeypatch):
    data = b"\0" * 200_000_000
    (tmp_path / "a.zip").write_bytes(build([member("a.jpg", data, method=8, **crc_of_a_prefix(data, 1000))]))
    asked, read = [], zipfile.ZipExtFile._read1
    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", lambda self, n: asked.append(n) or read(self, n))
    with open_entries(tmp_path / "a.zip") as (entries, _):
        assert entries[0].read() == data[:1000] and max(asked) == 1001


@pytest.mark.parametrize("what", [b"", b"no zip", b"PK\3\4" + b"\0" * 40, build([member("a.jpg", PHOTO)])[:-30]])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_empty_cut_off_or_no_zip_is_refused_with_a_sentence(what, reader, tmp_path):
    (tmp_path / "a.zip").write_bytes(what)
    with pytest.raises(ValueError, match=r"^a\.zip is not a zip or damaged \(.*\); pack it again"):
        READERS[reader](tmp_path / "a.zip", tmp_path)


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
    with pytest.raises(ValueError, match="list of members is too long"), open_entries(tmp_path / "a.zip", Limits(9)):
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


@pytest.mark.parametrize("reader", READERS)
def test_a_name_that_occurs_twice_is_read_once(reader, tmp_path):
    (tmp_path / "a.zip").write_bytes(build([*good_for(reader), member("images\\good.jpg", MASK)]))
    kept, problems = READERS[reader](tmp_path / "a.zip", tmp_path)
    assert len(kept) == 1 and about(problems) == ["occurs twice in the archive; keep one"]


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
