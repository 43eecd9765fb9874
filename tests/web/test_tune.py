"""The fine-tuning tab without a browser: where photos lie, what is shown of a run's folder, the selection."""

import json
import zipfile
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dinodemo.backbones import BACKBONES
from dinodemo.io.uploads import photos_in
from dinodemo.jobs.runs import RunInfo
from dinodemo.tasks.finetune import check_tab as tune_check
from dinodemo.tasks.finetune import draw as tune_view
from dinodemo.tasks.finetune import run_tab as tune_run
from dinodemo.tasks.finetune import tab as tune_tab
from dinodemo.web.folder_picker import server_folder
from dinodemo.web.owner import new_owner
from dinodemo.web.services import Services
from dinodemo.web.settings import Settings, parse


def uploaded(folder: Path, names) -> list:
    """Make uploaded files as the browser's field hands them over."""
    files = []
    for i, name in enumerate(names):
        path = folder / f"upload{i}.png"
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 256, (70, 70, 3), dtype=np.uint8)).save(path)
        files.append((path, PurePosixPath(name)))
    return files


def test_the_check_suggests_and_selects(store, tmp_path, engine):
    owner, token = new_owner(), store.new()
    files = uploaded(tmp_path, [f"p/{i}.png" for i in range(6)])
    files.append((files[0][0], PurePosixPath("p/same.png")))
    store.add(owner, token, files)
    services = SimpleNamespace(pool=SimpleNamespace(get=lambda name: engine))
    told = []
    checked = tune_check.check(services, store.describe(owner, token), "any", lambda *step: told.append(step))
    assert told[-1][:2] == (7, 7)
    assert [s.kind for s in checked.suggestions] == ["copy"] and len(checked.left_out) == 1
    assert tune_check.summary(checked).startswith("**7 photos** · 1 copy · 1 to be left out")
    assert "**Worth it?**" in tune_check.summary(checked) and checked.worth.ordinary is not None
    assert len(tune_check.left_out(checked, "", 0)) == 1
    assert len(tune_check.left_out(checked, "", 3)) == 4
    assert {p.name for p in checked.photos.paths} - {p.name for p in tune_check.left_out(checked, "2.png", 2)} >= {
        "2.png"
    }
    kept = checked.toggle(checked.suggestions[0].path)
    assert kept.left_out == frozenset() and tune_check.left_out(kept, "", 0) == set()
    with pytest.raises(ValueError, match="no photo's path contains"):
        tune_check.left_out(checked, "zebra", 2)


def write_run(folder: Path, lines, **files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + '\n{"kind": "tr')
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_curves_are_read_up_to_a_half_written_line_and_thinned(tmp_path):
    lines = [
        {"kind": "train", "step": i, "loss": 1.0 / (i + 1), "dino": 1.0, "lr": 1e-4, "head_lr": 1e-3}
        for i in range(5000)
    ]
    lines.append({"kind": "eval", "step": 0, "rank": 80.0, "knn": 0.5, "drift": 0.1})
    lines.append({"kind": "eval", "step": 9, "rank": 40.0, "knn": 0.6, "drift": 0.2})
    read = tune_view.read_metrics(write_run(tmp_path / "run", lines))
    assert len(read) == len(lines)
    losses = tune_view.loss_curves(read)
    assert set(losses.curve) == {"loss", "dino"} and len(losses) <= 2 * tune_view.MOST_POINTS
    health = tune_view.health_curves(read)
    assert health[health.curve == "effective rank"].value.tolist() == [1.0, 0.5]
    assert health[health.curve == "patch drift"].value.tolist() == [0.1, 0.2]
    assert tune_view.measure_curves(read).value.tolist() == [0.5, 0.6]


def test_status_and_verdict_say_it_plainly(tmp_path):
    info = RunInfo("id", "my run", tmp_path, "running", step=3, total=20, eta_s=150)
    assert tune_view.status(info, [{"images_per_second": 2.5}]) == (
        "**my run** is running · step 3 of 20 · 2.5 photos/s · 2 min to go"
    )
    queued = RunInfo("id", "my run", tmp_path, "queued", queue_position=2)
    assert "at place 2" in tune_view.status(queued, [])
    report = {"better": False, "sentence": "It is not better.", "before": {"knn": 0.5}, "after": {"knn": 0.51}}
    told = tune_view.verdict(write_run(tmp_path / "run", [], report=report))
    assert "Not better than the start" in told and "| k-NN accuracy | 50.0% | 51.0% |" in told
    assert tune_view.verdict(tmp_path / "none") == "There is no result yet."


