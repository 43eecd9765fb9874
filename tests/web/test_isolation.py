"""What one person brings stays out of another's reach: asked over HTTP of the real server, as an attacker would."""

import io
import os
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from patience import SECONDS
from PIL import Image
from visitor import Refused, Visitor

from dinodemo.web import settings as server_settings
from dinodemo.web.security import check_backbone
from dinodemo.web.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FILE = "/gradio_api/file="
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def picture(seed: int = 0, side: int = 80) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((side, side)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def anna(server):
    visitor = Visitor(server.url)
    visitor.set("resolution", 224)
    return visitor


@pytest.fixture
def ben(server):
    return Visitor(server.url)


@pytest.fixture(scope="session")
def public_server(start_server):
    return start_server("--public", AUTH="anna:correct horse")


# files


def guesses(server) -> list[str]:
    own = [server.folder / "runs", server.folder / "uploads", server.folder / "tmp" / "dinodemo-indexes", server.log]
    for folder in own[:3]:
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "secret.txt").write_text("secret")
    inside, indexes = own[0] / "secret.txt", own[2] / "secret.txt"
    files = [
        "/etc/passwd",
        ROOT / "app.py",
        ROOT / "weights" / "manifest.json",
        server.log,
        inside,
        indexes,
        "app.py",
        "../../../../etc/passwd",
        f"{server.folder}/uploads/../log.txt",
        "/proc/self/environ",
        "file:///etc/passwd",
        "//etc/passwd",
        own[1],
        server.folder,
    ]
    return [str(file) for file in files]  # folders too: nobody may list them


def spellings(path: str) -> list[str]:
    return [
        FILE + quote(path),
        FILE + quote(path, safe=""),
        FILE + quote(path).replace("..", "%2e%2e"),
        f"/gradio_api/file/{quote(path)}",
        f"/static/{quote(path)}",
        f"/assets/..%2f..%2f{quote(path)}",
        f"/gradio_api/proxy={quote(path)}",
    ]


def test_no_file_of_the_server_can_be_had_by_guessing(server):
    given = [
        (url, answer.status_code)
        for path in guesses(server)
        for url in spellings(path)
        if (answer := server.http.get(url)).status_code < 400
    ]
    assert given == []


def test_uploads_lie_under_names_that_cannot_be_guessed(server, anna, ben):
    path = Path(anna.upload("photo.png", picture())["path"])
    assert len(path.parent.name) == 64 and path.parent.parent == server.folder / "uploads"  # a salted hash
    for guess in (path.parent.parent / "photo.png", path.parent, path.parent.parent):
        assert ben.http.get(f"{FILE}{guess}").status_code == 403


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.svg", SVG),
        ("a.html", b"<script>alert(1)</script>"),
        ("a.xml", SVG),
        ("a.js", b"alert(1)"),
        ("a.pdf", b"%PDF-"),
    ],
)
def test_what_could_run_in_a_browser_is_served_as_a_download_only(anna, name, content):
    path = anna.upload(name, content)["path"]
    for headers in ({}, {"Range": "bytes=0-10"}):
        answer = anna.http.get(f"{FILE}{path}", headers=headers)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_svg_named_as_a_picture_is_refused_with_a_sentence(anna):
    anna.set("attention-photo", anna.upload("a.png", SVG))
    with pytest.raises(Refused, match="SVG drawing"):
        anna.fire("attention-photo", "upload")


def test_the_server_fetches_nothing_for_visitors(anna):
    for path in (f"{FILE}https://example.com/", f"{FILE}http://127.0.0.1/", "/gradio_api/proxy=https://example.com/"):
        assert anna.http.get(path).status_code == 403
    anna.set("attention-photo", {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}})
    with pytest.raises(Refused, match="fetches nothing"):
        anna.fire("attention-photo", "upload")


@pytest.mark.parametrize("path", ["/etc/passwd", str(ROOT / "assets" / "cat_chelsea.jpg"), "app.py"])
def test_a_file_that_was_not_uploaded_is_not_read(anna, path):
    anna.set("attention-photo", {"path": path, "meta": {"_type": "gradio.FileData"}})
    with pytest.raises(Refused) as told:
        anna.fire("attention-photo", "upload")
    assert "not uploaded here" in str(told.value) and path not in str(told.value)  # it tells no paths
    anna.set("build-picker", {"files": [{"path": path, "name": "a.jpg"}]})
    anna.set("build-name", "x")
    with pytest.raises(Refused, match="did not upload"):
        anna.fire("build-add", "click")


# what one person has made


def build_index(visitor: Visitor, name: str) -> None:
    path = visitor.upload("secret-beach.png", picture(1))["path"]
    visitor.set("build-picker", {"files": [{"path": path, "name": "secret-beach.png"}]})
    visitor.set("build-name", name)
    visitor.fire("build-add", "click")


def test_indexes_answer_to_their_owner_only(anna, ben):
    build_index(anna, "holiday")
    anna.set("index", "mine:holiday")
    anna.fire("index", "change")
    assert "1 photos" in anna.get("index-about")
    for key in ("mine:holiday", "shared:holiday", f"mine:../{anna.key}/holiday"):
        ben.set("index", key)
        with pytest.raises(Refused):
            ben.fire("index", "change")
        assert "secret-beach" not in str(ben.values)
        ben.set("build-sure", True)
        with pytest.raises(Refused):
            ben.fire("map-start", "click")
    anna.fire("index", "change")
    assert "1 photos" in anna.get("index-about")


