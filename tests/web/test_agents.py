"""Tools for agents: no file of the server can be named, and the log holds no word of a caller."""

import base64
import json
import logging
from importlib.util import find_spec
from pathlib import Path

import gradio.mcp
import pytest

from dinodemo.web import gradio_log
from dinodemo.web.agents import guard_agents

META = {"_type": "gradio.FileData"}


@pytest.fixture
def convert(monkeypatch, tmp_path):
    """Give what Gradio's server for agents makes of a call's arguments, with the guard in place."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    server = gradio.mcp.GradioMCPServer
    monkeypatch.setattr(server, "convert_strings_to_filedata", server.convert_strings_to_filedata)
    monkeypatch.setattr(gradio.mcp, "Client", gradio.mcp.Client)
    guard_agents()
    return lambda value: server.convert_strings_to_filedata(None, value, [])


@pytest.mark.parametrize("meta", [META, {"_type": "other"}, None])
def test_a_file_of_the_server_is_not_opened_wherever_a_call_names_it(convert, tmp_path, meta):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    roundabout = tmp_path / "uploads" / ".." / "secret.png"
    for path in (
        secret,
        roundabout,
        "/etc/passwd",
        "app.py",
        "\0",
        "http://127.0.0.1:9/a.png",
        "file:///etc/passwd",
        "",
    ):
        file = {"path": str(path), "meta": meta}
        for value in ({"photo": file}, {"good": [file]}, {"deep": {"er": [[file]]}}):
            with pytest.raises(ValueError, match="was not uploaded here; upload it"):
                convert(value)


def test_uploaded_files_and_contents_are_taken(convert, tmp_path):
    uploaded = tmp_path / "uploads" / "a.png"
    uploaded.write_bytes(b"photo")
    value = {"photo": {"path": str(uploaded), "meta": META}, "resolution": 224, "backbone": ""}
    assert convert(value) == value
    content = "data:image/png;base64," + base64.b64encode(b"hello").decode()
    (file,) = convert({"good": [{"path": content}]})["good"]
    assert file["meta"] == META and Path(file["path"]).read_bytes() == b"hello"
    with pytest.raises(ValueError, match="no base64 data: address"):
        convert({"photo": {"path": "data:image/png;base64,%%%"}})


def test_what_other_packages_log_is_json_without_words_of_callers(monkeypatch, capsys):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    gradio_log.quieten_others()
    gradio_log.quieten_others()
    logging.warning("cannot read %s", "secret")  # once would set up a way of its own
    logging.getLogger("mcp.server").error("no tool called secret")
    logging.getLogger("else").warning("useful")
    logging.getLogger("dinodemo.requests").warning("has a handler of its own")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["logger"] for line in lines] == ["root", "mcp.server", "else"]
    assert "secret" not in str(lines) and lines[2]["message"] == "useful"


@pytest.mark.skipif(find_spec("mcp") is None, reason="the package of tools for agents is not installed")
def test_a_real_call_gets_no_file_of_the_server(start_server, tmp_path):
    server = start_server("--mcp")
    (tmp_path / "secret.png").write_bytes(b"secret")
    file = {"path": str(tmp_path / "secret.png"), "meta": META}
    call = {"name": "attention", "arguments": {"photo": file, "resolution": 224}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    answer = server.http.post("/gradio_api/mcp/", json=body, headers={"accept": "application/json, text/event-stream"})
    assert "was not uploaded here" in answer.text
