"""The pool of engines: loads once, shares, drops."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

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


@pytest.fixture
def retrained(tiny_folders, tmp_path):
    """Give a model folder, and a function that puts other weights of the same shape in it, as training again does."""
    folder = shutil.copytree(tiny_folders["dinov2"], tmp_path / "model")

    def retrain():
        tensors = load_file(folder / "model.safetensors")
        save_file({name: value * 1.5 for name, value in tensors.items()}, folder / "new", metadata={"format": "pt"})
        (folder / "new").replace(folder / "model.safetensors")

    return folder, retrain


def test_a_folder_that_is_trained_again_in_place_is_loaded_again(retrained, make_picture):
    folder, retrain = retrained
    pool, picture = EnginePool("cpu", "float32"), make_picture()
    first = pool.get(str(folder))
    before = first.features(picture, 112)
    assert pool.get(str(folder)) is first
    retrain()
    second = pool.get(str(folder))
    after = second.features(picture, 112)
    assert second is not first and pool.get(str(folder)) is second
    assert before.identity.sha256 != after.identity.sha256
    assert not np.allclose(before.cls, after.cls)
    np.testing.assert_array_equal(first.features(picture, 112).cls, before.cls)  # who still has it keeps what it was


def test_weights_that_are_deleted_meanwhile_go_on_running(retrained):
    folder, _ = retrained
    pool = EnginePool("cpu", "float32")
    first = pool.get(str(folder))
    (folder / "model.safetensors").unlink()
    assert pool.get(str(folder)) is first


def test_an_engine_whose_files_changed_before_it_was_asked_does_not_name_the_new_ones(retrained):
    folder, retrain = retrained
    engine = EnginePool("cpu", "float32").get(str(folder))
    retrain()
    assert engine.is_outdated()
    assert engine.identity.sha256 == ""
