"""Zips from anybody through every reader of them: the same is refused everywhere, and the rest goes on."""

import zipfile
from pathlib import PurePosixPath

import pytest
from zip_samples import DAMAGED, DEPTH, EVIL, MASK, PHOTO, READERS, about, build, crc_of_a_prefix, good_for, member

from dinodemo.io.archives import open_entries
from dinodemo.io.files import PHOTO_SUFFIXES


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


@pytest.mark.parametrize("reader", READERS)
def test_a_name_that_occurs_twice_is_read_once(reader, tmp_path):
    (tmp_path / "a.zip").write_bytes(build([*good_for(reader), member("images\\good.jpg", MASK)]))
    kept, problems = READERS[reader](tmp_path / "a.zip", tmp_path)
    assert len(kept) == 1 and about(problems) == ["occurs twice in the archive; keep one"]
