"""The pool of engines: loads once, shares, drops."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dinodemo.engine import devices
from dinodemo.engine.pool import EnginePool


def test_many_askers_load_once(tiny_folder):
    pool = EnginePool("cpu", "float32")
    barrier = threading.Barrier(8)

    def ask(_):
        barrier.wait()
        return pool.get(str(tiny_folder))

    with ThreadPoolExecutor(8) as threads:
        assert len({id(engine) for engine in threads.map(ask, range(8))}) == 1


def test_backbones_do_not_share_cached_features(tiny_folders, make_picture):
    pool = EnginePool("cpu", "float32")
    picture = make_picture()
    sizes = {pool.get(str(folder)).features(picture, 112).patches.tobytes() for folder in tiny_folders.values()}
    assert len(sizes) == len(tiny_folders)


def test_old_ones_are_dropped_when_memory_is_short_and_still_work(tiny_folders, make_picture, monkeypatch):
    pool = EnginePool("cpu", "float32")
    first = pool.get(str(tiny_folders["dinov2"]))
    monkeypatch.setattr(devices, "free_memory", lambda device: 0)
    pool.get(str(tiny_folders["dinov3"]))
    assert pool.loaded() == [str(tiny_folders["dinov3"])]
    monkeypatch.undo()
    assert first.features(make_picture(), 112).cls.shape == (32,)


def test_a_failed_load_can_be_tried_again(tmp_path, tiny_folder):
    pool = EnginePool("cpu", "float32")
    target = tmp_path / "model"
    with pytest.raises(ValueError, match="no backbone"):
        pool.get(str(target))
    target.symlink_to(tiny_folder)
    assert pool.get(str(target)).backbone.width == 32
