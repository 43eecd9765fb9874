"""The anomaly task's files, pictures, command and API."""

import csv
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinodemo import cli
from dinodemo.engine.pool import EnginePool
from dinodemo.io.images import Photo
from dinodemo.tasks.anomaly import Anomaly, AnomalyDetector, draw, export
from dinodemo.tasks.anomaly.api import AnomalyApi
from dinodemo.tasks.anomaly.detector import Neighbour
from dinodemo.tasks.anomaly.draw import Checked
from dinodemo.web.services import Services
from dinodemo.web.settings import Settings


def result(level: float, size: tuple[int, int] = (40, 60)) -> Anomaly:
    """Return a result whose patches are at 0.5 but for four at `level`."""
    patches = np.full((8, 12), 0.5, np.float32)
    patches[2:4, 3:5] = level
    return Anomaly(level, patches, np.zeros((8, 12), np.int32), size)


def checked(level: float, name: str = "a.png") -> Checked:
    return Checked(Photo(np.full((40, 60, 3), 128, np.uint8), name), "gone", (40, 60), result(level))


def good_picture(seed: int, spot: bool = False) -> np.ndarray:
    """Return a smooth picture (96, 128, 3) with noise of its own, and a green spot where asked."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    rgb = np.asarray(Image.fromarray(coarse).resize((128, 96), Image.Resampling.BICUBIC)).astype(int)
    rgb = rgb + np.random.default_rng(seed).integers(-6, 7, rgb.shape)
    if spot:
        rgb[24:48, 64:96] = (0, 255, 0)
    return np.clip(rgb, 0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Give a folder of good photos and one to check, with a photo of each kind and one that cannot be read."""
    for seed in range(1, 5):
        (tmp_path / "good").mkdir(exist_ok=True)
        Image.fromarray(good_picture(seed)).save(tmp_path / "good" / f"{seed}.png")
    (tmp_path / "check" / "sub").mkdir(parents=True)
    Image.fromarray(good_picture(20)).save(tmp_path / "check" / "fine.png")
    Image.fromarray(good_picture(21, spot=True)).save(tmp_path / "check" / "sub" / "spot.png")
    return tmp_path


def run(folders, tiny_folder, *more: str) -> int:
    options = ["--backbone", str(tiny_folder), "--device", "cpu", "--resolution", "112", *more]
    good = folders / "good" if (folders / "good").is_dir() else folders
    return cli.main(["anomaly", str(good), str(folders / "check"), "--out", str(folders / "out"), *options])


def rows_of(folders) -> list[dict]:
    return list(csv.DictReader((folders / "out" / "scores.csv").open()))


def test_the_command_writes_scores_and_maps_on_one_scale(folders, tiny_folder, capsys):
    assert run(folders, tiny_folder, "--json") == 4
    found = json.loads(capsys.readouterr().out)
    rows = rows_of(folders)
    assert [(row["path"].rsplit("/", 1)[1], row["verdict"]) for row in rows] == [
        ("fine.png", "good"),
        ("spot.png", "anomaly"),
    ]
    assert found["anomalies"] == 1 and found["map_full_scale"] == export.FULL_SCALE
    spot, fine = (Image.open(folders / "out" / "maps" / name) for name in ("sub/spot.png", "fine.png"))
    assert spot.mode == fine.mode == "I;16" and spot.size == (128, 96)
    assert any("weights sha256" in str(text) for text in spot.info.values())
    levels = np.asarray(spot).astype(float) / 65535 * export.FULL_SCALE
    assert levels[24:48, 64:96].mean() > 2 * levels[60:, :50].mean()
    assert levels.max() > float(rows[1]["score"]) > 1 > float(rows[0]["score"])


def test_the_exit_status_serves_a_pipeline(folders, tiny_folder, capsys):
    assert run(folders, tiny_folder, "--exit-zero") == 0
    assert run(folders, tiny_folder, "--line", "4") == (4 if float(rows_of(folders)[1]["score"]) > 4 else 0)
    (folders / "check" / "sub" / "spot.png").write_bytes(b"no picture")
    assert run(folders, tiny_folder) == 3
    assert "spot.png" in capsys.readouterr().err and len(rows_of(folders)) == 1
    (folders / "check" / "sub" / "spot.png").unlink()
    assert run(folders, tiny_folder) == 0


