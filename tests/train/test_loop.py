"""Whole runs: the files they leave, what stops them, and that nothing worse than the start is handed back."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from patience import SECONDS
from PIL import Image

from dinodemo.io.exits import LEFT_OUT
from dinodemo.train import loop, state
from dinodemo.train.__main__ import report_status
from dinodemo.train.evaluate import Snapshot
from dinodemo.train.network import load_folder
from dinodemo.train.run import finetune
from dinodemo.train.runfolder import (
    DiskFull,
    RunFolder,
    checkpoint_steps,
    load_checkpoint,
    load_newest_checkpoint,
    read_json,
    read_metrics,
)


def weights(folder):
    return load_folder(folder).module.state_dict()


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_leaves_the_files_that_readers_expect(tmp_path, photos, settings):
    seen, run = [], tmp_path / "run"
    report = finetune(photos, run, settings(), progress=lambda step, total, line: seen.append((step, total)))
    status, config = read_json(run / "status.json"), read_json(run / "config.json")
    assert (status["state"], status["step"], status["total"], status["pid"]) == ("finished", 4, 4, os.getpid())
    assert set(status) == {"state", "step", "total", "eta_s", "pid", "heartbeat", "message"}
    assert status["message"] == report["sentence"] and seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert config["data"] == str(photos) and config["settings"]["prototypes"] == 16
    lines = read_metrics(run)
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [0, 2, 4]
    assert {"loss", "dino", "ibot", "koleo", "lr", "momentum", "teacher_temp"} <= set(lines[1])
    assert "step 4" in (run / "log.txt").read_text()
    assert json.loads((run / "report.json").read_text()) == report
    assert {"better", "sentence", "before", "after", "best_step"} <= set(report)
    assert (run / "export" / "model.safetensors").is_file()
    assert not list(run.rglob("*.tmp"))


def test_labels_never_reach_the_training(tmp_path, photos, settings):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in photos.rglob("*.png"):  # in the order of the class folders
        (flat / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    losses = []
    for name, folder in (("one", photos), ("two", flat)):
        finetune(folder, tmp_path / name, settings(holdout=0.0, on_fall="continue"))
        losses.append([line["loss"] for line in read_metrics(tmp_path / name) if line["kind"] == "train"])
    assert losses[0] == losses[1]


def test_an_unlabelled_folder_is_judged_by_indirect_evidence(tmp_path, photos, settings):
    report = finetune(photos / "dark", tmp_path / "run", settings())
    assert report["measure"] == "crop_recall" and "knn" not in report["before"]


def test_the_start_is_handed_back_unless_something_is_better(tmp_path, photos, settings, monkeypatch):
    def measure(self, backbone, head, heartbeat):
        self.snapshot = Snapshot(torch.zeros(1, 2, 2, 8), torch.zeros(1, 2, 2))
        metrics = {"rank": 9.0, "mean_cosine": 0.1, "entropy": 0.2, "mean_entropy": 0.9}
        return metrics, torch.arange(40) < next(right)

    monkeypatch.setattr("dinodemo.train.evaluate.Evaluator.__call__", measure)
    right = iter([20, 20, 10])
    report = finetune(photos, tmp_path / "worse", settings(lr=1e-2))
    assert not report["better"]
    assert same(weights(tmp_path / "worse/export"), weights(tmp_path / "worse/checkpoints/start"))

    right = iter([20, 30, 10])
    report = finetune(photos, tmp_path / "better", settings(lr=1e-2, momentum_start=0.0, head_warmup=0.0, thaw=0.0))
    assert report["better"] and report["best_step"] == 2
    saved = load_checkpoint(tmp_path / "better/checkpoints/step-00000002.pt")["ssl"]
    exported = weights(tmp_path / "better/export")
    assert same(exported, {k: saved[f"teacher.backbone.{k}"] for k in exported})
    assert not same(exported, weights(tmp_path / "better/checkpoints/start"))


def test_collapse_ends_the_run_and_keeps_the_start(tmp_path, photos, settings, monkeypatch):
    def measure(self, backbone, head, heartbeat):
        self.snapshot, rank = Snapshot(torch.zeros(1, 2, 2, 8), torch.zeros(1, 2, 2)), next(ranks)
        return {"rank": rank, "mean_cosine": 0.1, "entropy": 0.2, "mean_entropy": 0.9}, torch.ones(9).bool()

    ranks = iter([9.0, 1.0])
    monkeypatch.setattr("dinodemo.train.evaluate.Evaluator.__call__", measure)
    report = finetune(photos, tmp_path / "run", settings())
    status = read_json(tmp_path / "run" / "status.json")
    assert report["state"] == status["state"] == "collapsed" and status["step"] == 2
    assert "effective rank" in status["message"]
    assert same(weights(tmp_path / "run/export"), weights(tmp_path / "run/checkpoints/start"))


def test_numbers_that_are_not_finite_roll_back_twice_then_fail(tmp_path, photos, settings, monkeypatch):
    factors, real = [], loop.schedule_step

    def poison(optimizer, plan, step, factor):
        factors.append(factor)
        if step == 3:
            with torch.no_grad():
                next(iter(optimizer.param_groups[-1]["params"])).fill_(torch.nan)
        return real(optimizer, plan, step, factor)

    monkeypatch.setattr(loop, "schedule_step", poison)
    report = finetune(photos, tmp_path / "run", settings())
    status = read_json(tmp_path / "run/status.json")
    assert report["state"] == status["state"] == "failed" and "not a finite number" in status["message"]
    assert factors == [1, 1, 1, 1, 0.5, 0.25] and status["step"] == 3
    assert all(torch.isfinite(w).all() for w in weights(tmp_path / "run/export").values())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_ends_the_run_in_order(tmp_path, photos, settings, name):
    handler = signal.getsignal(getattr(signal, name))
    report = finetune(
        photos,
        tmp_path,
        settings(),
        progress=lambda step, *_: step == 3 and os.kill(os.getpid(), getattr(signal, name)),
    )
    status = read_json(tmp_path / "status.json")
    assert report["state"] == status["state"] == "stopped" and status["step"] == 3
    assert checkpoint_steps(tmp_path / "checkpoints")[-1] == 3
    assert signal.getsignal(getattr(signal, name)) == handler


def test_a_signal_ends_a_long_measurement_too(tmp_path, photos, settings, monkeypatch):
    from dinodemo.train import evaluate

    def read(self, indices, cropped):
        os.kill(os.getpid(), signal.SIGTERM)
        yield torch.zeros(2, 3, 28, 28)

    real = evaluate.Evaluator._pixels
    monkeypatch.setattr(evaluate.Evaluator, "remember_start", lambda self, backbone: None)
    monkeypatch.setattr(evaluate.Evaluator, "_pixels", read)
    report = finetune(photos, tmp_path, settings())
    assert report == {"state": "stopped", "left_out": 0, "better": False, "sentence": report["sentence"]}
    monkeypatch.undo()
    assert evaluate.Evaluator._pixels is real
    assert finetune(None, tmp_path, resume=True)["state"] == "finished"


def test_a_file_called_pause_holds_the_run(tmp_path, photos, settings, monkeypatch):
    monkeypatch.setattr(loop, "PAUSE_SECONDS", 0.01)
    seen = []

    def release():
        end = time.monotonic() + SECONDS
        while (not seen or seen[-1] != "paused") and time.monotonic() < end:
            time.sleep(0.02)
            seen.append(read_json(tmp_path / "status.json")["state"])
        (tmp_path / "pause").unlink()

    helper = threading.Thread(target=release)

    def pause(step, *_):
        if step == 2:
            (tmp_path / "pause").touch()
            helper.start()

    assert finetune(photos, tmp_path, settings(), progress=pause)["state"] == "finished"
    helper.join()
    assert "paused" in seen


def test_a_full_disk_ends_with_a_sentence_and_the_last_checkpoint(tmp_path, photos, settings, monkeypatch):
    real = state.save_checkpoint

    def full(folder, step, saved):
        if step == 4:
            raise DiskFull("checkpoints could not be written (the disk is full); free some space and resume")
        return real(folder, step, saved)

    monkeypatch.setattr(state, "save_checkpoint", full)
    with pytest.raises(RuntimeError, match="disk is full"):
        finetune(photos, tmp_path, settings())
    status = read_json(tmp_path / "status.json")
    assert status["state"] == "failed" and "disk is full" in status["message"]
    assert load_newest_checkpoint(tmp_path / "checkpoints")["step"] == 2


def test_two_runs_do_not_share_a_folder(tmp_path, photos, settings):
    finetune(photos, tmp_path, settings(steps=1))
    with pytest.raises(ValueError, match="holds a run already"):
        finetune(photos, tmp_path, settings(steps=1))

    def second(*_):
        with pytest.raises(ValueError, match="another process is training"):
            finetune(None, tmp_path / "other", resume=True)

    finetune(photos, tmp_path / "other", settings(steps=1), progress=second)


def test_photos_that_cannot_be_read_are_listed_and_left_out(tmp_path, photos, settings):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, path in enumerate(sorted(photos.rglob("*.png"))):
        (folder / f"{i}.png").write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    (folder / "notes.txt").write_text("hello")
    report = finetune(folder, tmp_path / "run", settings(holdout=0.0, steps=6))
    text = (tmp_path / "run" / "log.txt").read_text()
    assert "broken.png" in text and "notes.txt" in text
    assert report["left_out"] == 2 and report_status(report) == LEFT_OUT


@pytest.mark.parametrize(
    ("report", "status"),
    [
        ({"state": "finished", "left_out": 0}, 0),
        ({"state": "stopped", "left_out": 3}, LEFT_OUT),
        ({"state": "failed", "left_out": 3}, 1),
        ({"sentence": "of another rank"}, 0),
    ],
)
def test_the_exit_status_is_that_of_all_commands_over_photos(report, status):
    assert report_status(report) == status


def test_few_photos_are_an_error_that_says_so(tmp_path, settings):
    for i in range(3):
        Image.new("RGB", (30, 30), (i, 0, 0)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match="3 photos"):
        finetune(tmp_path, tmp_path / "run", settings())
    assert read_json(tmp_path / "run" / "status.json")["state"] == "failed"


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2},
        {"centering": "softmax", "shared_head": True},
        {"n_local": 0},
        {"ibot_weight": 0.0},
        {"gram_weight": 1.0},
        {"precision": "bfloat16"},
    ],
)
def test_every_switch_trains(tmp_path, photos, settings, changes):
    report = finetune(photos, tmp_path, settings(steps=2, **changes))
    assert report["state"] == "finished"


def test_the_command_line_trains_and_names_mistakes(tmp_path, photos, short):
    from dinodemo.train.__main__ import main

    sets = [
        part
        for name, value in short.items()
        if name not in ("steps", "backbone")
        for part in ("--set", f"{name}={value}")
    ]
    common = [str(photos), "--out", str(tmp_path / "run"), "--backbone", short["backbone"], "--device", "cpu"]
    assert main([*common, *sets, "--steps", "1", "--threads", "1"]) == 0
    assert main([*common, "--set", "batchsize=3"]) == 1
    assert main(["--out", str(tmp_path / "run"), "--resume", "--set", "lr=1"]) == 1
    assert main(["--out", str(tmp_path / "nothing"), "--resume"]) == 1


def test_the_public_names_are_functions_whatever_was_imported_before():
    import dinodemo.train as package

    assert package.train is package.finetune is finetune
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        package.trian  # noqa: B018


def test_a_status_knows_no_other_states(tmp_path):
    with pytest.raises(ValueError, match="sleeping"):
        RunFolder(tmp_path).report_status(state="sleeping")


def test_settings_are_read_without_loading_torch():
    code = "import sys, dinodemo.train; dinodemo.train.FinetuneConfig(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_run_reports_its_speed_and_time_to_go(tmp_path, photos, settings):
    finetune(photos, tmp_path, settings(), progress=lambda *_: None)
    line = next(line for line in read_metrics(tmp_path) if line["kind"] == "train")
    assert line["images_per_second"] > 0
