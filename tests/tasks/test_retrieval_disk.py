"""What happens to an index when its process is killed, when another reads meanwhile, when the disk refuses."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import load_image
from dinodemo.tasks.retrieval import ImageIndex, writing
from dinodemo.tasks.retrieval.store import Recipe, Store

PHOTOS, BATCH = 140, 4
KILLS = int(os.environ.get("DINODEMO_TEST_KILLS", "3"))  # each takes seconds, most of them to import

# adds a folder with an engine that needs no network and 10 ms a photo; prints what progress says
ADD = """
import json, resource, signal, sys, time
from types import SimpleNamespace
import numpy as np
from dinodemo.tasks.retrieval import ImageIndex, writing

writing.COMMIT_ROWS = 4

class Engine:
    backbone = SimpleNamespace(name="fake", width=48, patch_size=14, descriptor="cls")

    def features_batch(self, photos, resolution):
        for photo in photos:
            time.sleep(0.01)
            tokens = photo.rgb[::14, ::14].reshape(-1, 48)[:1].astype(np.float32)
            yield SimpleNamespace(cls=tokens[0] - 127, patches=tokens[:, None])

index, folder, limit = sys.argv[1:]
if int(limit):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
tell = lambda done, total: print(json.dumps(done), flush=True)
try:
    report = ImageIndex(index, Engine(), resolution=56).add(folder, progress=tell, store=bool(int(limit)))
    print(json.dumps([report.added, report.skipped]), flush=True)
except RuntimeError as error:
    print(json.dumps(str(error)), flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of small photos of noise, each different."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(PHOTOS):
        picture = Image.fromarray(rng.integers(0, 256, (56, 56, 3), dtype=np.uint8))
        picture.save(tmp_path / "photos" / f"{i:03}.png")
    return tmp_path / "photos"


def start(index, folder, limit=0):
    command = [sys.executable, "-c", ADD, str(index), str(folder), str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def check_whole(index):
    """Every row can be read, none is there twice; returns how many there are."""
    entries, vectors = index.gallery()
    assert len(entries) == len(vectors)
    assert set(Counter(entry.sha256 for entry in entries).values()) <= {1}
    thumbnails = index.thumbnails([entry.sha256 for entry in entries])
    assert all(load_image(thumbnails[entry.sha256]).shape == (56, 56, 3) for entry in entries)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    return len(entries)


def test_kills_lose_and_double_nothing_and_others_read_meanwhile(tmp_path, folder):
    chance = random.Random(0)
    before = 0
    for _ in range(KILLS):
        process = start(tmp_path / "index", folder)
        process.stdout.readline()  # the first batch is in
        time.sleep(chance.uniform(0, 0.5 / KILLS))
        process.kill()
        told = [json.loads(line) for line in process.stdout]
        process.wait()
        count = check_whole(ImageIndex(tmp_path / "index"))
        assert count >= max([before, *(line for line in told if isinstance(line, int))])
        assert count % BATCH == 0 and count < PHOTOS  # whole batches
        before = count

    process = start(tmp_path / "index", folder)  # goes on where it was
    index, counts = ImageIndex(tmp_path / "index"), []
    while process.poll() is None:
        counts.append(check_whole(index))
        _, vectors = index.gallery()
        assert index.search_vector(vectors[-1], k=1)[0].cosine == pytest.approx(1, abs=1e-5)
    assert counts == sorted(counts) and len(set(counts)) > 1  # it grew before the reader's eyes
    assert json.loads(process.stdout.read().splitlines()[-1]) == [PHOTOS - before, before]
    assert check_whole(index) == PHOTOS


def test_two_writers_of_the_same_photos_double_nothing(tmp_path, folder, make_engine, monkeypatch):
    monkeypatch.setattr(writing, "COMMIT_ROWS", BATCH)
    ImageIndex(tmp_path / "index", make_engine(), resolution=70).add(folder / "000.png")
    indices = [ImageIndex(tmp_path / "index", make_engine()) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda index: index.add(folder), indices))
    assert sum(report.added for report in reports) == PHOTOS - 1
    assert sum(report.skipped for report in reports) == PHOTOS + 1
    assert check_whole(indices[0]) == PHOTOS


def test_a_disk_that_takes_no_more_is_named_and_what_was_told_is_there(tmp_path, folder):
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "last.png")
    process = start(tmp_path / "index", folder, limit=150_000)  # of the size of any file
    lines = [json.loads(line) for line in process.communicate()[0].splitlines()]
    assert "cannot be used" in lines[-1] and "what was stored stays" in lines[-1]
    index = ImageIndex(tmp_path / "index")
    told = [line for line in lines if isinstance(line, int)]
    assert check_whole(index) == max(told) == PHOTOS


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("LanceError(IO): No space left on device (os error 28)", "the disk is full; free some space"),
        ("Generic LocalFileSystem error: Read-only file system (os error 30)", "the disk is read-only"),
        ("Permission denied (os error 13)", "this user may not write there"),
    ],
)
def test_what_the_disk_says_becomes_a_sentence(tmp_path, make_engine, make_picture, monkeypatch, message, remedy):
    from lancedb.merge import LanceMergeInsertBuilder

    def fail(*_args, **_kwargs):
        raise RuntimeError(message)

    monkeypatch.setattr(LanceMergeInsertBuilder, "execute", fail)
    Image.fromarray(make_picture()).save(tmp_path / "one.png")
    with pytest.raises(RuntimeError, match=remedy):
        ImageIndex(tmp_path / "index", make_engine(), resolution=70).add(tmp_path / "one.png")


def test_an_index_where_a_file_lies_is_refused(tmp_path, engine, make_picture):
    (tmp_path / "file").write_text("not a folder")
    Image.fromarray(make_picture()).save(tmp_path / "one.png")
    with pytest.raises(RuntimeError, match="cannot be used: a part of the path is a file"):
        ImageIndex(tmp_path / "file" / "index", engine, resolution=70).add(tmp_path / "one.png")


def test_an_object_stores_address_stays_an_address():
    assert Store("s3://bucket/folder/index").uri == "s3://bucket/folder/index"
    store = Store("memory://team")
    table = store.open_or_create(Recipe("fake", 56, "cls", 8))
    assert table.count_rows() == 0
