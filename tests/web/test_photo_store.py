"""Where uploaded photos lie: for whom, how long, how much."""

import os
import threading
import time
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from patience import SECONDS
from PIL import Image
from test_tune import uploaded

from dinodemo.io.files import looks_like_photo
from dinodemo.jobs.runs import Limits, Runs
from dinodemo.tasks.finetune import photo_store
from dinodemo.tasks.finetune.photo_store import PhotoStore, unpack
from dinodemo.tasks.finetune.photos_tab import _add
from dinodemo.web.owner import new_owner


def test_photos_are_found_again_with_their_classes_until_they_are_put_away(store, tmp_path):
    owner, token = new_owner(), store.new()
    names = ["tune/cats/a.png", "tune/cats/b.png", "tune/犬 dogs/a.png"]
    assert store.add(owner, token, uploaded(tmp_path, names)) == []
    photos = store.describe(owner, store.current(owner))
    assert photos.classes == {"cats": 2, "犬 dogs": 1} and len(photos.paths) == 3 and photos.folder.name == "tune"
    assert store.current(new_owner()) is None
    store.put_away(owner, token)
    assert store.current(owner) is None and not store.folder(owner, token).exists()


def test_photos_that_a_run_needs_stay_when_they_are_put_away(store, runs, tmp_path):
    owner, token = new_owner(), store.new()
    store.add(owner, token, uploaded(tmp_path, ["a.png", "b.png"]))
    runs.submit(owner, "run", store.describe(owner, token).folder, "scratch", {})
    store.put_away(owner, token)
    assert store.current(owner) is None and len(store.describe(owner, token).paths) == 2


def zip_of(path: Path, members) -> list:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return [(path, PurePosixPath(path.name))]


def test_the_photos_of_all_persons_are_swept_by_whoever_watches_the_runs(store, runs, tmp_path):
    gone, kept = new_owner(), new_owner()
    tokens = {owner: store.new() for owner in (gone, kept)}
    for owner, token in tokens.items():
        store.add(owner, token, uploaded(tmp_path, ["a.png"]))
    long_ago = time.time() - 100 * 86400
    os.utime(store.folder(gone, tokens[gone]), (long_ago, long_ago))
    runs.tick()
    assert not runs.owner_folder(gone).exists() and store.folder(kept, tokens[kept]).exists()


def test_a_person_and_all_persons_have_a_quota(tmp_path):
    size = uploaded(tmp_path, ["a.png"])[0][0].stat().st_size
    store = PhotoStore(Runs(tmp_path / "runs", Limits(free_disk=0, person_bytes=2 * size, all_bytes=3 * size)))
    first, second = new_owner(), new_owner()
    store.add(first, store.new(), uploaded(tmp_path, ["a.png"]))
    store.add(first, store.new(), uploaded(tmp_path, ["a.png"]))
    photo = uploaded(tmp_path, ["a.png"])[0][0].read_bytes()
    with pytest.raises(ValueError, match="one person's photos"):
        store.add(first, store.new(), zip_of(tmp_path / "a.zip", [("a.png", photo)]))
    store.add(second, store.new(), uploaded(tmp_path, ["a.png"]))
    with pytest.raises(ValueError, match="all visitors"):
        store.add(second, store.new(), uploaded(tmp_path, ["a.png"]))


def test_a_full_disk_stops_what_is_written(tmp_path):
    store = PhotoStore(Runs(tmp_path / "runs", Limits(free_disk=1 << 60)))
    with pytest.raises(RuntimeError, match=r"disk has .* left"):
        store.add(new_owner(), store.new(), zip_of(tmp_path / "a.zip", [("a.jpg", b"\xff\xd8\xff" + bytes(50))]))


def test_members_that_are_no_photos_and_bombs_are_left_out(store, tmp_path, monkeypatch):
    owner, token = new_owner(), store.new()
    photo = uploaded(tmp_path, ["a.png"])[0][0].read_bytes()
    members = [("zeros.jpg", bytes(100_000)), ("page.png", b"<html>"), ("good.png", photo), ("short.gif", b"")]
    problems = store.add(owner, token, zip_of(tmp_path / "a.zip", members))
    assert [name for name, _ in problems] == ["a.zip: zeros.jpg", "a.zip: page.png", "a.zip: short.gif"]
    assert [path.name for path in store.describe(owner, token).paths] == ["good.png"]
    bomb = zip_of(tmp_path / "b.zip", [(f"{i}.bmp", b"BM" + bytes(30_000_000)) for i in range(11)])
    with pytest.raises(ValueError, match="more than 100 times its size"):
        store.add(owner, store.new(), bomb)


