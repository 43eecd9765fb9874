"""Checkpoints: complete or not there, pruned, and readable without running code."""

import errno
import pickle
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from dinodemo.io.files import read_json
from dinodemo.train import runfolder
from dinodemo.train.runfolder import (
    DiskFull,
    RunFolder,
    checkpoint_path,
    checkpoint_steps,
    load_checkpoint,
    load_newest_checkpoint,
    prune_checkpoints,
    remove_partial_files,
    save_checkpoint,
    write_atomically,
)


def test_a_state_comes_back(tmp_path):
    state = {"step": 3, "ssl": {"w": torch.arange(4.0)}, "guard": {"history": [{"rank": 1.5}]}, "none": None}
    save_checkpoint(tmp_path / "checkpoints", 3, state)
    back = load_newest_checkpoint(tmp_path / "checkpoints")
    assert torch.equal(back["ssl"].pop("w"), state["ssl"].pop("w"))
    assert back == state


def test_without_checkpoints_there_is_none(tmp_path):
    assert load_newest_checkpoint(tmp_path / "nowhere") is None


def test_the_newest_counts_and_old_ones_go_but_the_best(tmp_path):
    for step in (5, 10, 15, 100, 1000):
        save_checkpoint(tmp_path, step, {"step": step})
    prune_checkpoints(tmp_path, keep_last=2, keep=(10,))
    assert checkpoint_steps(tmp_path) == [10, 100, 1000]
    assert load_newest_checkpoint(tmp_path)["step"] == 1000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, number):
    path = save_checkpoint(tmp_path, 1, {"step": 1})
    before = path.read_bytes()

    def write(file):
        file.write(b"half")
        raise OSError(number, "no")

    with pytest.raises(DiskFull, match="disk is full" if number == errno.ENOSPC else "could not be written"):
        write_atomically(path, write)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_file_that_may_grow_no_further_stops_with_a_sentence(tmp_path):
    code = f"""
import resource, torch
from pathlib import Path
from dinodemo.train.runfolder import DiskFull, save_checkpoint
folder = Path({str(tmp_path)!r})
save_checkpoint(folder, 1, {{"w": torch.zeros(1000)}})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, {resource.RLIM_INFINITY}))
try:
    save_checkpoint(folder, 2, {{"w": torch.zeros(100_000)}})
except DiskFull as error:
    import sys
    sys.stdout.write(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "could not be written" in done.stdout and "free some space and resume" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001.pt"]
    assert load_newest_checkpoint(tmp_path)["w"].shape == (1000,)


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = save_checkpoint(tmp_path, 1, {"w": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"step-00000001\.pt is damaged"):
        load_newest_checkpoint(tmp_path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (eval, ("1/0",))

    path = checkpoint_path(tmp_path, 1)
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(path)


def test_what_a_killed_run_left_half_is_cleaned_up(tmp_path):
    (tmp_path / ".step-00000009.pt.123.tmp").write_bytes(b"half")
    remove_partial_files(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("jump", [-1e7, 1e7])
def test_a_run_goes_on_telling_its_step_when_the_clock_is_set(tmp_path, monkeypatch, jump):
    wall, steady = [1e9], [50.0]
    monkeypatch.setattr(runfolder, "time", SimpleNamespace(time=lambda: wall[0], monotonic=lambda: steady[0]))
    folder = RunFolder(tmp_path)
    folder.report_status(step=1)
    wall[0] += jump
    folder.report_status(step=2)  # too soon
    assert read_json(tmp_path / "status.json")["step"] == 1
    steady[0] += 2.5
    folder.report_status(step=3)
    assert read_json(tmp_path / "status.json")["step"] == 3
