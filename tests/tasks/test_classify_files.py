"""Classify's files: labelled folders and tables, the commands, exports that say the same."""

import csv
import json
import zipfile

import numpy as np
import pandas
import pytest
from PIL import Image

from dinodemo import Engine, cli
from dinodemo.io.exits import LEFT_OUT
from dinodemo.tasks.classify import PhotoClassifier, read_labelled
from dinodemo.tasks.classify.export import export_folder, export_onnx

SIDE = 70


@pytest.fixture
def write(make_picture):
    def write(path, seed: int, light: bool):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_picture(seed=seed) // 2 + (120 if light else 0)).save(path)

    return write


@pytest.fixture
def folder(tmp_path, write):
    for i in range(12):
        write(tmp_path / "photos" / ("light" if i % 2 else "dark") / f"{i}.png", i, bool(i % 2))
    return tmp_path / "photos"


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def counts(found) -> dict[str, int]:
    names, numbers = np.unique(found.labels, return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def test_class_folders_and_what_lies_beside_them(folder, tmp_path):
    Image.new("RGB", (20, 20)).save(folder / "loose.png")
    (folder / "notes.txt").write_text("no photo")
    with read_labelled(folder) as found:
        assert counts(found) == {"dark": 6, "light": 6} and found.note == ""
        assert {name.rsplit("/", 1)[-1] for name, _ in found.problems} == {"loose.png", "notes.txt"}
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in folder.rglob("*/*.png"):
            archive.write(path, f"set/train/{path.parent.name}/{path.name}")
    with read_labelled(tmp_path / "set.zip") as found:
        assert counts(found) == {"dark": 6, "light": 6} and found.items[0].read()


@pytest.mark.parametrize(
    ("paths", "level", "expected", "said"),
    [
        (["cat/2021/a.png", "cat/2022/b.png", "dog/2021/c.png"], "auto", {"cat": 2, "dog": 1}, "the first folder"),
        (
            ["fruit/apple/a.png", "fruit/pear/b.png", "roots/leek/c.png"],
            "auto",
            {"apple": 1, "pear": 1, "leek": 1},
            "last",
        ),
        (["fruit/apple/a.png", "fruit/pear/b.png", "roots/leek/c.png"], "first", {"fruit": 2, "roots": 1}, ""),
        (["train/cat/a.png", "test/dog/b.png"], "auto", {"cat": 1, "dog": 1}, ""),
    ],
)
def test_folders_in_folders_are_read_by_evidence(paths, level, expected, said, tmp_path, write):
    for i, path in enumerate(paths):
        write(tmp_path / "set" / path, i, False)
    with read_labelled(tmp_path / "set", level=level) as found:
        assert counts(found) == expected and (said in found.note) and bool(said) == bool(found.note)


@pytest.mark.parametrize(
    "table",
    [
        "path,label\ndark/0.png,a\nlight/1.png,b\n",
        "image;class\ndark/0.png;a\nlight/1.png;b\n",
        "id\tlabel\tfilename\n1\ta\tdark/0.png\n2\tb\t1.png\n",
        "dark/0.png,a\nlight/1.png,b\n",
        "\ufeffLabel,File\na,dark\\0.png\nb,light/1.png\n",
    ],
)
def test_tables_of_paths_and_labels(table, folder, tmp_path):
    (folder / "labels.csv").write_text(table, encoding="utf-8")
    for arguments in ((folder, folder / "labels.csv"), (folder / "labels.csv",)):
        with read_labelled(*arguments) as found:
            named = {item.name: label for item, label in zip(found.items, found.labels, strict=True)}
            assert named == {"0.png": "a", "1.png": "b"} and "10 photos are not named" in found.note


def test_what_a_table_gets_wrong_is_named(folder, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("path,label\ndark/0.png,a\ngone.png,b\ndark/2.png,\nlight/1.png,b\ndark/0.png,b\n")
    with read_labelled(folder, table) as found:
        assert counts(found) == {"a": 1, "b": 1}
        reasons = " ".join(reason for _, reason in found.problems)
        assert all(words in reasons for words in ("not there", "no label", "two labels"))
    for content, words in (
        ("x,y\n1,2\n", "has the columns x, y"),
        ("", "is empty"),
        ("path,label\nq.png,a\n", "no photo of"),
    ):
        table.write_text(content)
        with pytest.raises(ValueError, match=words), read_labelled(folder, table):
            pass
    with pytest.raises(ValueError, match="does not exist"), read_labelled(folder, tmp_path / "none.csv"):
        pass
    (tmp_path / "flat").mkdir()
    with pytest.raises(ValueError, match="has no class folders"), read_labelled(tmp_path / "flat"):
        pass


def test_fit_and_predict_on_the_command_line(folder, tiny_folder, tmp_path, capsys, write):
    (folder / "dark" / "broken.jpg").write_bytes(b"no photo")
    model, answers = tmp_path / "light.safetensors", tmp_path / "answers.csv"
    given = ["--backbone", tiny_folder, "--resolution", SIDE, "--json"]
    assert run("classify", "fit", folder, "--out", model, *given) == LEFT_OUT
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == ["dark", "light"] and told["photos"] == [6, 6] and len(told["left_out"]) == 1
    for i in range(4):
        write(tmp_path / "new" / f"{i}.png", 50 + i, bool(i % 2))
    assert run("classify", "predict", model, tmp_path / "new", "--out", answers, "--backbone", tiny_folder) == 0
    rows = list(csv.DictReader(answers.open()))
    assert list(rows[0]) == ["path", "label", "probability"]
    assert {row["path"]: row["label"] for row in rows} == {
        f"{tmp_path}/new/{i}.png": "light" if i % 2 else "dark" for i in range(4)
    }
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    table = tmp_path / "answers.parquet"
    assert run("classify", "predict", model, tmp_path / "new", "--out", table, "--backbone", tiny_folder) == 0
    read = pandas.read_parquet(table)
    assert read.to_dict("records") == [{**row, "probability": float(row["probability"])} for row in rows]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"no photo")
    for out in (answers, table):  # a table without rows
        assert run("classify", "predict", model, tmp_path / "bad", "--out", out, "--backbone", tiny_folder) == 1
    assert list(pandas.read_parquet(table)) == ["path", "label", "probability"]
    assert run("classify", "predict", tmp_path / "none.safetensors", folder, "--out", answers) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_table_and_doubtful_labels_on_the_command_line(folder, tiny_folder, tmp_path, capsys):
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    given = ["--backbone", tiny_folder, "--resolution", SIDE, "--method", "mean", "--suspicious", tmp_path / "s.csv"]
    out = tmp_path / "m.safetensors"
    assert run("classify", "fit", folder, "--labels", tmp_path / "labels.csv", "--out", out, *given) == 0
    assert "12 photos, 2 classes" in capsys.readouterr().out
    assert (tmp_path / "s.csv").read_text().startswith("path,label,probably")
    (tmp_path / "one").mkdir()
    assert run("classify", "fit", folder / "dark", "--out", out, *given) == 1
    assert "no class folders" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["dinov2", "dinov2-registers", "dino-v1", "dinov3"])
