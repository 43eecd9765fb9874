"""Batches: order, windows, progress, errors, memory."""

import itertools
import re

import pytest
import torch
from closeness import close

from dinodemo.engine import devices

# batches


def test_a_batch_equals_single_pictures_and_keeps_their_order(engine, make_engine, make_picture):
    sizes = itertools.cycle([(60, 90), (90, 60), (60, 90), (37, 53)])
    pictures = [make_picture(*next(sizes), seed=i) for i in range(11)]
    batch = list(make_engine().features_batch(pictures, resolution=112, batch_size=4, attention=True))
    assert len(batch) == 11
    for picture, f in zip(pictures, batch, strict=True):
        single = engine.features(picture, resolution=112, attention=True)
        assert f.image_size == picture.shape[:2]
        close(f.cls, single.cls)
        close(f.patches, single.patches)
        close(f.layer_attention, single.layer_attention)
        close(f.patch_norms, single.patch_norms)


def test_pictures_of_one_shape_run_together(engine, runs, make_picture):
    pictures = [make_picture(seed=i) for i in range(10)]
    list(engine.features_batch(pictures, resolution=112, batch_size=4))
    assert runs == [4, 4, 2]


def test_auto_batches_follow_the_free_memory(engine, runs, make_picture, monkeypatch):
    need = engine._capacity.picture_bytes((98, 140))
    monkeypatch.setattr(devices, "free_memory", lambda _: int(3.5 * need / 0.6))
    list(engine.features_batch([make_picture(seed=i) for i in range(7)], resolution=112))
    assert runs == [3, 3, 1]


def test_batches_take_the_crop(engine, make_picture):
    (f,) = engine.features_batch([make_picture(300, 200)], resolution=112, crop="center")
    assert f.input_size == (112, 112)


def test_no_pictures_give_no_features(engine):
    assert list(engine.features_batch([], resolution=112)) == []


@pytest.mark.parametrize(("wrap", "total"), [(list, 5), (iter, None)])
def test_progress_is_told_after_every_picture(wrap, total, engine, make_picture):
    told = []
    pictures = wrap([make_picture(seed=i) for i in range(5)])
    found = engine.features_batch(pictures, resolution=112, batch_size=2, progress=lambda *p: told.append(p))
    for done, _ in enumerate(found, 1):
        assert told[-1] == (done, total)
    assert told == [(i, total) for i in range(1, 6)]


def test_an_unreadable_picture_is_returned_in_its_place(engine, make_picture):
    sources = [make_picture(seed=0), b"no picture at all", "missing.jpg", make_picture(seed=1)]
    told = []
    results = list(engine.features_batch(sources, resolution=112, errors="return", progress=lambda *p: told.append(p)))
    assert [type(r).__name__ for r in results] == ["Features", "ValueError", "ValueError", "Features"]
    assert "missing.jpg" in str(results[2])
    close(results[3].cls, engine.features(sources[3], resolution=112).cls)
    assert len(told) == 4


def test_an_unreadable_picture_stops_after_what_came_before_it(engine, make_picture):
    found = engine.features_batch([make_picture(seed=0), b"no picture", make_picture(seed=1)], resolution=112)
    assert next(found).cls.shape == (32,)
    with pytest.raises(ValueError, match="not a picture"):
        next(found)


def test_stopping_early_reads_and_runs_no_more(engine, runs, make_picture):
    read = []
    pictures = (read.append(i) or make_picture(seed=i) for i in range(1000))
    found = engine.features_batch(pictures, resolution=112, batch_size=2)
    next(found)
    found.close()
    assert len(read) <= 4  # one window that ran, one that was decoded meanwhile
    assert runs == [2]


def test_batches_leave_the_cache_alone(engine, make_picture):
    list(engine.features_batch([make_picture()], resolution=112))
    assert engine.features_timed(make_picture(), resolution=112)[1] is False


# memory


def out_of_memory_above(n: int):
    def check(images):
        if len(images) > n:
            raise torch.OutOfMemoryError("out of memory")

    return check


def test_out_of_memory_halves_the_batch_and_goes_on(engine, runs, make_engine, make_picture):
    pictures = [make_picture(seed=i) for i in range(8)]
    expected = [f.cls for f in make_engine().features_batch(pictures, resolution=112)]
    runs.clear()
    runs.before = out_of_memory_above(3)
    found = [f.cls for f in engine.features_batch(pictures, resolution=112, batch_size=8)]
    assert runs == [8, 4, 2, 2, 4, 2, 2]
    close(found, expected)


def test_a_single_picture_out_of_memory_names_a_smaller_resolution(engine, runs, make_picture):
    runs.before = out_of_memory_above(0)
    with pytest.raises(RuntimeError, match=r"resolution 1.. needs more memory") as error:
        engine.features(make_picture(), resolution=112)
    assert int(re.search(r"resolution of (\d+) would fit", str(error.value))[1]) < 112
    assert not devices.is_out_of_memory(error.value)  # or callers would halve again


@pytest.mark.parametrize("size", [(100, 100), (37, 53), (300, 100), (1, 2000), (2000, 3), (480, 640), (90, 1000)])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.11])
def test_too_large_names_a_resolution_that_then_fits(size, share, engine, runs, make_picture, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda _: int(share * engine._capacity.picture_bytes((224, 224))))
    picture = make_picture(*size)
    with pytest.raises(RuntimeError, match="would fit") as error:
        engine.features(picture, resolution=448)
    assert runs == []
    named = int(re.search(r"resolution of (\d+) would fit", str(error.value))[1])
    assert 14 <= named < 448
    assert engine.features(picture, resolution=named).patches.size
    assert named >= 0.7 * 224 * (0.6 * share) ** 0.5  # nor is it needlessly small


def test_too_large_in_a_batch_is_returned_or_raised(engine, make_picture, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda _: 1000)
    (error,) = engine.features_batch([make_picture()], resolution=112, errors="return")
    assert "needs more memory" in str(error)
    with pytest.raises(RuntimeError, match="needs more memory"):
        list(engine.features_batch([make_picture()], resolution=112))


def test_cached_features_are_given_out_however_little_memory_is_free(engine, make_picture, monkeypatch):
    engine.features(make_picture(), resolution=112)
    monkeypatch.setattr(devices, "free_memory", lambda _: 0)
    assert engine.features_timed(make_picture(), resolution=112)[1] is True
