"""What is written down of runs: read once a look, bounded, and believed only as far as it can be."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from patience import SECONDS

from dinodemo.io.states import RunState
from dinodemo.jobs import runs as module
from dinodemo.jobs.processes import is_training, started_at

from .fake import OTHER, OWNER, wait

STATES = frozenset(str(state) for state in RunState)
WRONG = [
    {},
    [],
    {"queued": "now", "folder": "x"},
    {"queued": None, "folder": None, "launched": {}, "pid": "7", "wanted": 3},
    {"state": 3, "step": "x", "heartbeat": None, "pid": [], "total": {}, "message": {}, "eta_s": "soon"},
]


def test_a_look_at_the_runs_reads_each_request_once(make, folder, monkeypatch):
    runs = make(free_memory=1 << 60)
    ids = [runs.submit(OWNER, str(i), folder, "b", {}) for i in range(12)]
    read, real = Counter(), module.read_request
    monkeypatch.setattr(module, "read_request", lambda path: read.update([path.name]) or real(path))
    runs.tick()
    assert read == Counter(ids)
    read.clear()
    positions = {info.id: info.queue_position for info in runs.runs_of(OWNER)}
    assert [positions[i] for i in ids] == list(range(1, 13))
    assert max(read.values()) <= 2  # the person's own, and the line's


def test_the_queue_has_an_end_for_all_and_for_one_address(make, folder):
    runs = make(free_memory=1 << 60, queue=3, queue_per_address=2)
    first = [runs.submit(OWNER, "r", folder, "b", {}, address="1.2.3.4") for _ in range(2)]
    with pytest.raises(ValueError, match="2 of your runs wait"):
        runs.submit(OTHER, "r", folder, "b", {}, address="1.2.3.4")
    runs.submit(OTHER, "r", folder, "b", {}, address="5.6.7.8")
    with pytest.raises(ValueError, match="3 runs wait already"):
        runs.submit(OTHER, "r", folder, "b", {}, address="9.9.9.9")
    runs.cancel(OWNER, first[0])
    runs.submit(OTHER, "r", folder, "b", {}, address="1.2.3.4")
    with pytest.raises(ValueError, match="3 runs wait already"):
        runs.go_on(OWNER, first[0])


def test_an_address_gets_so_many_hours_a_day(make, folder):
    runs = make(free_memory=1 << 60, hours_a_day=1.0)
    run_id = runs.submit(OWNER, "r", folder, "b", {}, address="1.2.3.4")
    path, now = runs.path(OWNER, run_id), time.time()
    module.change_request(path, launched=now - 7200, pid=1)
    (path / "status.json").write_text(json.dumps({"state": "finished", "heartbeat": now - 600, "pid": 1}))
    with pytest.raises(ValueError, match=r"1\.8 hours within a day"):
        runs.submit(OTHER, "r", folder, "b", {}, address="1.2.3.4")
    runs.submit(OTHER, "r", folder, "b", {}, address="5.6.7.8")


@pytest.mark.parametrize("name", ["request.json", "status.json", "config.json"])
@pytest.mark.parametrize("content", WRONG)
def test_files_of_a_wrong_kind_do_not_stop_the_queue(make, folder, name, content):
    runs = make()
    broken = runs.submit(OWNER, "broken", folder, "b", {"steps": 2})
    (runs.path(OWNER, broken) / name).write_text(json.dumps(content))
    sound = runs.submit(OTHER, "sound", folder, "b", {"steps": 2})
    end = time.time() + SECONDS
    while time.time() < end and runs.info(OTHER, sound).state != "finished":
        runs.tick()
        assert runs.runs_of(OWNER)[0].state in STATES
        time.sleep(0.02)
    assert runs.info(OTHER, sound).state == "finished"


@pytest.mark.parametrize("how", ["truncated", "emptied", "a folder"])
def test_whatever_becomes_of_a_runs_files_the_queue_goes_on(make, folder, how):
    runs = make()
    names = ["request.json", "status.json", "config.json", "output.txt", ".lock", "step", "pause"]
    broken = [runs.submit(OWNER, name, folder, "b", {"steps": 2}) for name in names]
    for run_id in broken:
        wait(runs, run_id, "finished")
    for run_id, name in zip(broken, names, strict=True):
        spoil(runs.path(OWNER, run_id) / name, how)
    again = make()  # as after a restart
    assert {info.state for info in again.runs_of(OWNER)} <= STATES
    sound = again.submit(OTHER, "sound", folder, "b", {"steps": 2})
    end = time.time() + SECONDS
    while time.time() < end and again.info(OTHER, sound).state != "finished":
        again.tick()
        time.sleep(0.02)
    assert again.info(OTHER, sound).state == "finished"
    for run_id in broken:
        if (again.owner_folder(OWNER) / run_id / "request.json").is_file() and again.info(OWNER, run_id).over:
            again.delete(OWNER, run_id)


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    if how == "a folder":
        path.mkdir()
    else:
        path.write_bytes(content[: len(content) // 2] if how == "truncated" else b"")


def test_cleaners_are_called_by_the_watcher(make):
    runs, called = make(), []
    runs.clean_with(lambda: called.append(1))
    runs.tick()
    runs.tick()
    assert called == [1]


def test_a_stranger_with_the_same_number_is_no_training(tmp_path):
    assert not is_training(os.getpid(), tmp_path)
    for pid in (None, 0, -1, True, "1", 2**70, 4_000_000):
        assert not is_training(pid, tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()", str(tmp_path)], stdin=subprocess.PIPE)
    try:
        assert is_training(child.pid, tmp_path, started_at(child.pid))
        assert not is_training(child.pid, tmp_path / "other")
    finally:
        child.kill()
        child.wait()
    assert not is_training(child.pid, tmp_path)


def test_the_start_decides_where_a_command_line_cannot_be_read(tmp_path, monkeypatch):
    def denied(self):
        raise psutil.AccessDenied()

    monkeypatch.setattr(psutil.Process, "cmdline", denied)
    started = started_at(os.getpid())
    assert is_training(os.getpid(), tmp_path, started)
    assert not is_training(os.getpid(), tmp_path, started - 60)
    assert not is_training(os.getpid(), tmp_path)
