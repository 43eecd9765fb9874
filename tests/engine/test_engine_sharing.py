"""One engine for many: its cache, threads, and requests that run together."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from closeness import close
from PIL import Image

from dinodemo import Engine
from dinodemo.engine.cache import SharedCache
from dinodemo.io.images import load_photo

# cache


def test_the_same_picture_runs_once_however_it_is_given(engine, runs, make_picture, tmp_path):
    picture = make_picture()
    path = tmp_path / "same.png"
    Image.fromarray(picture).save(path)
    sources = [picture, picture.copy(), str(path), path.read_bytes(), Image.open(path), load_photo(path)]
    cached = [engine.features_timed(source, resolution=112)[1] for source in sources]
    assert cached == [False, True, True, True, True, True]
    assert runs == [1]


@pytest.mark.parametrize(
    "other",
    [{"resolution": 98}, {"attention": True}, {"crop": "center"}],
    ids=str,
)
def test_other_questions_run_again(other, engine, runs, make_picture):
    question = {"resolution": 112, "attention": False, "crop": None}
    engine.features(make_picture(), **question)
    assert engine.features_timed(make_picture(), **question | other)[1] is False
    assert len(runs) == 2


def test_one_changed_pixel_is_another_picture(engine, make_picture):
    engine.features(make_picture(), resolution=112)
    changed = make_picture().copy()
    changed[0, 0, 0] ^= 1
    assert engine.features_timed(changed, resolution=112)[1] is False


def test_cached_features_equal_the_first_ones(engine, make_picture):
    first, again = (engine.features(make_picture(), resolution=112, attention=True) for _ in range(2))
    np.testing.assert_array_equal(first.patches, again.patches)
    np.testing.assert_array_equal(first.layer_attention, again.layer_attention)


def test_engines_that_share_a_cache_do_not_share_answers(make_engine, make_picture):
    cache = SharedCache(1 << 20)
    engines = [make_engine(f, cache=cache) for f in ("dinov2", "dinov2-registers")]
    engines.append(make_engine("dinov2", cache=cache, dtype="bfloat16"))
    found = [e.features_timed(make_picture(), resolution=112) for e in engines]
    assert [cached for _, cached in found] == [False, False, False]
    assert len({f.cls.tobytes() for f, _ in found}) == 3
    assert make_engine("dinov2", cache=cache).features_timed(make_picture(), resolution=112)[1] is True


def test_a_rewritten_export_is_not_answered_from_the_old_one(tiny_folder, tmp_path, make_picture):
    folder, cache = shutil.copytree(tiny_folder, tmp_path / "export"), SharedCache(1 << 20)
    Engine(str(folder), device="cpu", dtype="float32", cache=cache).features(make_picture(), resolution=112)
    (folder / "model.safetensors").touch()
    again = Engine(str(folder), device="cpu", dtype="float32", cache=cache)
    assert again.features_timed(make_picture(), resolution=112)[1] is False


def test_the_cache_is_bounded(make_engine, make_picture):
    cache = SharedCache(100_000)
    engine = make_engine(cache=cache)
    for i in range(20):
        engine.features(make_picture(seed=i), resolution=112, attention=True)
        assert 0 < cache.nbytes <= 100_000
    assert engine.features_timed(make_picture(seed=19), resolution=112, attention=True)[1] is True
    assert engine.features_timed(make_picture(seed=0), resolution=112, attention=True)[1] is False


def test_errors_are_not_cached(engine, runs, make_picture):
    def fail(images):
        raise RuntimeError("the device is gone")

    runs.before = fail
    with pytest.raises(RuntimeError, match="the device is gone"):
        engine.features(make_picture(), resolution=112)
    del runs.before
    assert engine.features_timed(make_picture(), resolution=112)[1] is False


# threads


def test_eight_threads_with_one_picture_run_the_network_once(engine, runs, make_picture):
    asked, release = threading.Semaphore(0), threading.Event()
    runs.before = lambda _: release.wait(10)
    real = engine._cache.get

    def get(key, compute):
        asked.release()
        return real(key, compute)

    engine._cache.get = get
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(engine.features, make_picture(), resolution=112) for _ in range(8)]
        for _ in range(8):
            assert asked.acquire(timeout=300)
        release.set()
        found = [job.result(10) for job in jobs]
    assert runs == [1]
    assert len({f.cls.tobytes() for f in found}) == 1


@pytest.mark.parametrize("merge", [False, True])
def test_eight_threads_with_their_own_pictures_are_not_mixed_up(merge, engine, make_engine, make_picture):
    sizes = [(60, 90), (90, 60), (60, 90), (37, 53)]
    pictures = [make_picture(*sizes[i % 4], seed=i) for i in range(8)]
    expected = [make_engine().features(p, resolution=112, attention=True) for p in pictures]
    engine._scheduler._merge = merge
    start = threading.Barrier(8, timeout=300)

    def work(i):
        start.wait()
        order = [(i + k) % 8 for k in range(8)] if i % 2 else [i] * 4
        return [(j, engine.features(pictures[j], resolution=112, attention=True)) for j in order]

    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(work, range(8)):
            for j, f in result:
                close(f.cls, expected[j].cls)
                close(f.patches, expected[j].patches)
                close(f.layer_attention, expected[j].layer_attention)


def test_waiting_requests_are_merged_into_one_run(engine, runs, make_engine, make_picture):
    pictures = [make_picture(seed=i) for i in range(5)]
    expected = [make_engine().features(p, resolution=112).cls for p in pictures]
    runs.clear()
    engine._scheduler._merge = True
    inside, release, asked = threading.Event(), threading.Event(), threading.Semaphore(0)
    lock = engine._scheduler._device_lock

    class Door:
        def __enter__(self):
            asked.release()
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    def block(_):
        inside.set()
        assert release.wait(10)

    engine._scheduler._device_lock, runs.before = Door(), block
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(engine.features, pictures[0], resolution=112)]
        assert inside.wait(10)
        jobs += [pool.submit(engine.features, p, resolution=112) for p in pictures[1:]]
        for _ in range(5):
            assert asked.acquire(timeout=300)
        release.set()
        found = [job.result(10).cls for job in jobs]
    assert runs == [1, 4]
    close(found, expected)


def test_single_questions_get_through_between_the_batches_of_a_long_job(engine, runs, make_picture):
    pictures = [make_picture(seed=i) for i in range(6)]
    found = engine.features_batch(pictures, resolution=112, batch_size=2)
    next(found)
    assert engine.features(make_picture(seed=99), resolution=112).cls.shape == (32,)
    assert len(list(found)) == 5


def test_every_run_holds_the_device(make_engine, runs, make_picture):
    lock, held = threading.Lock(), []
    engine = make_engine(device_lock=lock)
    runs.before = lambda _: held.append(lock.locked())
    engine.features(make_picture(), resolution=112)
    list(engine.features_batch([make_picture()], resolution=112))
    engine.layers(make_picture(), layers=(0,), resolution=112)
    engine.attention_rows(make_picture(), (0, 0), resolution=112)
    assert held == [True] * 4
    assert not lock.locked()