def test_photos_that_come_one_by_one_are_looked_at_as_those_of_a_zip_are(store, tmp_path):
    owner, token = new_owner(), store.new()
    files = uploaded(tmp_path, ["x/good.png"])
    for name, content in (("page.png", b"<html>" + bytes(9)), ("zeros.jpg", bytes(1000)), ("empty.gif", b"")):
        (tmp_path / name).write_bytes(content)
        files.append((tmp_path / name, PurePosixPath("x", name)))
    problems = store.add(owner, token, files)
    assert [name for name, _ in problems] == ["x/page.png", "x/zeros.jpg", "x/empty.gif"]
    assert {reason for _, reason in problems} == {"is no photo, whatever its name says"}
    assert [path.name for path in store.describe(owner, token).paths] == ["good.png"]


def test_the_page_tells_how_far_a_zip_is_and_stop_ends_it(store, tmp_path, monkeypatch):
    stopped = threading.Event()
    write = photo_store.write_file

    def wait_and_write(path, content):
        stopped.wait(SECONDS)
        write(path, content)

    monkeypatch.setattr(photo_store, "write_file", wait_and_write)
    photo = uploaded(tmp_path, ["a.png"])[0][0].read_bytes()
    zipped = zip_of(tmp_path / "a.zip", [(f"{i}.png", photo) for i in range(9)])
    owner = new_owner()
    steps = _add(store, owner, None, zipped)
    job, *_, button = next(steps)
    assert button["visible"] and "0% · 0 of 9 files" in next(steps)
    job.stop()
    stopped.set()
    *_, (job, token, about, _, button) = steps
    assert job is None and not button["visible"]
    assert about.startswith("**1 photos**") and "1.png: stopped here; the rest was left out" in about
    assert store.current(owner) == token


def test_unpacking_stops_when_asked(tmp_path):
    members = [(f"{i}.jpg", b"x") for i in range(9)]
    path, asked = zip_of(tmp_path / "a.zip", members)[0][0], iter([False, False, True])
    problems = unpack(path, tmp_path / "out", stopped=lambda: next(asked))
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert problems == [("2.jpg", "stopped here; the rest was left out")]


def test_every_kind_of_photo_begins_as_one(tmp_path):
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF", "JPEG2000", "PPM", "ICO"):
        Image.new("RGB", (40, 40)).save(tmp_path / "a", kind)
        assert looks_like_photo((tmp_path / "a").read_bytes()[:16]), kind
    for content in (b"", b"\0" * 16, b"<svg xmlns=", b"PK\3\4", b"RIFF1234WAVE", b"%PDF-1.7", b"P7 ", b"P"):
        assert not looks_like_photo(content)


def test_old_photos_are_removed(store, tmp_path):
    owner = new_owner()
    old, young = store.new(), store.new()
    for token in (old, young):
        store.add(owner, token, uploaded(tmp_path, ["a.png"]))
    long_ago = time.time() - 15 * 86400
    os.utime(store.folder(owner, old), (long_ago, long_ago))
    third = store.new()
    store.add(owner, third, uploaded(tmp_path, ["a.png"]))
    store.put_away(owner, third)
    assert not store.folder(owner, old).exists() and store.folder(owner, young).exists()


@pytest.mark.parametrize("token", [None, "", "..", "../../x", "0123456789abcdeg"])
def test_a_token_is_no_path(store, token):
    with pytest.raises(ValueError, match="no photos yet"):
        store.describe(new_owner(), token)


def test_a_selection_is_a_folder_of_its_own_and_deletes_nothing(store, tmp_path):
    owner, token = new_owner(), store.new()
    store.add(owner, token, uploaded(tmp_path, ["x/cats/a.png", "x/cats/b.png", "x/dogs/c.png"]))
    photos = store.describe(owner, token)
    chosen = store.select(owner, photos, {photos.paths[1]})
    assert [p.name for p in chosen.paths] == ["a.png", "c.png"] and chosen.classes == {"cats": 1, "dogs": 1}
    assert len(store.describe(owner, token).paths) == 3 and store.current(owner) == chosen.token