def test_a_saved_set_takes_the_place_of_the_good_photos(folders, tiny_folder, capsys):
    saved = folders / "cup.safetensors"
    run(folders, tiny_folder, "--save", str(saved))
    before = rows_of(folders)
    options = ["--backbone", str(tiny_folder), "--device", "cpu"]
    status = cli.main(["anomaly", str(saved), str(folders / "check"), "--out", str(folders / "out"), *options])
    after = rows_of(folders)
    assert status == 4 and [row["verdict"] for row in after] == [row["verdict"] for row in before]
    for old, new in zip(before, after, strict=True):
        assert float(new["score"]) == pytest.approx(float(old["score"]), abs=0.02)


def test_what_the_command_cannot_use_is_one_sentence(folders, tiny_folder, capsys):
    assert run(folders, tiny_folder, "--save", "set.npz") == 1
    assert "--save must end in .safetensors" in capsys.readouterr().err
    (folders / "bad").mkdir()
    (folders / "bad" / "x.png").write_bytes(b"no picture")
    command = ["anomaly", str(folders / "bad"), str(folders / "check"), "--out", str(folders / "out")]
    assert cli.main([*command, "--backbone", str(tiny_folder), "--device", "cpu"]) == 1
    assert "none of the good photos" in capsys.readouterr().err


def test_the_map_is_16_bit_and_clipped_at_the_full_scale():
    levels = np.asarray(Image.open(io.BytesIO(export.map_png(result(2.0)))))
    assert levels.dtype == np.uint16 and levels[35, 55] == round(0.5 / export.FULL_SCALE * 65535)
    assert np.asarray(Image.open(io.BytesIO(export.map_png(result(9.0))))).max() == 65535


def test_the_zip_holds_scores_maps_masks_and_coco():
    _, content = export.zip_file([checked(2.0), checked(0.6, "b.png")], 1.0, "Made by a test.")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        coco = json.loads(archive.read("annotations.json"))
        masks = [np.asarray(Image.open(archive.open(f"masks/{n}"))) > 0 for n in ("001-a.png", "002-b.png")]
        table = archive.read("scores.csv").decode().splitlines()
        assert {"maps/001-a.png", "overlays/002-b.png"} <= set(archive.namelist())
    assert table == ["path,score,verdict", "a.png,2.000000,anomaly", "b.png,0.600000,good"]
    assert masks[0].any() and not masks[1].any()  # a good photo has no mask
    (piece,) = coco["annotations"]
    assert piece["image_id"] == 1 and piece["area"] == masks[0].sum() and piece["score"] > 1.5
    flat = np.concatenate([np.full(n, i % 2) for i, n in enumerate(piece["segmentation"]["counts"])])
    assert (flat.reshape(60, 40).T.astype(bool) == masks[0]).all()
    x, y, w, h = piece["bbox"]
    assert masks[0][y : y + h, x : x + w].any(axis=0).all() and masks[0].sum() == masks[0][y : y + h, x : x + w].sum()


def test_a_good_photo_stays_clear_whatever_else_is_checked():
    calm, odd = checked(0.5), checked(2.0)
    photo = draw.draw(calm, 1.0, "Photo")
    assert (draw.draw(calm, 1.0) == photo).all()  # at half the line the heat begins
    hot = draw.draw(odd, 1.0, opacity=1.0)
    assert (hot != photo).any() and (draw.draw(odd, 3.0, "Outline") == photo).all()
    assert (draw.draw(odd, 1.0, "Outline") != photo).any()


def test_counts_captions_and_order_follow_the_line():
    both = [checked(0.6, "b.png"), checked(2.0, "a.png")]
    assert [one.photo.name for one in draw.ranked(both)] == ["a.png", "b.png"]
    assert draw.counts(both, 1.0) == "**1 anomaly**, 1 good, of 2 photos."
    assert draw.counts(both, 3.0) == "**0 anomalies**, 2 good, of 2 photos."
    assert draw.caption(both[1], 2.0) == "good · 1.00 × line · a.png"
    assert draw.counts([], 1.0) == ""


