"""The API as a program sees it: the real app, called with gradio_client and by plain HTTP."""

import io
import json
import re
import tempfile
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from patience import SECONDS
from PIL import Image

from dinodemo import Engine
from dinodemo.tasks.depth import DepthProbe
from dinodemo.tasks.retrieval import ImageIndex
from dinodemo.tasks.retrieval.index_store import IndexStore
from dinodemo.web.app import launch
from dinodemo.web.owner import new_owner
from dinodemo.web.services import Services
from dinodemo.web.settings import Settings

ROOT = Path(__file__).parents[2]
NAMES = {"/attention", "/pca", "/segment", "/depth", "/retrieve", "/classify", "/compare", "/anomaly"} | {
    "/depth_space",
    "/depth_pairs",
    "/depth_train",
}
SMALL = {"resolution": 70}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_picture):
    """Give a folder with three photos, a mask, and a file that is no photo."""
    root = tmp_path_factory.mktemp("api")
    for i, name in enumerate("abc"):
        Image.fromarray(make_picture(60, 90, seed=i)).save(root / f"{name}.png")
    mask = np.zeros((60, 90), np.uint8)
    mask[10:50, 20:60] = 255
    Image.fromarray(mask).save(root / "mask.png")
    (root / "broken.jpg").write_bytes(b"no photo")
    return root


@pytest.fixture(scope="module")
def secret(folder):
    """Name the key of somebody whose browser has an index called diary."""
    return new_owner()


@pytest.fixture(scope="module")
def url(folder, tiny_folder, secret):
    """Serve the app on a tiny network, with an index that is shared and one that is not."""
    with pytest.MonkeyPatch.context() as patch:
        (folder / "tmp").mkdir()
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "tmp" / "gradio"))
        settings = Settings(host="127.0.0.1", backbone=str(tiny_folder), device="cpu", indexes=str(folder / "shared"))
        engine = Engine(str(tiny_folder), device="cpu")
        private = IndexStore(Services(settings, None)).path(secret, "mine:diary")
        private.parent.mkdir(parents=True)
        for path in (folder / "shared" / "team", private):
            ImageIndex(path, engine, 70).add([folder / "a.png", folder / "b.png"])
        demo = launch(settings, block=False)
        yield demo.local_url
        demo.close()


@pytest.fixture(scope="module")
def client(url, folder):
    return Client(url, verbose=False, analytics_enabled=False, download_files=str(folder / "results"))


@pytest.fixture
def send(folder):
    return lambda name: handle_file(folder / name)


def refused(client, name: str, **values) -> str:
    with pytest.raises(AppError) as caught:
        client.predict(api_name=name, **values)
    told = str(caught.value)
    assert "Traceback" not in told and "\n" not in told and "Reference in its log" not in told
    return told


