"""Disks that are full, memory that is not there, files cut in half, clocks that jump: a sentence, and on it goes."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time

import gradio as gr
import numpy as np
import pytest
import torch

from dinodemo import Engine
from dinodemo.engine import devices
from dinodemo.engine.pool import EnginePool
from dinodemo.jobs.runs import Limits, Runs
from dinodemo.tasks.retrieval import ImageIndex
from dinodemo.web import components
from dinodemo.web.background import Work
from dinodemo.web.errors import FORBIDDEN, FULL, OUT_OF_MEMORY, friendly

OWNER = "a" * 32


@friendly
def handle(function):
    return function()


def raising(error: BaseException):
    def fail(*_, **__):
        raise error

    return fail


# disk


@pytest.fixture
def small_disk(tmp_path):
    """Give a disk of two megabytes; skips where none can be had."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_download_that_finds_the_disk_full_says_so_and_the_next_one_works(small_disk, monkeypatch):
    monkeypatch.setattr(components.tempfile, "gettempdir", lambda: str(small_disk))
    with pytest.raises(gr.Error, match="disk is full"):
        handle(lambda: components.write_download("a.png", bytes(3_000_000)))
    shutil.rmtree(small_disk / "dinodemo-downloads")
    assert handle(lambda: components.write_download("a.png", b"1")).endswith("a.png")


def test_an_index_on_a_full_disk_keeps_what_it_had(small_disk, engine, tmp_path, make_picture):
    index = ImageIndex(small_disk / "index", engine)
    first = tmp_path / "first.png"
    torch_free_save(first, make_picture())
    index.add([first])
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    second = tmp_path / "second.png"
    torch_free_save(second, make_picture(seed=1))
    with pytest.raises(gr.Error, match="disk is full"):
        handle(lambda: index.add([second]))
    assert [hit.path for hit in ImageIndex(small_disk / "index", engine).search(first)] == [str(first)]
    filler.unlink()
    assert handle(lambda: index.add([second])).added == 1


def learned(engine, make_picture) -> dict:
    """Return one of everything that is learned and saved as a file, by the file's name."""
    from dinodemo.tasks.anomaly import AnomalyDetector
    from dinodemo.tasks.classify import PhotoClassifier
    from dinodemo.tasks.depth import DepthProbe
    from dinodemo.tasks.pca.basis import PatchPCA
    from dinodemo.tasks.segmentation_head import SegmentationHead

    photos = [make_picture(70, 70, seed=i) for i in range(6)]
    metres = np.linspace(1, 4, 4900, dtype=np.float32).reshape(70, 70)
    classes = (metres > 2).astype(np.uint8)
    return {
        "set.safetensors": AnomalyDetector(engine, resolution=70).fit(photos),
        "classifier.safetensors": PhotoClassifier(engine, "mean", resolution=70).fit(photos, list("ababab")),
        "probe.safetensors": DepthProbe("lin1").fit(engine, [(photo, metres) for photo in photos]),
        "head.safetensors": SegmentationHead("linear", epochs=1).fit(engine, [(photo, classes) for photo in photos]),
        "basis.npz": PatchPCA(foreground=None).fit([engine.features(photos[0], 70)]),
    }


def test_what_is_saved_on_a_full_disk_leaves_the_former_file_whole(small_disk, engine, make_picture):
    for name, made in learned(engine, make_picture).items():
        path = small_disk / name
        path.write_bytes(b"the former one")
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        with pytest.raises(gr.Error, match="disk is full"):
            handle(lambda made=made, path=path: made.save(path))
        assert path.read_bytes() == b"the former one" and not list(small_disk.glob(".*")), name
        filler.unlink()
        made.save(path)
        assert path.stat().st_size > 1000


def test_a_command_says_what_the_disk_refused(small_disk, make_picture, capsys):
    from dinodemo import cli
    from dinodemo.train.__main__ import main as train

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    photos = small_disk.parent / "photos"
    photos.mkdir()
    for i in range(8):
        torch_free_save(photos / f"{i}.png", make_picture(70, 70, seed=i))
    arguments = [str(photos), "--out", str(small_disk / "run"), "--backbone", "scratch", "--steps", "1"]
    for run, argv in ((train, arguments), (cli.main, ["train", *arguments])):
        assert run(argv) == 1
        told = capsys.readouterr().err
        assert told.startswith("dinodemo: ") and "read-only file system; check the folder" in told, told


def torch_free_save(path, rgb: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(rgb).save(path)


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOSPC, FULL), (errno.EDQUOT, FULL), (errno.EROFS, FORBIDDEN), (errno.EACCES, FORBIDDEN)],
)
def test_what_the_disk_refuses_is_told_without_paths(number, told, caplog):
    with pytest.raises(gr.Error) as caught:
        handle(raising(OSError(number, os.strerror(number), "/secret/path")))
    assert str(caught.value).strip("'\"") == told.strip("'\"") and "/secret" not in caplog.text


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(components.tempfile, "mkdtemp", raising(PermissionError(errno.EACCES, "denied")))
    monkeypatch.setattr(components.tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(gr.Error, match="may not write"):
        handle(lambda: components.write_download("a.png", b"1"))


@pytest.mark.parametrize("how", ["empty", "half", "noise"])
def test_a_damaged_index_is_named_and_others_are_served(how, tmp_path, engine, make_picture):
    photo = tmp_path / "photo.png"
    torch_free_save(photo, make_picture())
    for name in ("good", "bad"):
        ImageIndex(tmp_path / name, engine).add([photo])
    for path in [*(tmp_path / "bad").rglob("*.lance"), *(tmp_path / "bad").rglob("*.manifest")]:
        if path.is_file():
            content = path.read_bytes()
            noise = np.random.default_rng(0).bytes(len(content))
            path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": noise}[how])
    with pytest.raises(gr.Error, match="index bad cannot be used: its files are damaged"):
        handle(lambda: ImageIndex(tmp_path / "bad", engine).search(photo))
    assert len(handle(lambda: ImageIndex(tmp_path / "good", engine).search(photo))) == 1


# memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        RuntimeError("[enforce fail] can't allocate memory:\nbuy more"),
    ],
    ids=["python", "gpu", "cpu"],
)
def test_running_out_of_memory_anywhere_is_a_sentence(error):
    with pytest.raises(gr.Error) as caught:
        handle(raising(error))
    assert OUT_OF_MEMORY in str(caught.value)


