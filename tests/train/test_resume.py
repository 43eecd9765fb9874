"""A run that was killed goes on as if nothing had happened, to the last bit."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from dinodemo.train.run import finetune
from dinodemo.train.runfolder import checkpoint_steps, load_newest_checkpoint, read_json, read_metrics

LONG = {"steps": 6, "eval_every": 3, "checkpoint_every": 2, "drop_path": 0.2, "gram_weight": 0.5}


def metrics(run):
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in read_metrics(run)]


def same_weights(one, other):
    states = [load_newest_checkpoint(run / "checkpoints") for run in (one, other)]
    return all(torch.equal(value, states[1]["ssl"][name]) for name, value in states[0]["ssl"].items())


class Killed(BaseException):
    """Stand in for a kill inside this process."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, photos, settings):
    """Give a run that nothing interrupted; resuming it changes nothing."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finetune(photos, run, settings(**LONG))
    return run


def test_a_run_killed_with_nine_resumes_to_the_last_bit(tmp_path, photos, short, whole):
    script = f"""
import os, signal, torch
from pathlib import Path
from dinodemo.train import FinetuneConfig, finetune
torch.set_num_threads(1)
config = FinetuneConfig.from_dict({short | LONG})
def kill(step, total, line):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
finetune(Path({str(photos)!r}), Path({str(tmp_path / "cut")!r}), config, progress=kill)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert read_json(tmp_path / "cut/status.json")["state"] == "running"
    assert checkpoint_steps(tmp_path / "cut/checkpoints")[-1] == 4
    report = finetune(None, tmp_path / "cut", resume=True)
    assert report["state"] == "finished"
    assert metrics(tmp_path / "cut") == metrics(whole)
    assert same_weights(tmp_path / "cut", whole)


@pytest.mark.parametrize("where", ["before the rename", "after the rename", "in the export"])
def test_a_kill_while_saving_loses_nothing(tmp_path, photos, settings, whole, monkeypatch, where):
    real, saved = os.replace, []

    def die(source, target):
        name = os.path.basename(target)
        if name == "step-00000003.pt" and where != "in the export":
            if where == "after the rename":
                real(source, target)
            raise Killed
        if name == "export":
            saved.append(target)
            if where == "in the export" and len(saved) == 2:
                raise Killed
        real(source, target)

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(Killed):
        finetune(photos, tmp_path / "cut", settings(**LONG))
    monkeypatch.undo()
    finetune(None, tmp_path / "cut", resume=True)
    assert metrics(tmp_path / "cut") == metrics(whole)
    assert same_weights(tmp_path / "cut", whole)
    assert (tmp_path / "cut/export/model.safetensors").is_file()
    assert not [p for p in (tmp_path / "cut").rglob(".*") if p.name != ".lock"]


def test_a_stopped_run_goes_on_without_its_backbone_or_settings(tmp_path, photos, settings, whole, tiny_folder):
    from shutil import copytree

    copy = copytree(tiny_folder, tmp_path / "start")
    run = tmp_path / "run"
    finetune(
        photos,
        run,
        settings(**LONG, backbone=str(copy)),
        progress=lambda step, *_: step == 2 and os.kill(os.getpid(), signal.SIGTERM),
    )
    (copy / "model.safetensors").unlink()
    assert finetune(None, run, resume=True)["state"] == "finished"
    assert metrics(run) == metrics(whole)


def test_a_checkpoint_keeps_the_names_of_version_0_1(whole):
    saved = load_newest_checkpoint(whole / "checkpoints")
    assert set(saved) == {"step", "evaluated", "lr_factor", "ssl", "optimizer", "sampler", "guard", "total", "seconds"}
    guard = {"history", "start_hits", "best_hits", "best_step", "peak_hits", "fallen", "rollbacks", "worth"}
    assert set(saved["guard"]) == guard
    traits = {"head", "last", "scale", "thaw_step", "decays"}
    assert all(traits <= set(group) for group in saved["optimizer"]["param_groups"])
    parts = {".".join(name.split(".")[:2]) for name in saved["ssl"]} - {"dino_centre", "ibot_centre"}
    networks = ("backbone", "dino_head", "ibot_head")
    assert parts == {f"{who}.{part}" for who in ("student", "teacher") for part in networks}
    assert {path.name for path in (whole / "film").iterdir()} == {f"step-{step:08d}.npz" for step in (0, 3, 6)}


def test_a_finished_run_resumes_to_the_same_report(whole):
    before = read_json(whole / "report.json")
    assert finetune(None, whole, resume=True) == before
    assert metrics(whole)[-1]["step"] == 6


def test_a_half_written_line_of_metrics_is_dropped(whole, photos):
    lines = metrics(whole)
    with (whole / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    finetune(None, whole, resume=True)
    assert metrics(whole) == lines


def test_a_resumed_run_keeps_its_settings(whole, settings):
    with pytest.raises(ValueError, match="keeps its settings"):
        finetune(None, whole, settings(), resume=True)


def test_resume_of_nothing_needs_photos(tmp_path):
    with pytest.raises(ValueError, match="holds no run to resume"):
        finetune(None, tmp_path / "nothing", resume=True)
