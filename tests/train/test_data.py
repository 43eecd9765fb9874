"""Scanning a folder, the cache of decoded photos, and the sampler."""

import numpy as np
import pytest
import torch
from PIL import Image

from dinodemo.train.data import LONGEST, PhotoCache, scan, shrink
from dinodemo.train.loader import Sampler


def write(path, size=(40, 30), colour=(200, 100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def classes(tmp_path):
    for i in range(5):
        write(tmp_path / "photos" / "cats" / f"{i}.jpg", colour=(40 * i, 0, 0))
        write(tmp_path / "photos" / "dogs" / "big" / f"{i}.png", colour=(0, 40 * i, 0))
    return tmp_path / "photos"


def test_class_folders_become_labels(classes):
    found = scan(classes)
    assert len(found.paths) == 10 and found.class_names == ["cats", "dogs"] and found.problems == []
    assert [found.class_names[i] for i in found.labels] == [p.relative_to(classes).parts[0] for p in found.paths]


def test_a_photo_beside_the_classes_means_no_labels(classes):
    write(classes / "stray.jpg")
    found = scan(classes)
    assert found.labels is None and found.class_names == [] and len(found.paths) == 11


def test_what_is_no_photo_is_told_or_passed_over(classes, tmp_path):
    (classes / "notes.txt").write_text("hello")
    (classes / ".hidden.jpg").write_bytes(b"x")
    (classes / "empty.jpg").write_bytes(b"")
    write(tmp_path / "outside.jpg")
    (classes / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (classes / "gone.jpg").symlink_to(classes / "nowhere.jpg")
    problems = dict(scan(classes).problems)
    assert set(problems) == {"notes.txt", "empty.jpg", "link.jpg", "gone.jpg"}
    assert "leads out" in problems["link.jpg"] and ".txt" in problems["notes.txt"]


def test_a_handful_is_too_few(tmp_path):
    for i in range(7):
        write(tmp_path / f"{i}.jpg")
    with pytest.raises(ValueError, match="holds 7 photos"):
        scan(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        scan(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((400, 300), (256, 341)),
        ((100, 80), (80, 100)),
        ((3000, 300), (256, 256 * LONGEST)),
        ((300, 400), (341, 256)),
    ],
)
def test_the_short_side_is_scaled_down_never_up(size, expected):
    assert shrink(np.zeros((size[1], size[0], 3), np.uint8), 256).shape == (*expected, 3)


@pytest.mark.parametrize("max_bytes", [10**9, 5000, 0])
def test_the_cache_gives_the_same_from_memory_and_disk(classes, tmp_path, max_bytes):
    paths = scan(classes).paths
    with PhotoCache(paths, 24, max_bytes, tmp_path / "cache") as cache:
        first, again = cache.batch([3, 1, 3, 9]), cache.batch([3, 1, 3, 9])
    assert [t.shape for t in first] == [(3, 24, 32)] * 4 and first[0].dtype == torch.uint8
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)) and torch.equal(first[0], first[2])
    assert abs(int(first[1][0, 5, 5]) - 40) <= 2 and abs(int(first[3][1, 5, 5]) - 160) <= 2


def test_photos_are_decoded_once(classes, monkeypatch):
    from dinodemo.train import data

    seen = []
    load = data.load_image
    monkeypatch.setattr(data, "load_image", lambda path: (seen.append(path), load(path))[1])
    with PhotoCache(scan(classes).paths) as cache:
        for _ in range(3):
            cache.batch([0, 1, 1])
    assert len(seen) == 2


def test_a_broken_photo_is_told_and_the_next_takes_its_place(classes):
    paths = scan(classes).paths
    paths[1].write_bytes(b"no photo")
    with PhotoCache(paths) as cache:
        batch = cache.batch([1, 2])
        cache.batch([1])
    assert torch.equal(batch[0], batch[1])
    assert [name for name, _ in cache.problems] == [str(paths[1])]


def test_only_broken_photos_say_so(tmp_path):
    paths = []
    for i in range(3):
        paths.append(tmp_path / f"{i}.jpg")
        paths[-1].write_bytes(b"no photo")
    with PhotoCache(paths) as cache, pytest.raises(RuntimeError, match="none of the 3"):
        cache.batch([0])


@pytest.mark.parametrize(("n", "size"), [(10, 3), (7, 7), (3, 8)])
def test_every_photo_comes_once_an_epoch(n, size):
    sampler = Sampler(n, size, seed=5)
    dealt = [i for _ in range(12 * n) for i in sampler.next()]
    epochs = [dealt[k : k + n] for k in range(0, len(dealt) - n, n)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert n < 7 or epochs[0] != epochs[1]


def test_a_restored_sampler_goes_on_exactly():
    first = Sampler(10, 4, seed=1)
    for _ in range(6):
        first.next()
    second = Sampler(10, 4, seed=1)
    second.load_state_dict(first.state_dict())
    assert [first.next() for _ in range(5)] == [second.next() for _ in range(5)]


def test_ranks_share_one_batch():
    alone = Sampler(20, 6, seed=2)
    ranks = [Sampler(20, 3, seed=2, rank=r, world=2) for r in range(2)]
    for _ in range(5):
        assert alone.next() == [i for rank in ranks for i in rank.next()]


def test_weights_decide_how_often():
    sampler = Sampler(4, 10, weights=[0, 1, 1, 2])
    dealt = [i for _ in range(400) for i in sampler.next()]
    shares = np.bincount(dealt, minlength=4) / len(dealt)
    assert shares == pytest.approx([0, 0.25, 0.25, 0.5], abs=0.03)


def test_impossible_samplers_are_refused():
    with pytest.raises(ValueError, match="a photo"):
        Sampler(0, 4)
    with pytest.raises(ValueError, match="each of the 3"):
        Sampler(3, 4, weights=[1])
