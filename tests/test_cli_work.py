"""The commands that work on photos: index, search, train, eval, export."""

import json
import shutil
import sys

import pytest
from PIL import Image
from safetensors.numpy import load_file

from dinodemo import cli
from dinodemo.io.exits import LEFT_OUT


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_picture):
    root = tmp_path_factory.mktemp("photos")
    for i in range(12):
        path = root / ("light" if i % 2 else "dark") / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        picture = make_picture(40, 48, seed=i)
        Image.fromarray(picture // 2 + 127 if i % 2 else picture // 2).save(path)
    return root


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_index_and_search(photos, tiny_folder, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    index = tmp_path / "photos.index"
    given = ["--backbone", tiny_folder, "--resolution", 28, "--out", index]
    assert run("index", photos, tmp_path / "broken.jpg", *given, "--json") == LEFT_OUT
    report = json.loads(capsys.readouterr().out)
    assert (report["added"], report["photos"], report["labels"]) == (12, 12, {"dark": 6, "light": 6})
    assert [file for file, _ in report["problems"]] == [str(tmp_path / "broken.jpg")]
    assert run("index", photos, "--out", index) == 0
    assert "0 added, 12 were there already" in capsys.readouterr().out

    assert run("search", index, photos / "light" / "01.png", "-k", 3, "--json") == 0
    (hits,) = json.loads(capsys.readouterr().out).values()
    assert len(hits) == 3 and hits[0]["path"].endswith("light/01.png")
    assert run("search", index, photos / "light" / "01.png", "--label", "dark", "--json") == 0
    (hits,) = json.loads(capsys.readouterr().out).values()
    assert {hit["label"] for hit in hits} == {"dark"}
    assert run("search", index, photos / "light" / "01.png") == 0
    assert "light/01.png" in capsys.readouterr().out


def test_a_folder_of_failures_ends_alike_in_every_command(photos, tiny_folder, tmp_path, capsys):
    mixed, bad = tmp_path / "mixed", tmp_path / "bad"
    shutil.copytree(photos, mixed)
    for folder in (mixed, bad):
        folder.mkdir(exist_ok=True)
        (folder / "broken.jpg").write_bytes(b"no photo")
    small = ["--backbone", tiny_folder, "--resolution", 28]
    commands = {
        "index": lambda folder, out: run("index", folder, "--out", out, *small),
        "embed": lambda folder, out: run("embed", folder, "--out", f"{out}.parquet", *small),
        "attention": lambda folder, out: run("attention", folder, "--out", out, *small),
        "pca": lambda folder, out: run("pca", folder, "--out", out, *small),
    }
    for name, command in commands.items():
        assert command(mixed, tmp_path / f"{name}-mixed") == LEFT_OUT, name
        assert command(bad, tmp_path / f"{name}-bad") == 1, name
    good, broken = photos / "dark" / "00.png", mixed / "broken.jpg"
    assert run("search", tmp_path / "index-mixed", good, broken) == LEFT_OUT
    assert run("search", tmp_path / "index-mixed", broken) == 1
    assert "left out" in capsys.readouterr().err


def test_an_index_is_told_that_a_folder_has_moved(photos, tiny_folder, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "old")
    index = tmp_path / "photos.index"
    given = ["--backbone", tiny_folder, "--resolution", 28, "--out", index]
    assert run("index", tmp_path / "old", *given) == 0
    (tmp_path / "old").rename(tmp_path / "new")
    assert run("index", *given, "--relocate", tmp_path / "older", tmp_path / "new") == 1
    assert f"its photos lie in {tmp_path}/old/dark" in capsys.readouterr().err
    assert run("index", *given, "--relocate", tmp_path / "old", tmp_path / "new", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"moved": 12, "missing": [], "taken": []}
    assert run("search", index, tmp_path / "new" / "dark" / "00.png", "-k", 1) == 0
    assert f"{tmp_path}/new/dark/00.png" in capsys.readouterr().out
    assert run("index", *given, "--relocate", tmp_path / "new", tmp_path / "nowhere") == 1
    assert "not there" in capsys.readouterr().err
    assert run("index", photos, *given, "--relocate", "a", "b") == 1 and run("index", *given) == 1


def test_an_index_made_with_another_backbone_names_the_remedy(photos, tiny_folder, tmp_path, capsys, weights_folder):
    index = tmp_path / "photos.index"
    run("index", photos, "--backbone", tiny_folder, "--resolution", 28, "--out", index)
    other = tmp_path / "other"
    other.symlink_to(tiny_folder)
    capsys.readouterr()
    assert run("search", index, photos / "light" / "01.png", "--backbone", other) == 1
    assert "rebuild" in capsys.readouterr().err


def test_a_missing_index_or_photo_is_one_sentence(photos, tiny_folder, tmp_path, capsys):
    assert run("search", tmp_path / "none", photos / "light" / "01.png", "--backbone", tiny_folder) == 1
    assert "add photos first" in capsys.readouterr().err
    assert run("index", tmp_path / "nowhere", "--backbone", tiny_folder, "--out", tmp_path / "i") == 1
    assert "does not exist" in capsys.readouterr().err


def test_train_eval_export(photos, tiny_folder, tmp_path, capsys, monkeypatch):
    settings = {
        "steps": 2,
        "global_size": 28,
        "local_size": 14,
        "eval_size": 28,
        "n_local": 1,
        "batch_size": 4,
        "prototypes": 16,
        "head_hidden": 16,
        "head_bottleneck": 8,
    }
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    assert run("train", photos, "--out", tmp_path / "run", "--backbone", tiny_folder, "--device", "cpu", *options) == 0
    assert "start" in capsys.readouterr().out
    assert run("eval", tmp_path / "run", photos, "--size", 28, "-k", 3, "--device", "cpu", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 <= found["knn"] <= 1 and (found["photos"], found["classes"]) == (12, 2)
    broken = photos / "dark" / "broken.png"
    broken.write_bytes(b"\x89PNG nothing")
    assert run("eval", tmp_path / "run", photos, "--size", 28, "-k", 3, "--device", "cpu") == LEFT_OUT
    assert "1 unreadable photo left out" in capsys.readouterr().out
    broken.unlink()
    assert run("export", tmp_path / "run", tmp_path / "mine") == 0
    assert (tmp_path / "mine" / "config.json").is_file()
    last = tmp_path / "last.safetensors"
    assert run("export", tmp_path / "run", last, "--which", "last", "--format", "safetensors") == 0
    assert load_file(last).keys() == load_file(tmp_path / "mine" / "model.safetensors").keys()


def test_export_refuses_what_contradicts_itself(tiny_folder, tmp_path, capsys):
    assert run("export", tiny_folder, tmp_path / "x", "--which", "last") == 1
    assert "--which is for the folder of a run" in capsys.readouterr().err
    assert run("export", tiny_folder, "--backbone", tmp_path) == 1
    assert "contradict each other" in capsys.readouterr().err


def test_a_misspelt_setting_names_the_nearest(photos, tiny_folder, tmp_path, capsys):
    assert run("train", photos, "--out", tmp_path / "run", "--backbone", tiny_folder, "--set", "epoch=2") == 1
    assert "did you mean 'epochs'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["index", "search", "train", "eval", "export"])
def test_help_gives_an_example(command, capsys):
    with pytest.raises(SystemExit):
        run(command, "--help")
    assert f"dinodemo {command} " in " ".join(capsys.readouterr().out.split())