def test_the_key_is_in_no_path(server, anna):
    build_index(anna, "paths")
    names = [str(path) for path in server.folder.rglob("*")]
    assert any("paths" in name for name in names) and not any(anna.key in name for name in names)


@pytest.mark.parametrize("key", ["", "x", None, "../../../../etc", ["a"], {"a": 1}, "a" * 32])
def test_runs_and_indexes_need_a_key(ben, key):
    ben.set("browser-key", key)
    ben.set("run-choice", "20260101-000000-00000000")
    ben.set("index", "mine:holiday")
    for button in ("run-pause", "run-cancel", "run-use", "run-zip", "map-start"):
        with pytest.raises(Refused):
            ben.fire(button, "click")


def test_state_stays_in_its_session(anna, ben):
    anna.set("attention-photo", anna.upload("a.png", picture(2)))
    anna.fire("attention-photo", "upload")
    anna.fire("point-ask", "click")  # has a photo to ask
    event = ben.event("point-ask", "click")
    for state in (None, {"photo": "a"}, 1):  # a state that is sent along counts for nothing
        answer = ben.join(event, data=[state, 50, 50]).raise_for_status()
        with pytest.raises(Refused, match="no photo yet"):
            ben.receive(event, answer.json()["event_id"])


def test_events_are_not_reached_past_the_queue(ben):
    for route in ("run", "api"):
        assert ben.http.post(f"/gradio_api/{route}/on_photo", json={"data": []}).status_code == 404
    named = ben.http.get("/gradio_api/info").json()["named_endpoints"]
    assert not [name for name in named if name.startswith(("/on_", "/prepare", "/offer", "/look"))]


def test_nothing_tells_of_other_visitors(ben):
    for path in ("/monitoring", "/monitoring/summary", "/gradio_api/run-history/buckets", "/gradio_api/vibe-code/"):
        assert ben.http.get(path).status_code in (403, 404)


# login and the public mode


def log_in(server) -> httpx.Client:
    http = httpx.Client(base_url=server.url, timeout=SECONDS)
    http.post("/login", data={"username": "anna", "password": "correct horse"}).raise_for_status()
    return http


def test_without_the_password_there_is_nothing(public_server):
    http = httpx.Client(base_url=public_server.url, timeout=SECONDS)
    assert http.post("/login", data={"username": "anna", "password": "guess"}).status_code == 400
    assert http.get("/config").status_code == 401
    assert http.get(f"{FILE}/etc/passwd").status_code == 401
    assert http.post("/gradio_api/upload", files={"files": ("a.png", b"x")}).status_code == 401
    assert http.post("/gradio_api/queue/join", json={"data": [], "fn_index": 0, "session_hash": "a"}).status_code == 401
    assert http.post("/gradio_api/call/on_photo", json={"data": []}).status_code == 401
    assert http.get("/healthz").status_code == 200


def test_with_it_the_page_opens_but_no_folders_and_no_hub_ids(public_server, tiny_folders):
    anna = Visitor(public_server.url, log_in(public_server))
    for name in (str(tiny_folders["dinov3"]), "someone/some-vit", "../../etc", "/etc"):
        anna.set("backbone", name)
        with pytest.raises(Refused, match="of its list only"):
            anna.fire("backbone", "change")
    anna.set("build-picker", None)
    anna.set("build-name", "x")
    anna.set("build-folder", "/etc")
    with pytest.raises(Refused, match="no folders by name"):
        anna.fire("build-add", "click")


FOLDERS = ("/etc", "../../etc", "/root", ".", "weights/dinov2-small-offline", "\0", "~", "/etc/passwd", "a//b")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_name_typed_from_elsewhere_never_reaches_the_disk(name):
    for settings in (Settings(host="0.0.0.0"), Settings(share=True), Settings(public=True)):
        with pytest.raises(ValueError, match="choose one from"):
            check_backbone(settings, name)


def test_names_that_may_be_loaded(tmp_path, tiny_folder):
    run = tmp_path / "runs" / ("0" * 32) / "20260101-000000-00000000" / "results" / "mine"
    run.parent.mkdir(parents=True)
    os.symlink(tiny_folder, tmp_path / "runs" / "link")
    for file in ("config.json", "model.safetensors"):
        run.mkdir(exist_ok=True)
        (run / file).symlink_to(tiny_folder / file)
    public = Settings(public=True, runs=str(tmp_path / "runs"), backbone="/srv/own-model")
    for name in ("dinov2-small", "/srv/own-model", str(run)):
        check_backbone(public, name)
    for name in (f"{run}/../../../../..", str(tmp_path / "runs" / "link"), str(run.parent)):
        with pytest.raises(ValueError, match="choose one"):
            check_backbone(public, name)
    check_backbone(Settings(host="0.0.0.0"), "org/model")
    check_backbone(Settings(), str(tiny_folder))  # only this machine can ask


# settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--auth", "anna"], "USER:PASSWORD"),
        (["--auth", "anna:"], "USER:PASSWORD"),
        (["--public", "--photos", "/srv"], "no folder"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        server_settings.parse(["--backbone", "b", *arguments])
    assert message in capsys.readouterr().err


def test_a_space_is_public_and_not_local(monkeypatch):
    for name, value in {"SPACE_ID": "me/demo", "GRADIO_SERVER_NAME": "0.0.0.0", "AUTH": "a:b:c"}.items():
        monkeypatch.setenv(name, value)
    space = server_settings.parse(["--backbone", "b"])
    assert space.public and not space.local and space.auth == ("a", "b:c") and space.host == "0.0.0.0"
    assert not server_settings.parse(["--backbone", "b", "--no-public"]).public