def test_exports_say_what_the_classifier_says(family, tiny_folders, folder, tmp_path):
    pytest.importorskip("onnxruntime")
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    engine = Engine(str(tiny_folders[family]), device="cpu", dtype="float32")
    patch = engine.backbone.patch_size
    paths = sorted(folder.rglob("*.png"))
    tokens = "cls" if family == "dino-v1" else "both"
    classifier = PhotoClassifier(engine, "logistic", tokens, resolution=4 * patch)
    classifier.fit(paths, [path.parent.name for path in paths])
    assert export_onnx(classifier, tmp_path / "m.onnx") < 1e-3
    expected = classifier.predict(paths[:2])
    if family == "dinov3":
        with pytest.raises(ValueError, match="transformers has no classifier"):
            export_folder(classifier, tmp_path / "m")
        return
    export_folder(classifier, tmp_path / "m")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "m")
    assert model.config.id2label == {0: "dark", 1: "light"}
    processor = AutoImageProcessor.from_pretrained(tmp_path / "m")
    options = {"interpolate_pos_encoding": True} if family == "dino-v1" else {}
    for path, one in zip(paths, expected, strict=False):
        pixels = processor(Image.open(path).convert("RGB"), return_tensors="pt")
        shares = model(**pixels, **options).logits.softmax(dim=1)[0].detach().numpy()
        assert np.allclose(shares, one.probabilities, atol=0.01)  # the resizing differs a little
    with pytest.raises(ValueError, match="exists already"):
        export_folder(classifier, tmp_path / "m")


def test_the_onnx_graph_runs_alone(engine, folder, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    paths = sorted(folder.rglob("*.png"))
    for method in ("mean", "knn"):
        classifier = PhotoClassifier(engine, method, resolution=SIDE).fit(paths, [path.parent.name for path in paths])
        export_onnx(classifier, tmp_path / "m.onnx")
        session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
        about = session.get_modelmeta().custom_metadata_map
        assert json.loads(about["classes"]) == ["dark", "light"] and int(about["side"]) == SIDE
        squashed = Image.open(paths[0]).resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
        pixels = (np.asarray(squashed, np.float32) / 255 - json.loads(about["image_mean"])) / json.loads(
            about["image_std"]
        )
        (logits,) = session.run(None, {"pixel_values": pixels.transpose(2, 0, 1)[None].astype(np.float32)})
        shares = np.exp(logits[0] - logits[0].max())
        assert np.allclose(shares / shares.sum(), classifier.predict(paths[:1])[0].probabilities, atol=1e-3)
    with pytest.raises(ValueError, match="nearest neighbours do not fit"):
        export_folder(classifier, tmp_path / "folder")