def test_captions_of_all_photos_follow_the_language(monkeypatch):
    from dinodemo.tasks.anomaly import tab
    from dinodemo.tasks.anomaly.session_tab import Found

    monkeypatch.setattr("dinodemo.web.i18n.request_language", lambda: "ko")
    found = Found(None, (checked(2.0, "a.png"), checked(0.5, "b.png")))
    captions = [caption for _, caption in tab.show_all(found, 1.0, "Heat map", 0.5)[2]]
    assert captions == ["이상 · 기준선의 2.00배 · a.png", "정상 · 기준선의 0.50배 · b.png"]


def test_the_nearest_good_patch_is_shown_with_words():
    found = Neighbour((2, 3), 2.0, 0, (0.9, 0.1))
    picture = draw.nearest_picture(checked(2.0), np.zeros((80, 60, 3), np.uint8), found)
    assert picture.shape[1] > picture.shape[0] and picture.dtype == np.uint8
    assert "good.png: 2.00 × the line, no good photo" in draw.nearest_sentence(found, "good.png", 1.0)
    assert "differ as much" in draw.nearest_sentence(found, "good.png", 2.5)


@pytest.fixture
def api(tiny_folder, monkeypatch, tmp_path):
    """Give the API with files of a folder in the place of uploads."""
    monkeypatch.setattr("gradio.utils.get_upload_folder", lambda: str(tmp_path))
    services = Services(Settings(backbone=str(tiny_folder)), EnginePool("cpu", "float32"))
    return AnomalyApi(services)


def test_the_api_says_what_the_command_says(api, folders, tiny_folder):
    def files(name: str) -> list[dict]:
        return [{"path": str(path)} for path in sorted((folders / name).rglob("*.png"))]

    run(folders, tiny_folder)
    (folders / "check" / "z.png").write_bytes(b"no picture")
    maps, table, learned, summary = api.anomaly(files("check"), files("good"), resolution=112)
    assert "weights sha256" in summary["made_with"]
    scores = [float(row["score"]) for row in rows_of(folders)]
    assert [row["score"] for row in summary["photos"]] == pytest.approx(scores, abs=0.03)  # another dtype
    assert len(maps) == 2 and [row["photo"] for row in summary["left_out"]] == [3]
    assert summary["good"]["names"] == ["1.png", "2.png", "3.png", "4.png"]
    assert Path(table["path"]).read_text().startswith("path,score,verdict\n")
    saved = folders / "uploaded.safetensors"
    saved.write_bytes(Path(learned["path"]).read_bytes())
    again = api.anomaly(files("check"), saved={"path": str(saved)})[3]
    assert [row["score"] for row in again["photos"]] == pytest.approx(scores, abs=0.05)
    with pytest.raises(ValueError, match="not both"):
        api.anomaly(files("check"), files("good"), saved={"path": str(saved)})
    with pytest.raises(ValueError, match="good must be a list of 1 to 100 files"):
        api.anomaly(files("check"))
    with pytest.raises(ValueError, match=r"line must be a number from 0\.2 to 4"):
        api.anomaly(files("check"), files("good"), line=9)


def test_the_shipped_example_is_told_apart(offline_engine):
    from dinodemo.io.files import resource_folder

    folder = resource_folder("assets") / "anomaly"
    detector = AnomalyDetector(offline_engine, 252).fit(sorted(folder.glob("good_*.jpg")))
    found = {path.stem: detector.predict(path).verdict for path in sorted(folder.glob("check_*.jpg"))}
    assert found == {
        "check_1": "anomaly",
        "check_2": "good",
        "check_3": "anomaly",
        "check_4": "anomaly",
        "check_5": "good",
    }
    assert not detector.warnings_


def test_a_map_of_the_original_size_comes_from_a_shrunk_photo():
    assert replace(result(2.0), image_size=(80, 120)).map.shape == (80, 120)