def test_a_photo_beyond_the_memory_names_a_resolution_and_the_next_one_works(engine, make_picture, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(devices, "free_memory", lambda device: 300_000)
        with pytest.raises(gr.Error, match=r"resolution of \d+ would fit"):
            handle(lambda: engine.features(make_picture(), 1022))
    assert handle(lambda: engine.features(make_picture(), 70)).cls.shape == (32,)


# models


def test_a_backbone_cut_in_half_leaves_the_others_running(tiny_folder, tmp_path, make_picture):
    broken = shutil.copytree(tiny_folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    pool = EnginePool("cpu")
    pool.get(str(tiny_folder))
    with pytest.raises(gr.Error, match=r"damaged .* fetch them again"):
        handle(lambda: pool.get(str(broken)))
    assert handle(lambda: pool.get(str(tiny_folder)).features(make_picture(), 70)).cls.shape == (32,)
    shutil.copy(tiny_folder / "model.safetensors", weights)  # fetched again: no restart is needed
    assert handle(lambda: pool.get(str(broken)).features(make_picture(), 70)).cls.shape == (32,)


# threads


def test_an_error_in_a_worker_thread_ends_that_work_only():
    @friendly
    def work(function):
        yield from Work(lambda progress: function()).steps()

    for error in (KeyError("x"), MemoryError(), OSError(errno.ENOSPC, "full")):
        with pytest.raises(gr.Error):
            list(work(raising(error)))
    assert list(work(lambda: None)) == [] and threading.active_count() < 20


def test_one_bad_request_in_the_engines_queue_does_not_stop_the_others(engine, make_picture, monkeypatch):
    network, calls = engine._network, []
    really = type(network).__call__

    def sometimes(self, *asked):
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("a bug")
        return really(self, *asked)

    monkeypatch.setattr(type(network), "__call__", sometimes)
    with pytest.raises(gr.Error, match="went wrong"):
        handle(lambda: engine.features(make_picture(), 70))
    assert handle(lambda: engine.features(make_picture(), 70)).cls.shape == (32,)


# runs


@pytest.fixture
def runs(tmp_path):
    script = tmp_path / "fake.py"
    script.write_text("import time; time.sleep(30)")
    return Runs(tmp_path / "runs", Limits(free_disk=0, free_memory=0), (sys.executable, str(script)))


@pytest.fixture
def ended(runs, tmp_path):
    """Give a run that says it is finished, and its folder."""
    (tmp_path / "photos").mkdir()
    run_id = runs.submit(OWNER, "r", tmp_path / "photos", "b", {})
    folder = runs.path(OWNER, run_id)
    request = json.loads((folder / "request.json").read_text())
    now = time.time()
    (folder / "request.json").write_text(json.dumps(request | {"launched": now, "pid": 2**22 + 1}))
    status = {"state": "finished", "step": 5, "total": 5, "pid": 2**22 + 1, "heartbeat": now + 10}
    (folder / "status.json").write_text(json.dumps(status))
    return run_id, folder, status


@pytest.mark.parametrize("jump", [-3600, 86400 * 365])
def test_a_clock_that_jumps_while_a_run_goes_on_hides_no_result(runs, ended, jump):
    run_id, folder, status = ended
    (folder / "status.json").write_text(json.dumps(status | {"heartbeat": status["heartbeat"] + jump}))
    assert runs.info(OWNER, run_id).state == "finished"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"queued": "x"}', "\0" * 50])
def test_a_damaged_request_is_a_failed_run_and_the_others_go_on(runs, ended, content, tmp_path):
    run_id, folder, _ = ended
    (folder / "request.json").write_text(content)
    info = runs.info(OWNER, run_id)
    assert info.state == "failed" and "damaged" in info.message
    other = runs.submit(OWNER, "other", tmp_path / "photos", "b", {})
    runs.tick()
    assert runs.info(OWNER, other).state == "starting"
    runs.cancel(OWNER, other)
    runs.delete(OWNER, run_id)
    assert not folder.exists()


def test_the_watcher_outlives_whatever_happens_in_it(runs, monkeypatch, caplog):
    monkeypatch.setattr("dinodemo.jobs.runs.TICK", 0.01)
    looks = []

    def tick():
        looks.append(1)
        raise (KeyError("a bug"), OSError("gone"))[len(looks) % 2]

    monkeypatch.setattr(runs, "tick", tick)
    with caplog.at_level(logging.ERROR):
        thread = runs.watch()
        deadline = time.monotonic() + 300
        while len(looks) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert thread.is_alive() and "looking after the runs failed" in caplog.text
    monkeypatch.setattr(runs, "tick", lambda: None)


def test_the_engine_of_a_read_only_folder_of_weights_works(tiny_folder, tmp_path, make_picture):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    for path in (*folder.iterdir(), folder):
        path.chmod(0o444 if path.is_file() else 0o555)
    try:
        assert Engine(str(folder), device="cpu").features(make_picture(), 70).cls.shape == (32,)
    finally:
        folder.chmod(0o755)
