"""The commands that do with folders what the tabs do: attention, pca, match, segment, depth, embed."""

import csv
import json
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinodemo import Engine, backbones, cli
from dinodemo.io.exits import LEFT_OUT
from dinodemo.tasks.depth import DepthProbe
from dinodemo.tasks.pca.basis import PatchPCA
from dinodemo.tasks.retrieval import ImageIndex

ASSETS = Path(__file__).parents[1] / "assets"
COMMANDS = ["attention", "pca", "match", "segment", "depth", "embed"]
SMALL = ["--resolution", 70, "--device", "cpu"]


@pytest.fixture
def here(tmp_path, monkeypatch, make_picture):
    """Work in a folder with the photos that the examples name."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(["photos/a.png", "photos/trip/b.png", "cat.jpg", "cup.jpg", "table.jpg", "room.jpg"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_picture(60, 90, seed=i)).save(tmp_path / name)
    mask = np.zeros((60, 90), np.uint8)
    mask[10:50, 20:60] = 255
    Image.fromarray(mask).save(tmp_path / "cup_mask.png")
    return tmp_path


@pytest.fixture
def tiny(here, tiny_folder, monkeypatch):
    """Make a tiny network the default."""
    monkeypatch.setattr("dinodemo.backbones.find.default_backbone", lambda: str(tiny_folder))
    return here


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def ask(capsys, *arguments, status: int = 0) -> dict:
    assert run(*arguments, "--json") == status
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments) -> str:
    assert run(*arguments) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def examples(command: str, capsys) -> list[str]:
    with pytest.raises(SystemExit):
        run(command, "--help")
    return [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  dinodemo ")]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "depth"])
def test_the_examples_in_help_run(command, tiny, capsys):
    lines = examples(command, capsys)
    assert len(lines) >= 2
    for line in lines:
        if "s3://" in line:  # a store that is not there: what comes after reading the line is tested in test_cluster.py
            assert cli._parser().parse_args(shlex.split(line)[1:]).out == "s3://bucket/my.index"
        else:
            assert run(*shlex.split(line)[1:]) == 0, line


def test_the_examples_of_depth_run(here, capsys, offline_engine, monkeypatch):
    monkeypatch.setattr("dinodemo.engine.Engine", lambda *_, **__: offline_engine)  # not loaded again
    for line in examples("depth", capsys):
        assert run(*shlex.split(line)[1:]) == 0, line


def test_attention_writes_what_the_network_says(tiny, tiny_folder, capsys):
    given = ["attention", "photos", "--out", "maps", "--raw", "--head", "all", "max", "--layer", 2, *SMALL]
    told = ask(capsys, *given)
    f = Engine(str(tiny_folder), device="cpu").features(tiny / "photos/a.png", 70, attention=True)
    raw = np.load("maps/a-attention.npy")
    assert np.allclose(raw, f.layer_attention[1], atol=1e-6)
    names = {f"maps/a-attention-{head}.png" for head in ("1", "2", "3", "4", "max")} | {"maps/a-attention.npy"}
    assert set(told["photos"][0]["files"]) == names and told["heads"] == ["1", "2", "3", "4", "max"]
    assert Image.open("maps/trip/b-attention-max.png").size == (90, 60)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--head", "5"), ("--head", "best"), ("--layer", 4), ("--layer", 0), ("--resolution", 0), ("--resolution", -5)],
)
def test_what_a_network_lacks_is_refused(option, value, tiny, capsys):
    assert "must be" in refused(capsys, "attention", "photos", "--out", "maps", option, value)


@pytest.mark.parametrize("value", ["nan", "2", "-1", "inf", "x"])
def test_shares_out_of_range_are_refused(value, tiny, capsys):
    with pytest.raises(SystemExit):
        run("attention", "photos", "--out", "maps", "--mass", value)
    assert "--mass" in capsys.readouterr().err


def test_results_stay_unless_told_otherwise(tiny, capsys):
    given = ["attention", "photos", "--out", "maps", *SMALL]
    run(*given)
    (tiny / "maps/a-attention-mean.png").write_bytes(b"mine")
    (tiny / "maps/trip/b-attention-mean.png").unlink()
    capsys.readouterr()
    told = ask(capsys, *given)
    assert (len(told["photos"]), told["kept"]) == (1, 1)
    assert (tiny / "maps/a-attention-mean.png").read_bytes() == b"mine"
    assert ask(capsys, *given, "--overwrite")["kept"] == 0
    assert Image.open("maps/a-attention-mean.png").size == (90, 60)


def test_photos_that_cannot_be_read_are_named(tiny, capsys):
    (tiny / "photos/broken.jpg").write_bytes(b"no photo")
    (tiny / "photos/notes.txt").write_text("hello")
    told = ask(capsys, "attention", "photos", "--out", "maps", *SMALL, status=LEFT_OUT)
    assert len(told["photos"]) == 2
    assert {p["photo"].rsplit("/")[-1]: "read" in p["reason"] for p in told["left_out"]} == {
        "broken.jpg": True,
        "notes.txt": True,
    }
    assert run("embed", "photos", "--out", "v.npz", *SMALL) == LEFT_OUT
    printed = capsys.readouterr()
    assert "2 vectors" in printed.out and "broken.jpg: " in printed.err


def test_photos_of_one_stem_get_results_of_their_own(tiny, make_picture, capsys):
    Image.fromarray(make_picture(40, 40)).save(tiny / "photos/A.jpg")  # some file systems know no case
    told = ask(capsys, "attention", "photos", "--out", "maps", *SMALL)
    names = {file for photo in told["photos"] for file in photo["files"]}
    assert names == {"maps/a.png-attention-mean.png", "maps/A.jpg-attention-mean.png", "maps/trip/b-attention-mean.png"}


def test_results_never_lie_outside_out(tiny, capsys):
    (tiny / "work").mkdir()
    told = ask(capsys, "attention", "work/../photos", "cat.jpg", "--out", "work/maps", *SMALL)
    files = {file for photo in told["photos"] for file in photo["files"]}
    assert files == {f"work/maps/{n}-attention-mean.png" for n in ("cat", "photos/a", "photos/trip/b")}


def test_earlier_results_are_no_photos(tiny, capsys):
    for _ in range(2):
        told = ask(capsys, "attention", "photos", "--out", "photos/maps", *SMALL)
        assert len(told["photos"]) + told["kept"] == 2
    assert "is the folder of the photos" in refused(capsys, "attention", "photos", "--out", "photos")
    assert run("attention", "cat.jpg", "--out", ".", *SMALL) == 0


def test_photos_may_come_in_a_zip(tiny, capsys):
    with zipfile.ZipFile("all.zip", "w") as archive:
        archive.write("photos/a.png", "in/a.png")
    told = ask(capsys, "attention", "all.zip", "--out", "maps", *SMALL)
    assert told["photos"][0]["files"] == ["maps/in/a-attention-mean.png"]


def test_no_photos_and_no_place_for_results_are_sentences(tiny, capsys):
    (tiny / "empty").mkdir()
    (tiny / "file").write_text("")
    assert "there are no photos in empty" in refused(capsys, "pca", "empty", "--out", "maps")
    assert "does not exist" in refused(capsys, "pca", "nowhere", "--out", "maps")
    assert "cannot be written" in refused(capsys, "attention", "cat.jpg", "--out", "file", *SMALL)


def test_one_pca_is_fitted_over_all_photos(tiny, tiny_folder, capsys):
    told = ask(capsys, "pca", "photos", "--out", "colours", "--save", "basis.npz", "--foreground", "off", *SMALL)
    assert told["fitted_on"] == 2
    engine = Engine(str(tiny_folder), device="cpu")
    features = [engine.features(tiny / name, 70) for name in ("photos/a.png", "photos/trip/b.png")]
    expected, saved = PatchPCA(8, None).fit(features), PatchPCA.load("basis.npz")
    assert np.allclose(saved.transform(features[1]), expected.transform(features[1]), atol=1e-4)
    assert ask(capsys, "pca", "cat.jpg", "--out", "colours", "--basis", "basis.npz", *SMALL)["fitted_on"] == 0


def test_colours_of_two_bases_are_not_mixed(tiny, make_picture, capsys):
    given = ["pca", "photos", "--out", "colours", *SMALL]
    run(*given)
    Image.fromarray(make_picture(60, 90, seed=9)).save("photos/new.png")
    capsys.readouterr()
    assert "2 of the photos are coloured already" in refused(capsys, *given)
    assert ask(capsys, *given, "--overwrite", "--fit-on", 2, "--save", "basis.npz")["fitted_on"] == 2
    Image.fromarray(make_picture(60, 90, seed=8)).save("photos/newer.png")
    told = ask(capsys, *given, "--save", "basis.npz")
    assert (len(told["photos"]), told["fitted_on"]) == (1, 0)


def test_a_basis_of_another_network_names_the_remedy(tiny, tiny_folders, capsys):
    run("pca", "photos", "--out", "one", "--save", "basis.npz", *SMALL)
    capsys.readouterr()
    given = ["pca", "photos", "--out", "two", "--basis", "basis.npz", "--backbone", tiny_folders["dino-v1"], *SMALL]
    assert "--backbone" in refused(capsys, *given)


def test_match_lists_pairs_in_pixels(tiny, capsys):
    told = ask(capsys, "match", "cup.jpg", "cup.jpg", "--out", "m", "--least", 0.99, "--keep-place", *SMALL)
    assert told["cls_cosine"] > 0.999 and told["chosen"] == told["mutual"] > 10
    rows = list(csv.DictReader((tiny / "m/cup-cup-matches.csv").open()))
    assert len(rows) == told["chosen"]
    assert all((row["x_a"], row["y_a"]) == (row["x_b"], row["y_b"]) for row in rows)
    assert ask(capsys, "match", "cup.jpg", "cup.jpg", "--out", "m", *SMALL)["files"] == []


def test_segment_finds_the_thing(here, offline_engine, capsys, monkeypatch):
    monkeypatch.setattr("dinodemo.engine.Engine", lambda *_, **__: offline_engine)
    given = ["--reference", ASSETS / "coffee_cup.jpg", "--mask", ASSETS / "segmentation/cup_mask.png", "--overlay"]
    setting = ["--resolution", 224, "--out", "masks"]
    target = ASSETS / "segmentation/cup_by_the_stream.jpg"
    told = ask(capsys, "segment", target, ASSETS / "mountain_path.jpg", *given, *setting)
    truth = np.asarray(Image.open(target.with_name("cup_by_the_stream_mask.png")).convert("L")) > 127
    found = np.asarray(Image.open("masks/segmentation/cup_by_the_stream-mask.png")) > 127
    assert (truth & found).sum() / (truth | found).sum() > 0.8
    there, absent = told["photos"]
    assert there["area"] == found.sum() and there["size"] == list(found.shape) and there["state"] == "found"
    assert absent["area"] == 0 and absent["pieces"] == [] and told["found"] == 1
    kept = json.loads((here / "masks/segmentation/cup_by_the_stream-mask.json").read_text())
    assert {name: there[name] for name in kept} == kept


def test_segment_takes_several_references_and_parts_that_are_not_it(tiny, capsys):
    pairs = ["--reference", "cup.jpg", "--mask", "cup_mask.png", "--reference", "cat.jpg"]
    given = ["segment", "photos", "--out", "masks", *SMALL, *pairs]
    assert "each --reference needs its --mask, --box or --point" in refused(capsys, *given)
    given += ["--mask", "cup_mask.png", "--negative", "table.jpg", "--negative-mask", "cup_mask.png"]
    assert len(ask(capsys, *given)["photos"]) == 2
    assert "for each --negative or for none" in refused(capsys, *given, "--negative", "room.jpg")


def test_segment_asks_which_label_of_a_mask_is_meant(tiny, capsys):
    labels = np.zeros((60, 90), np.uint8)
    labels[10:30, 10:40], labels[35:, 50:] = 7, 140
    Image.fromarray(labels).save(tiny / "labels.png")
    given = ["segment", "photos", "--out", "masks", *SMALL, "--reference", "cup.jpg", "--mask", "labels.png"]
    assert "holds 2 labels: 140 (18.5%), 7 (11.1%); choose, for example --label 140" in refused(capsys, *given)
    assert len(ask(capsys, *given, "--label", "7", "--label", "140")["photos"]) == 2
    assert cli.main([str(part) for part in [*given, "--overwrite", "--label", "7", "--invert-mask"]]) == 0
    assert "marks 89% of the photo" in capsys.readouterr().err


def test_segment_takes_boxes_clicks_and_scribbles_and_counts(tiny, capsys):
    given = ["segment", "photos", *SMALL, "--reference", "cup.jpg", "--presence", "0", "--count"]
    for i, mark in enumerate(
        (["--box", "10,10,60,50"], ["--point", "30,30;40,30"], ["--mask", "cup_mask.png", "--grow"])
    ):
        found = ask(capsys, *given, "--out", f"o{i}", "--target", "kind", *mark)["photos"]
        rows = list(csv.DictReader((tiny / f"o{i}" / "counts.csv").open()))
        assert [int(row["count"]) for row in rows] == [photo["count"] for photo in found]
        assert all(photo["state"] == "found" for photo in found)
    assert "one of the three" in refused(capsys, *given, "--out", "o", "--box", "1,1,9,9", "--point", "3,3")
    assert "x0 < x1" in refused(capsys, *given, "--out", "o", "--box", "9,9,1,1")
    assert "numbers with commas" in refused(capsys, *given, "--out", "o", "--point", "here")


@pytest.mark.parametrize("relative", [False, True])
def test_depth_is_written_in_its_unit(relative, tiny, tiny_folder, make_picture, capsys):
    engine = Engine(str(tiny_folder), device="cpu")
    depth = np.tile(np.linspace(1, 4, 90, dtype=np.float32), (60, 1))
    pairs = [(make_picture(60, 90, seed=i), depth) for i in range(4)]
    probe = DepthProbe("lin1", epochs=1, resolution=70, bins=16, relative=relative).fit(engine, pairs)
    probe.save("probe.safetensors")
    given = ["depth", "photos", "--out", "depth", "--probe", "probe.safetensors", *SMALL]
    told = ask(capsys, *given, "--npy")
    names = {file.rsplit("-depth")[-1] for file in told["photos"][0]["files"]}
    assert names == {".png", ".npy", ".json"} | (set() if relative else {"-mm.png"})
    numbers = np.load("depth/a-depth.npy")
    assert np.array_equal(numbers, probe.predict(engine, tiny / "photos/a.png", resolution=70))
    if not relative:
        millimetres = np.asarray(Image.open("depth/a-depth-mm.png"))
        assert np.abs(millimetres / 1000 - numbers).max() <= 0.00051
    assert told["unit"] == ("relative" if relative else "metres")
    facts = json.loads(Path("depth/a-depth.json").read_text())
    assert facts["unit"] == told["unit"] and facts["inside"] is None and facts["probe"] == "probe.safetensors"


@pytest.mark.parametrize(("space", "ending", "start"), [("points", ".ply", b"ply\n"), ("mesh", ".glb", b"glTF")])
def test_depth_is_written_in_space(space, ending, start, tiny, tiny_folder, make_picture, capsys):
    engine = Engine(str(tiny_folder), device="cpu")
    pairs = [(make_picture(60, 90, seed=i), np.tile(np.linspace(1, 4, 90, dtype=np.float32), (60, 1))) for i in (0, 1)]
    DepthProbe("lin1", epochs=1, resolution=70, bins=16).fit(engine, pairs).save("probe.safetensors")
    (exif := Image.Exif()).get_ifd(0x8769)[0xA405] = 50
    Image.open("photos/a.png").convert("RGB").save("taken.jpg", exif=exif)
    given = ["depth", "taken.jpg", "--out", "depth", "--probe", "probe.safetensors", *SMALL]
    assert ask(capsys, *given, "--space", space)["kept"] == 0
    assert Path(f"depth/taken-depth{ending}").read_bytes().startswith(start)
    facts = json.loads(Path("depth/taken-depth.json").read_text())
    assert facts["field_of_view"] == pytest.approx(39.6, abs=0.05)  # 36 mm of film, 50 mm before it
    assert facts["camera"].startswith("Focal length from the photo: 50 mm (35 mm equivalent), 39.6°")
    assert ask(capsys, *given, "--space", space)["kept"] == 1
    assert ask(capsys, *given, "--space", space, "--fov", 90, "--overwrite")["photos"]
    assert "set by hand" in Path("depth/taken-depth.json").read_text()
    assert "--space" in refused(capsys, *given, "--fov", 90)


def test_a_probe_is_trained_and_its_pairs_are_checked(tiny, tiny_folder, make_picture, capsys):
    for folder in ("set/rgb", "set/depth"):
        Path(folder).mkdir(parents=True)
    for i in range(5):
        Image.fromarray(make_picture(60, 90, seed=i)).save(f"set/rgb/{i}.png")
        slope = np.linspace(6, 1, 60)[:, None] + np.zeros((60, 90))
        Image.fromarray((256 * slope).astype(np.uint16)).save(f"set/depth/{i}.png")
    found = ask(capsys, "depth-train", "set", "--check", "--unit", "256")
    assert found["median"] == pytest.approx(3.5, abs=0.02) and len(found["pairing"]) == 5
    given = ["depth-train", "set", "--unit", "kitti", "--epochs", "1", "--kind", "lin1"]
    told = ask(capsys, *given, "--out", "new/one.safetensors", *SMALL)
    assert DepthProbe.load("new/one.safetensors").note_ == told["note"] and told["read"]["unit"] == "metres"
    assert "--overwrite" in refused(capsys, *given, "--out", "new/one.safetensors", *SMALL)
    assert "--out" in refused(capsys, *given)
    assert "units in a metre" in refused(capsys, "depth-train", "set", "--check", "--unit", "feet")
    near_far = ask(capsys, "depth-train", "set", "--check", "--relative")
    assert near_far["unit"] == "relative"
    turned = ask(capsys, "depth-train", "set", "--check", "--inverse")
    assert turned["inverse"] and "bottom" in turned["warnings"][0]


def test_depth_without_a_probe_or_with_anothers_names_the_remedy(tiny, capsys, offline_engine):
    assert "--probe" in refused(capsys, "depth", "photos", "--out", "depth", *SMALL)
    ready = backbones.weights_root() / f"depth_rooms_lin4-2_{offline_engine.backbone.name}.safetensors"
    assert "--backbone" in refused(capsys, "depth", "photos", "--out", "depth", "--probe", ready, *SMALL)
    assert "below --far" in refused(capsys, "depth", "photos", "--out", "depth", "--near", 3, "--far", 2)


def test_embed_makes_the_vectors_of_an_index(tiny, tiny_folder, capsys):
    from pyarrow import parquet

    told = ask(capsys, "embed", "photos", "--out", "v.npz", *SMALL)
    run("embed", "photos", "--out", "v.parquet", *SMALL)
    index = ImageIndex(tiny / "index", Engine(str(tiny_folder), device="cpu"), 70)
    index.add([tiny / "photos"])
    entries, vectors = index.gallery()
    file = np.load("v.npz")
    order = [list(file["paths"]).index(entry.path) for entry in entries]
    assert np.allclose(file["vectors"][order], vectors, atol=1e-5) and told["width"] == 32
    table = parquet.read_table("v.parquet")
    assert table["path"].to_pylist() == list(file["paths"])
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), file["vectors"])
    assert table.schema.metadata[b"resolution"] == b"70"


def test_embed_refuses_to_overwrite_and_unknown_endings(tiny, capsys):
    (tiny / "v.npz").write_bytes(b"mine")
    assert "is there already" in refused(capsys, "embed", "photos", "--out", "v.npz")
    assert "must end in" in refused(capsys, "embed", "photos", "--out", "v.csv")
    assert (tiny / "v.npz").read_bytes() == b"mine"
