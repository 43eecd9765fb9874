"""Training the last blocks on cached activations: what changes, what does not, resuming, budgets, and who judges."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dinodemo.train.evaluate import centre
from dinodemo.train.loop import train_loop
from dinodemo.train.monitor import Action, CollapseMonitor
from dinodemo.train.network import load_folder, tokens
from dinodemo.train.planning import Clock, Worth, plan_views
from dinodemo.train.run import finetune, open_state
from dinodemo.train.runfolder import load_newest_checkpoint, read_json, read_metrics

TAIL = {
    "objective": "diet",
    "steps": 6,
    "eval_every": 3,
    "batch_size": 8,
    "holdout": 0.4,
    "views": 2,
    "lr": 1e-3,
    "start_share": 0.25,
}


class Never:
    """Stand in for the event that stops a run."""

    def is_set(self) -> bool:
        return False


def weights(folder):
    return load_folder(folder).module.state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, photos, settings):
    """Give a run that nothing interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finetune(photos, run, settings(**TAIL))
    return run


def test_a_run_leaves_the_files_that_readers_expect(whole):
    status, report, lines = read_json(whole / "status.json"), read_json(whole / "report.json"), read_metrics(whole)
    chunks = 2  # 20 photos in two views
    assert (status["state"], status["step"], status["total"]) == ("finished", chunks + 6, chunks + 6)
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [chunks, chunks + 3, chunks + 6]
    trained = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in trained] == list(range(1, chunks + 7))
    assert all(np.isfinite(line["loss"]) for line in trained) and trained[0]["lr"] == 0 < trained[-1]["lr"]
    assert {"worth", "better", "sentence", "before", "after", "best_step"} <= set(report)
    assert (whole / "export" / "model.safetensors").is_file() and list((whole / "film").glob("*.npz"))
    assert not (whole / "cache" / "tail").exists()  # gigabytes that nobody needs any more


def test_the_tail_alone_learns(whole):
    before = weights(whole / "checkpoints" / "start")
    learnt = {
        name.removeprefix("teacher.backbone."): value
        for name, value in load_newest_checkpoint(whole / "checkpoints")["ssl"].items()
        if name.startswith("teacher.")
    }
    assert learnt and set(learnt) < set(before)
    assert all("layer.2." in name or name.startswith("layernorm") for name in learnt)
    keys = [name for name in learnt if any(part in name for part in ("k_proj", "v_proj", "norm1"))]
    assert keys and all(torch.equal(learnt[name], before[name]) for name in keys)  # patches attend as before
    assert any(not torch.equal(value, before[name]) for name, value in learnt.items())


def test_the_result_is_averaged_with_the_start(whole):
    saved, before = load_newest_checkpoint(whole / "checkpoints"), weights(whole / "checkpoints" / "start")
    moved = 0
    for name, own in saved["student"].items():
        result = saved["ssl"][f"teacher.backbone.{name}"]
        torch.testing.assert_close(result, 0.75 * own + 0.25 * before[name])
        moved += not torch.equal(own, before[name])
    assert moved > 3


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path, photos, settings, whole):
    class Stop(BaseException):
        pass

    for cut in (1, 5):  # among the trunk's chunks, and after the first evaluation

        def kill(step, total, line, cut=cut):
            if step == cut:
                raise Stop

        run = tmp_path / f"cut-{cut}"
        with pytest.raises(Stop):
            finetune(photos, run, settings(**TAIL), progress=kill)
        finetune(None, run, resume=True)
        one, other = (load_newest_checkpoint(folder / "checkpoints")["ssl"] for folder in (run, whole))
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_cached_step_is_the_step_through_the_whole_network(tmp_path, photos, settings):
    config = settings(**TAIL, precision="float32")
    with open_state(photos, None, tmp_path, config, torch.device("cpu"), False) as state:
        state.trunk.rows._rows = state.trunk.rows._rows.astype(np.float32)  # without rounding
        while not state.trunk.complete:
            first = state.trunk.rows.done
            state.one_step()
            assert state.batch == len(state.trunk.rows.schedule[first][1])  # what photos a second are counted by
        state.one_step()
        assert state.batch == config.batch_size
        rows = state.rows[:4]
        photo = [state.trunk.order[row] for row in rows]
        images = state.cache.batch(photo)
        pixels = torch.stack([centre(image, 28) for image in images])
        pixels = (pixels - state.trunk._mean) / state.trunk._std
        expected = state._losses(tokens(state.start.module, pixels)[0], rows)["loss"].detach()
        hidden = state.trunk.rows.get(np.zeros(4, int), rows)
        found = state._losses(state.tail(hidden, state.trunk.context), rows)["loss"].detach()
        assert float(found) == pytest.approx(float(expected), rel=1e-6)
        assert len(set(state._targets[rows].tolist())) == 4


def test_unreadable_photos_are_left_out(tmp_path, photos, settings):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    for path in (root / "dark" / "08.png", root / "light" / "11.png"):
        path.write_bytes(b"no photo")
    report = finetune(root, tmp_path / "run", settings(**TAIL))
    text = (tmp_path / "run" / "log.txt").read_text()
    assert report["state"] == "finished" and "08.png is left out" in text and "11.png is left out" in text


