"""What the page may cost, before it is served and after."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
from patience import SECONDS
from test_isolation import picture
from visitor import Visitor

from dinodemo.web import app
from dinodemo.web.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_built_without_torch():
    code = (
        "import sys; from dinodemo.web.app import build_app; from dinodemo.web.services import Services;"
        "from dinodemo.engine.pool import EnginePool; from dinodemo.web.settings import Settings;"
        "services = Services(Settings(backbone='dinov2-small'), EnginePool());"
        "build_app(services);"
        "print('torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["False", "False"]


def test_pages_of_long_ago_leave_the_memory(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "SESSIONS", 2)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    demo = app.launch(Settings(host="127.0.0.1", backbone=str(tiny_folder), device="cpu"), block=False)
    try:
        first, *others = pages = [Visitor(demo.local_url) for _ in range(3)]
        for number, page in enumerate(pages):
            page.set("attention-photo", page.upload("photo.png", picture(number)))
            page.fire("attention-photo", "upload")
        assert list(demo.state_holder.session_data) == [page.session for page in others]
        first.fire("attention-photo", "upload")  # as a person who comes back would
        assert first.get("attention-overlay")
    finally:
        demo.close()


def test_a_start_on_a_busy_machine_waits_for_the_server(monkeypatch):

    answers = [httpx.ReadTimeout("busy"), httpx.ConnectError("not yet"), httpx.Response(502), httpx.Response(200)]

    def head(url, **_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(app.httpx, "head", head)
    monkeypatch.setattr(app.time, "sleep", lambda seconds: None)
    assert app.wait_for_server("http://127.0.0.1:1") and not answers
    monkeypatch.setattr(app, "START_SECONDS", -1)
    assert not app.wait_for_server("http://127.0.0.1:1")


def test_a_port_in_use_is_one_sentence(server):
    port = server.url.rsplit(":", 1)[1]
    environment = os.environ | {"PORT": port, "RUNS": str(server.folder / "runs")}
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"port {port} is in use" in done.stderr
