"""Training a depth probe on the page: what is read is shown, charts of whole epochs, held-out pictures, the file."""

import re
import zipfile
from pathlib import PurePosixPath
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dinodemo.tasks.depth import DepthProbe, read_pairs, survey, training_tab
from dinodemo.tasks.depth.probe_store import probe_file
from dinodemo.tasks.depth.training_tab import _train
from dinodemo.web.i18n import translate


@pytest.fixture
def folder(tmp_path, make_picture):
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth").mkdir()
    for i in range(6):
        Image.fromarray(make_picture(60, 90, seed=i)).save(tmp_path / f"rgb/{i}.png")
        slope = np.linspace(6, 1, 60)[:, None] + np.zeros((60, 90))
        slope[:5] = 65.535
        Image.fromarray((1000 * slope).astype(np.uint16)).save(tmp_path / f"depth/{i}.png")
    return tmp_path


@pytest.mark.parametrize("unit", ["mm", "none"])
def test_a_probe_is_trained_and_can_be_saved(folder, engine, tmp_path, unit):
    pairs, problems = read_pairs(folder, unit=unit)
    services = SimpleNamespace(pool=SimpleNamespace(get=lambda name: engine))
    steps = list(_train(services, ("a set", pairs, problems), ("lin1", 2, False, "any", 70), (), "  my  probe "))
    assert all(len(step) == 8 for step in steps)
    job, own, status, _, losses, metrics, pictures, _ = steps[-1]
    assert job is None and [name for name, _ in own] == ["my probe"] and "my probe" in status
    assert list(losses["epoch"]) == [1, 2] and losses["epoch"].dtype.kind == "i"
    assert set(metrics["curve"]) == {"RMSE", "AbsRel", "delta1"}
    assert len(pictures) % 4 == 0 and re.search(r"error, \d+ %", pictures[3][1])
    name, content = probe_file(own)
    (tmp_path / name).write_bytes(content)
    assert DepthProbe.load(tmp_path / name).unit_ == ("metres" if unit == "mm" else "relative")


def test_what_was_read_is_described(folder):
    pairs, _ = read_pairs(folder)
    text = survey.describe_pairs(pairs)
    assert "**6 pairs**" in text and "millimetres" in text and "| rgb/0.png | depth/0.png | same name |" in text
    assert "65535" in text and "left out" in text
    bars = survey.histogram(pairs)
    assert sum(share for _, share in bars) == pytest.approx(100, abs=1) and bars[-1][0] < 6.5
    assert [shape.shape[2] for shape, _ in survey.pictures(pairs)] == [3] * 6


def test_the_folder_that_all_pairs_lie_in_is_said_once(folder):
    (folder / "recordings of the kitchen").mkdir()
    for name in ("rgb", "depth"):
        (folder / name).rename(folder / "recordings of the kitchen" / name)
    pairs, _ = read_pairs(folder)
    text = survey.describe_pairs(pairs)
    assert text.count("recordings of the kitchen") == 1 and "| rgb/0.png | depth/0.png | same name |" in text
    assert [caption for _, caption in survey.pictures(pairs)][:2] == ["0.png", "0.png, bright is far"]


def test_what_was_read_is_said_in_korean(folder):
    pairs, _ = read_pairs(folder)
    text = translate(survey.describe_pairs(pairs), "ko")
    assert not re.search(r"[a-z]{5,}", re.sub(r"\S+\.png|KITTI|\(.*?\)", "", text)), text


@pytest.mark.parametrize(("choice", "inverse"), [("auto", True), ("farther", False), ("nearer", True)])
def test_the_page_takes_three_answers_to_what_larger_values_are(folder, monkeypatch, choice, inverse):
    archive = folder / "pairs.zip"
    metres = np.linspace(6, 1, 60)[:, None] + np.zeros((60, 90))
    with zipfile.ZipFile(archive, "w") as opened:
        for i in range(6):
            Image.fromarray((10000 / metres).astype(np.uint16)).save(folder / f"depth/{i}.png")
            opened.write(folder / f"depth/{i}.png", f"depth/{i}.png")
            opened.write(folder / f"rgb/{i}.png", f"rgb/{i}.png")
    monkeypatch.setattr(training_tab, "read_upload", lambda value: [(archive, PurePosixPath("pairs.zip"))])
    _, pairs, _ = training_tab._read({}, False, "auto", choice, False, str(folder / "out"))
    assert pairs.info.inverse is inverse
    assert np.corrcoef(pairs[0].depth[:, 0], metres[:, 0])[0, 1] * (1 if inverse else -1) > 0.8


def sample_pairs(folder):
    return training_tab._read(None, True, "auto", "auto", False, str(folder))


def test_the_sample_is_read_with_its_unit_and_scenes(tmp_path):
    title, pairs, problems = sample_pairs(tmp_path)
    assert title == "the sample" and problems == [] and len(pairs) == 12 and pairs.info.unit == "metres"
    assert sorted({pair.group for pair in pairs}) == ["corridor", "kitchen", "living room", "study"]
    text = survey.describe_pairs(pairs)
    assert "**12 pairs**" in text and "1000 units in a metre" in text and "⚠" not in text and "| rgb/" in text
    assert 1.5 < pairs.info.median < 5 and not list(tmp_path.iterdir())
    assert not re.search(r"[a-z]{6,}", re.sub(r"\S+\.(png|jpg|json)", "", translate(text, "ko")))


def test_the_sample_is_small_and_its_licence_is_said():
    files = [path for path in training_tab.SAMPLE.rglob("*") if path.is_file()]
    assert len(files) == 25 and sum(path.stat().st_size for path in files) < 1_000_000
    assert "CC0" in training_tab.ABOUT_SAMPLE
    assert "`depth/`" in (training_tab.SAMPLE.parent / "CREDITS.md").read_text(encoding="utf-8")


def test_the_samples_depth_is_that_of_flat_walls(tmp_path):
    """Along a plane the inverse depth of a pinhole camera takes equal steps from pixel to pixel."""
    for pair in sample_pairs(tmp_path)[1]:
        inverse = 1 / np.asarray(pair.depth, np.float64)
        bent = np.abs(np.diff(inverse, 2, axis=1)) / inverse[:, 1:-1]
        assert (bent < 2e-3).mean() > 0.85, pair.name  # but at edges, and on balls


def test_a_probe_is_trained_on_the_sample_and_a_room_is_held_out(engine, tmp_path):
    services = SimpleNamespace(pool=SimpleNamespace(get=lambda name: engine))
    *_, last = _train(services, sample_pairs(tmp_path), ("lin1", 2, False, "any", 112), (), "tried")
    ((name, probe),) = last[1]
    assert name == "tried" and probe.unit_ == "metres" and "12 pairs of the sample" in str(probe.card_)
    held = {sample_pairs(tmp_path)[1][i].group for i in probe.held_out_}
    assert len(held) == 1 and len(last[6]) % 4 == 0 and last[6]


def test_nothing_dropped_names_the_sample(tmp_path):
    with pytest.raises(ValueError, match="try the sample"):
        training_tab._read(None, False, "auto", "auto", False, str(tmp_path))