def test_the_film_shows_each_photo_at_each_evaluation(tmp_path):
    (tmp_path / "film").mkdir()
    for step in (0, 10):
        patches = np.random.default_rng(step).normal(size=(3, 8, 8, 16)).astype(np.float16)
        attention = np.random.default_rng(step).random((3, 8, 8)).astype(np.float16)
        np.savez(tmp_path / "film" / f"step-{step:07}.npz", patches=patches, attention=attention)
    (tmp_path / "film" / "step-0000020.npz").write_bytes(b"half")
    shown = tune_view.snapshots(tmp_path)
    captions = [[f"photo {p}, step {s}{what}" for s in (0, 10)] for p in (1, 2, 3) for what in ("", ": attention")]
    assert [[caption for _, caption in strip] for strip in shown] == captions
    assert all(picture.shape == (224, 224, 3) for strip in shown for picture, _ in strip)


DAMAGE = {
    "empty": b"",
    "half": None,
    "no text": b"\xff\x00" * 40,
    "another kind": b"[1, 2, 3]\n5\n",
    "wrong values": b'{"kind": "train", "step": "x", "loss": []}\n{"kind": [], "step": 1, "images_per_second": {}}\n',
    "nested": b"[" * 100_000,
}


@pytest.mark.parametrize("how", [*DAMAGE, "a folder", "gone"])
@pytest.mark.parametrize("name", ["metrics.jsonl", "report.json", "config.json", "film/step-0000010.npz", "log.txt"])
def test_a_run_with_a_damaged_file_is_shown_without_it(tmp_path, name, how):
    lines = [{"kind": "train", "step": 1, "loss": 1.0}, {"kind": "eval", "step": 1, "rank": 3.0, "knn": 0.5}]
    report = {"better": True, "sentence": "It is better.", "before": {"knn": 0.5}, "after": {"knn": 0.6}}
    run = write_run(tmp_path / "run", lines, report=report, config={"backbone": "b"})
    (run / "log.txt").write_text("a line")
    (run / "film").mkdir()
    for step in (0, 10):
        patches = np.random.default_rng(step).normal(size=(1, 4, 4, 8)).astype(np.float16)
        np.savez(run / "film" / f"step-{step:07}.npz", patches=patches, attention=patches[..., 0])
    path, content = run / name, DAMAGE.get(how)
    if how == "half":
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes(content)
    shown = tune_run.watch(RunInfo("id", "my run", run, "finished"), None)
    assert len(shown) == 9 + tune_run.BUTTONS and "my run" in shown[0]
    assert len(tune_view.snapshots(run)) == 2


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("queued", "stop"),
        ("running", "pause stop"),
        ("paused", "resume stop"),
        ("stopped", "resume sure delete"),
        ("failed", "resume sure delete"),
        ("finished", "sure delete"),
    ],
)
def test_only_the_controls_that_make_sense_are_shown(tmp_path, state, shown):
    names = ("pause", "resume", "stop", "sure", "delete")
    usable = tune_run.usable(RunInfo("id", "my run", tmp_path, state))
    assert " ".join(name for name, wanted in zip(names, usable, strict=True) if wanted) == shown
    assert len(usable) == tune_run.BUTTONS


def test_a_long_film_is_thinned_and_keeps_its_ends(tmp_path):
    (tmp_path / "film").mkdir()
    for step in range(40):
        patches = np.random.default_rng(step).normal(size=(1, 4, 4, 8)).astype(np.float16)
        np.savez(tmp_path / "film" / f"step-{step:07}.npz", patches=patches, attention=patches[..., 0])
    strip = [caption for _, caption in tune_view.snapshots(tmp_path)[0]]
    assert len(strip) == tune_view.MOST_FRAMES and strip[0].endswith("step 0") and strip[-1].endswith("step 39")


def test_the_zip_holds_the_export_and_nothing_else(tmp_path):
    with pytest.raises(ValueError, match="no result yet"):
        tune_view.export_zip(tmp_path)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "config.json").write_text("{}")
    (tmp_path / "secret.txt").write_text("x")
    path = tmp_path / "a.zip"
    path.write_bytes(tune_view.export_zip(tmp_path))
    assert zipfile.ZipFile(path).namelist() == ["config.json"]