def test_a_flat_folder_is_judged_by_crops(tmp_path, photos, settings):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted(photos.rglob("*.png"))):
        (flat / f"{i}.png").write_bytes(path.read_bytes())
    report = finetune(flat, tmp_path / "run", settings(**TAIL))
    assert report["measure"] == "crop_recall" and "knn" not in report["before"]
    with pytest.raises(ValueError, match="learns from class folders"):
        finetune(flat, tmp_path / "labels", settings(**{**TAIL, "objective": "labels"}))


def test_labels_sharpen_and_are_exported_as_a_classifier(tmp_path, photos, settings):
    from transformers import AutoModelForImageClassification

    run = tmp_path / "run"
    finetune(photos, run, settings(**{**TAIL, "objective": "labels", "steps": 30, "eval_every": 30, "head_lr": 1e-2}))
    model = AutoModelForImageClassification.from_pretrained(run / "classifier").eval()
    assert model.config.id2label == {0: "dark", 1: "light"}
    right = 0
    for path in photos.rglob("*.png"):
        pixels = torch.from_numpy(np.asarray(Image.open(path).convert("RGB").resize((28, 28)))).permute(2, 0, 1) / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        logits = model(((pixels - mean[:, None, None]) / std[:, None, None])[None]).logits
        right += model.config.id2label[int(logits.argmax())] == path.parent.name
    assert right >= 18


def test_a_run_ends_when_its_time_is_up(tmp_path, photos, settings):
    config = settings(**{**TAIL, "steps": 10_000, "minutes": 5.0})
    clock = Clock(5.0)
    with open_state(photos, None, tmp_path, config, torch.device("cpu"), False, clock) as state:
        while state._tail_step < 20:
            state.one_step()
        assert not state.finished and 0 < state.progress < 1
        clock.used += 290 - clock.elapsed
        assert state.finished and state.progress == pytest.approx(1, abs=0.01)
        assert train_loop(state, Never()).state == "finished"
        assert state.monitor.history  # it was measured before the end


def test_time_that_the_steps_do_not_need_goes_to_further_views(tmp_path, photos, settings):
    config, clock = settings(**{**TAIL, "steps": 10, "views": 6, "minutes": 5.0}), Clock(5.0)
    with open_state(photos, None, tmp_path, config, torch.device("cpu"), False, clock) as state:
        before = state._tail_weights()
        while not state.trunk.has_some:
            assert np.isinf(state.trunk.seconds_of_steps)
            state.one_step()
        assert 0 < state.trunk.seconds_of_steps < 60
        assert all(torch.equal(value, before[name]) for name, value in state._tail_weights().items())
        clock.used += 0.8 * 300 - clock.elapsed  # beyond the share that is always the trunk's
        assert not state.trunk.complete
        clock.used += 300 - clock.reserve - clock.elapsed - 0.5 * state.trunk.seconds_of_steps
        assert state.trunk.complete and not state.trunk.rows.complete


def test_crops_are_halved_where_the_time_does_not_suffice(tmp_path, photos, settings):
    sizes = []
    for name, used in (("long", 0.0), ("short", 289.999)):
        config, clock = settings(**{**TAIL, "minutes": 5.0, "global_size": 56}), Clock(5.0)
        clock.used = used
        with open_state(photos, None, tmp_path / name, config, torch.device("cpu"), False, clock) as state:
            sizes.append((state.trunk.size, state.trunk.rows.shape[2]))
            assert ("at 28 px: there is no time for 56" in state.activity) == (name == "short")
    assert sizes == [(56, 1 + 4 * 4), (28, 1 + 2 * 2)]


def test_views_fit_into_what_time_and_disk_allow():
    assert plan_views(100, 1000, 0) == (6, 100)
    assert plan_views(100, 350, 0) == (3, 100)
    assert plan_views(1000, 700, 0) == (2, 350)  # two views of fewer photos, not one of all
    assert plan_views(100, 1000, 4) == (4, 100)
    assert plan_views(10, 0.5, 0) == (2, 1)


def test_a_clock_leaves_pauses_and_the_end_out():
    clock = Clock(minutes=1, reserve=10)
    assert 49 < clock.left <= 50
    clock.skip(20)
    clock.used += 30
    assert 39 < clock.left <= 40
    assert Clock().left == float("inf")


def judged(settings, measure, worth, hits):
    monitor = CollapseMonitor(settings(), measure, settled=0)
    monitor.worth = worth
    metrics = {"rank": 5.0, "mean_cosine": 0.5}
    assert monitor.judge(2, metrics, torch.arange(100) < 50).action == Action.CONTINUE
    monitor.judge(4, metrics, torch.arange(100) < hits)
    return monitor


@pytest.mark.parametrize(
    ("measure", "uniformity", "hits", "better"),
    [
        ("knn", -0.5, 51, True),  # expected to help: any gain counts
        ("knn", -0.5, 50, False),
        ("knn", -2.5, 51, False),  # expected not to: two standard errors
        ("knn", -2.5, 60, True),
        ("crop_recall", -0.5, 60, True),
        ("crop_recall", -2.5, 90, False),  # a measure that any training of this kind improves
    ],
)
def test_the_better_the_start_the_more_is_asked_of_the_result(settings, measure, uniformity, hits, better):
    monitor = judged(settings, measure, Worth(uniformity, 0.5, -3.0), hits)
    assert monitor.better == better
    report = monitor.verdict("100 photos")
    assert report["better"] == better and report["best_step"] == (4 if better else 2)
    assert ("start is kept" in report["sentence"]) != better