def post(url: str, name: str, data: list) -> str:
    """Call a function as any HTTP client may, past gradio_client's checks; returns the events."""
    body = json.dumps({"data": data}).encode()
    asked = urllib.request.Request(f"{url}gradio_api/call/{name}", body, {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(asked, timeout=SECONDS))["event_id"]
    return urllib.request.urlopen(f"{url}gradio_api/call/{name}/{event}", timeout=SECONDS).read().decode()


def test_only_these_functions_are_listed_typed_and_documented(client, url):
    info = client.view_api(return_format="dict", print_info=False)
    assert set(info["named_endpoints"]) == NAMES and info["unnamed_endpoints"] == {}
    told = json.load(urllib.request.urlopen(f"{url}gradio_api/info"))["named_endpoints"]
    for name, endpoint in told.items():
        documented = set(re.findall(r"^    (\w+): ", endpoint["description"], re.MULTILINE))
        assert {p["parameter_name"] for p in endpoint["parameters"]} == documented, name
        assert all(p["python_type"]["type"] not in ("Any", "") for p in endpoint["parameters"]), name


def test_the_pages_own_events_cannot_be_called(client):
    for name in ("/on_photo", "/on_find", "/offer", "/describe"):
        with pytest.raises(ValueError, match="Cannot find"):
            client.predict(api_name=name)


def test_attention(client, folder, tiny_folder, send):
    overlay, numbers, told = client.predict(photo=send("a.png"), head="2", layer=1, api_name="/attention", **SMALL)
    f = Engine(str(tiny_folder), device="cpu").features(folder / "a.png", 70, attention=True)
    assert Image.open(overlay).size == (90, 60)
    assert np.allclose(np.load(numbers)["attention"], f.layer_attention, atol=1e-5)
    assert (told["layer"], told["head"], told["grid"]) == (1, "2", list(f.grid))


def test_a_basis_of_pca_comes_back_and_is_used(client, send):
    settings = {"foreground": "off", "api_name": "/pca", **SMALL}
    both, basis, told = client.predict(photos=[send("a.png"), send("b.png")], **settings)
    (again,), _, _ = client.predict(photos=[send("b.png")], basis=handle_file(basis), **settings)
    (alone,), _, _ = client.predict(photos=[send("b.png")], **settings)
    joint, again, alone = (np.asarray(Image.open(path)) for path in (both[1], again, alone))
    assert np.array_equal(joint, again) and not np.array_equal(joint, alone)
    assert len(told["explained_variance_ratio"]) == 8


def test_segment(client, send, folder):
    given = {"references": [send("a.png")], "masks": [send("mask.png")], "negatives": [send("c.png")], "presence": 0}
    photos = [send("a.png"), send("broken.jpg"), send("b.png")]
    masks, facts, told = client.predict(photos=photos, api_name="/segment", **given, **SMALL)
    assert json.loads(Path(facts).read_text()) == told
    assert [p["photo"] for p in told["photos"]] == [1, 3] and [p["photo"] for p in told["left_out"]] == [2]
    for path, photo in zip(masks, told["photos"], strict=True):
        mask = np.asarray(Image.open(path))
        assert mask.shape == (60, 90) and (mask > 127).sum() == photo["area"]
    labels = np.zeros((60, 90), np.uint8)
    labels[10:30, 10:40], labels[35:, 50:] = 7, 140
    Image.fromarray(labels).save(folder / "labels.png")
    given["masks"] = [send("labels.png")]
    assert "holds 2 labels: 140" in refused(client, "/segment", photos=photos, **given)
    client.predict(photos=photos, api_name="/segment", label="7", invert=True, **given, **SMALL)
    rest = {"photos": photos, "references": given["references"], "presence": 0, **SMALL}
    for mark in ({"boxes": [[10, 10, 60, 50]]}, {"points": [[[30, 30]]]}):
        *_, told = client.predict(api_name="/segment", target="kind", **mark, **rest)
        assert all(photo["state"] == "found" and photo["count"] == len(photo["pieces"]) for photo in told["photos"])
    assert "one of the three" in refused(client, "/segment", boxes=[[1, 1, 9, 9]], points=[[[3, 3]]], **rest)
    assert "x0 < x1" in refused(client, "/segment", boxes=[[9, 9, 1, 1]], **rest)
    assert "must be one of object, kind" in refused(client, "/segment", boxes=[[1, 1, 9, 9]], target="cup", **rest)
    given["masks"] = []
    assert "1 references and 0 masks" in refused(client, "/segment", photos=photos, **given)


def test_inverse_depth_is_found_without_a_word_and_can_be_turned_off(client, tmp_path, make_picture):
    archive = tmp_path / "pairs.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for i in range(4):
            stream = io.BytesIO()
            Image.fromarray((10000 / (np.linspace(6, 1, 60)[:, None] + np.zeros((60, 90)))).astype(np.uint16)).save(
                stream, "PNG"
            )
            opened.writestr(f"depth/{i}.png", stream.getvalue())
            stream = io.BytesIO()
            Image.fromarray(make_picture(60, 90, seed=i)).save(stream, "PNG")
            opened.writestr(f"rgb/{i}.png", stream.getvalue())
    found = client.predict(pairs=handle_file(archive), api_name="/depth_pairs")
    assert found["inverse"] is True and found["unit"] == "relative" and "In 4 of 4 maps" in found["warnings"][0]
    kept = client.predict(pairs=handle_file(archive), inverse=False, api_name="/depth_pairs")
    assert kept["inverse"] is False and kept["unit"] == "metres"


def test_depth_pairs_and_training(client, tmp_path, make_picture):
    archive = tmp_path / "pairs.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for i in range(5):
            for name, array in (
                (f"rgb/{i}.png", make_picture(60, 90, seed=i)),
                (f"depth/{i}.png", (5000 * np.linspace(6, 1, 60)[:, None] + np.zeros((60, 90))).astype(np.uint16)),
            ):
                stream = io.BytesIO()
                Image.fromarray(array).save(stream, "PNG")
                opened.writestr(name, stream.getvalue())
    found = client.predict(pairs=handle_file(archive), unit="tum", api_name="/depth_pairs")
    assert found["pairs"] == 5 and found["median"] == pytest.approx(3.5, abs=0.02) and found["left_out"] == []
    assert len(found["histogram"]) == 24 and found["pairing"][0]["depth"] == "depth/0.png"
    given = {"pairs": handle_file(archive), "kind": "lin1", "epochs": 1, "unit": "none", **SMALL}
    path, facts = client.predict(**given, api_name="/depth_train")
    assert DepthProbe.load(path).note_ == facts["note"] and facts["read"]["unit"] == "relative"
    assert "units in a metre" in refused(client, "/depth_pairs", pairs=handle_file(archive), unit="feet")
    assert "Kind must be" in refused(client, "/depth_train", **{**given, "kind": "lin7"})


def test_depth(client, send, offline_engine):
    name = offline_engine.backbone.name
    colours, numbers, told = client.predict(photo=send("a.png"), backbone=name, api_name="/depth", resolution=112)
    depth = np.load(numbers)
    assert depth.shape == (60, 90) and depth.min() > 0 and told["unit"] == "relative" and told["inside"] is False
    assert "no metres" in told["message"] and depth.max() == 1
    given = {"photo": send("a.png"), "backbone": name, "resolution": 112, "metres": True}
    assert client.predict(**given, api_name="/depth")[2]["unit"] == "metres"
    assert Image.open(colours).size == (90, 60)
    assert "Probe must be one of" in refused(client, "/depth", photo=send("a.png"), backbone=name, probe="own:mine")
    assert "no depth probe came with" in refused(client, "/depth", photo=send("a.png")).lower()


@pytest.mark.parametrize(("space", "ending", "start"), [("points", ".ply", b"ply\n"), ("mesh", ".glb", b"glTF")])
def test_depth_in_space(client, send, offline_engine, space, ending, start):
    given = {"photo": send("a.png"), "backbone": offline_engine.backbone.name, "resolution": 112, "space": space}
    path, told = client.predict(**given, api_name="/depth_space")
    assert path.endswith(ending) and Path(path).read_bytes().startswith(start)
    assert told["field_of_view"] == 65 and "no focal length" in told["camera"] and "relative" in told["camera"]
    asked = client.predict(**given, fov=90, metres=True, api_name="/depth_space")[1]
    assert asked["field_of_view"] == 90 and "set by hand" in asked["camera"] and "relative" not in asked["camera"]


def test_compare(client, send):
    pictures = {"first": send("a.png"), "second": send("a.png")}
    drawing, table, told = client.predict(placeless=False, api_name="/compare", **pictures, **SMALL)
    assert told["cls_cosine"] > 0.999 and told["chosen"] == told["mutual"] > 10
    assert len(Path(table).read_text().splitlines()) == told["chosen"] + 1 and Image.open(drawing).size[0] > 180


def test_classify_from_examples_and_by_the_classifier_that_came_of_them(client, send, tmp_path):
    examples, labels = [send("a.png"), send("b.png"), send("a.png"), send("b.png")], ["one", "two", "one", "two"]
    given = {"photos": [send("b.png"), send("broken.jpg"), send("a.png")], "api_name": "/classify"}
    table, model, told = client.predict(examples=examples, labels=labels, method="mean", tokens="cls", **given)
    assert [(one["photo"], one["label"]) for one in told["answers"]] == [("1/b.png", "two"), ("3/a.png", "one")]
    assert [one["photo"] for one in told["left_out"]] == [2] and "/" not in told["classifier"]["backbone"]
    assert Path(table).read_text().splitlines()[0] == "path,label,probability"
    again = client.predict(model=handle_file(model), **given)[2]
    assert [one["label"] for one in again["answers"]] == ["two", "one"]
    assert "either labelled examples or a classifier" in refused(client, "/classify", photos=[send("a.png")])
    few = {"photos": [send("a.png")], "examples": examples}
    assert "needs its label" in refused(client, "/classify", labels=["x"], **few)
    assert "two classes or more" in refused(client, "/classify", labels=["x"] * 4, **few)
    assert "must be one of" in refused(client, "/classify", labels=labels, method="svm", **few)
    assert "is no classifier" in refused(client, "/classify", photos=[send("a.png")], model=send("mask.png"))


def test_retrieve_among_photos_sent_along(client, send):
    photos = [send("c.png"), send("broken.jpg"), send("a.png")]
    thumbnails, hits, told = client.predict(photo=send("a.png"), photos=photos, count=2, api_name="/retrieve")
    assert [hit["photo"] for hit in told["hits"]] == ["3/a.png", "1/c.png"] and told["searched"] == 2
    assert [one["photo"] for one in told["left_out"]] == [2] and len(thumbnails) == 2
    assert json.loads(Path(hits).read_text())["hits"][0]["path"] == "3/a.png"
    assert (
        "none of the photos" in refused(client, "/retrieve", photo=send("a.png"), photos=[send("broken.jpg")]).lower()
    )


def test_retrieve_in_a_shared_index_and_in_nobodys_own(client, send, folder, secret):
    _, _, told = client.predict(photo=send("b.png"), index="team", api_name="/retrieve")
    assert told["hits"][0]["photo"] == (folder / "b.png").as_posix()
    for name in ("diary", "mine:diary", f"{secret}/diary", f"../tmp/dinodemo-indexes/{secret}/diary", "../shared/team"):
        answer = refused(client, "/retrieve", photo=send("b.png"), index=name)
        assert answer == "This server shares no index of that name; it shares team."


BAD = [
    ("/attention", {"resolution": 0}),
    ("/attention", {"resolution": 1e9}),
    ("/attention", {"resolution": "nan"}),
    ("/attention", {"resolution": -1}),
    ("/attention", {"head": "9"}),
    ("/attention", {"layer": 4}),
    ("/attention", {"photo": None}),
    ("/attention", {"photo": {"path": "/etc/passwd"}}),
    ("/attention", {"backbone": "/etc"}),
    ("/pca", {"photos": []}),
    ("/pca", {"photos": [{"path": "/etc/passwd"}]}),
    ("/compare", {"first": "/etc/passwd", "second": 2}),
    ("/segment", {"photos": [], "references": [], "masks": []}),
    ("/depth", {"probe": 3}),
    ("/depth_space", {"space": "cube"}),
    ("/depth_space", {"fov": 1.5}),
    ("/depth_space", {"fov": "wide"}),
]


@pytest.mark.parametrize(("name", "values"), BAD, ids=repr)
def test_bad_values_are_answered_with_a_sentence(client, send, name, values):
    photo = {"photo": send("a.png")} if name in ("/attention", "/depth", "/depth_space") else {}
    answer = refused(client, name, **{**photo, **values})
    what = next(iter(values))
    assert answer.lower().startswith(what.rstrip("s")) and answer.endswith(".")


def test_what_is_not_a_photo_is_named(client, send):
    assert "broken.jpg is not a picture" in refused(client, "/attention", photo=send("broken.jpg"))


@pytest.mark.parametrize("form", [{}, {"meta": {"_type": "gradio.FileData"}}], ids=["bare", "as an upload"])
def test_files_of_the_server_cannot_be_named(url, form, folder):
    given = [{"path": str(folder / "a.png"), **form}, "mean", 0, 1.0, 0.6, "inferno", True, "", 70]
    answer = post(url, "attention", given)
    assert answer.startswith("event: error") and "Traceback" not in answer and "attention-layer" not in answer


def test_numbers_beyond_all_are_refused_by_plain_http_too(url):
    for value in (float("nan"), float("inf")):
        answer = post(url, "attention", [{"path": "x"}, "mean", 0, value, 0.6, "inferno", True, "", 70])
        assert "Mass must be a number from 0.001 to 1" in answer


def test_the_example_in_the_readme_runs(url, monkeypatch):
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## From a program")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    monkeypatch.chdir(ROOT)
    names = {}
    exec(compile(code.replace("http://127.0.0.1:7860", url), "README.md", "exec"), names)
    assert len(names["masks"]) == 2


def test_tools_for_agents_name_the_package_they_need(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"dinodemo\[mcp\]"):
        launch(Settings(mcp=True), block=False)