def test_expected_time_grows_with_what_is_trained():
    row = BACKBONES["dinov2-small"]
    values = {
        "global_size": 112,
        "local_size": 56,
        "eval_size": 224,
        "n_local": 2,
        "max_blocks": 2,
        "steps": 100,
        "batch_size": 16,
        "accumulate": 1,
        "eval_every": 0,
        "eval_images": 512,
        "epochs": 10,
    }
    forward = {64: 1.0, 16: 0.25, 256: 4.0}.get
    few = tune_view.expected_seconds(forward, values, row, 100)
    assert few == pytest.approx(1600 * (2 + 2.5 * (1 + 2 * 2 / 12)) + 11 * 200 * 4)
    everything = tune_view.expected_seconds(forward, values | {"max_blocks": 0}, row, 100)
    assert everything - few == pytest.approx(1600 * 2.5 * 2 * 10 / 12)
    assert 1.6e9 < tune_view.expected_bytes(row) < 1.9e9


def test_a_public_server_grants_half_an_hour(tmp_path):
    limits = [
        Services(Settings(runs=str(tmp_path), public=public, run_hours=3.0), pool=None).runs.limits.hours
        for public in (False, True)
    ]
    assert limits == [3.0, 0.5]


@pytest.mark.parametrize("zero", [False, True])
def test_a_space_that_lends_its_gpu_says_what_a_training_needs(zero, tmp_path, monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", str(zero).lower())
    services = Services(parse(["--backbone", "b", "--runs", str(tmp_path)]), SimpleNamespace(loaded=list))
    told = tune_tab._price(services, services.runs, "b", {"minutes": 10.0}, 100)
    assert told.startswith("It ends within **10 min**") and "This server ends a run" in told
    assert ("choose a GPU of its own" in told) == zero


def test_a_budget_is_told_in_views_by_a_measured_pass():
    values = {"objective": "diet", "global_size": 112, "minutes": 10.0, "views": 0}
    told = tune_tab._views(lambda patches: patches / 640, values, 14, 1000)  # 0.1 s a view
    assert "2 views of each photo" in told and "there is no time" not in told
    assert "more than 1350 photos" in tune_tab._views(lambda patches: patches / 640, values, 14, 5000)
    assert tune_tab._views(lambda patches: 1.0, values | {"objective": "dino"}, 14, 10) == ""


def test_methods_and_times_become_settings():
    assert tune_tab._explicit(tune_tab.PHOTOS, "5 minutes", [], "b") == ("b", {"objective": "diet", "minutes": 5.0})
    switched = tune_tab._explicit(tune_tab.DISTILL, "Overnight", ["No masked patches (iBOT)"], "b")[1]
    assert switched == {"objective": "dino", "minutes": 480.0, "ibot_weight": 0.0}
    assert (
        tune_tab._explicit(tune_tab.LABELS, "5 minutes", ["No masked patches (iBOT)"], "b")[1]["objective"] == "labels"
    )
    assert tune_tab._explicit(tune_tab.SCRATCH, "5 minutes", [], "b")[0] == "scratch"
    for method, length in (("Gentle", "5 minutes"), (tune_tab.PHOTOS, "soon")):
        with pytest.raises(ValueError, match="one of"):
            tune_tab._explicit(method, length, [], "b")


def test_a_server_folder_counts_as_uploaded_but_nothing_outside_of_it(store, tmp_path):
    settings = Settings(photos=str(tmp_path / "allowed"))
    (tmp_path / "allowed" / "holiday" / "cats").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(uploaded(tmp_path, ["x"])[0][0].read_bytes())
    (tmp_path / "upload0.png").rename(tmp_path / "allowed" / "holiday" / "cats" / "a.png")
    (tmp_path / "allowed" / "holiday" / "link.png").symlink_to(tmp_path / "secret.png")
    owner, token = new_owner(), store.new()
    store.add(owner, token, photos_in(server_folder(settings, "holiday")))
    (photo,) = store.describe(owner, token).paths
    assert photo.parts[-2:] == ("cats", "a.png")
    store.put_away(owner, token)
    assert (tmp_path / "allowed" / "holiday" / "cats" / "a.png").is_file()
    for text in ("..", "/etc", "nothing", "holiday/../../"):
        with pytest.raises(ValueError, match="name one inside it"):
            server_folder(settings, text)
    with pytest.raises(ValueError, match="takes no folders"):
        server_folder(Settings(), "holiday")
