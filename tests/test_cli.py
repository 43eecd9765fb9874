"""The command line and the settings."""

import subprocess
import sys

from dinodemo import cli
from dinodemo.backbones import BACKBONES
from dinodemo.web import settings


def test_list_names_every_backbone_with_licence(capsys):
    assert cli.main(["weights", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in BACKBONES) and "DINOv3 License" in printed


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "dinodemo.cli", "weights", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_user_errors_are_one_sentence(capsys):
    assert cli.main(["weights", "fetch", "no-such-model"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dinodemo: no backbone") and error.count("\n") == 1


def test_an_official_backbone_asked_for_by_name_is_not_replaced(capsys, weights_folder):
    assert cli.main(["weights", "fetch", "dinov2-small"]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_environment_sets_defaults_and_options_win(monkeypatch):
    for name, value in {"HOST": "0.0.0.0", "PORT": "7999", "BACKBONE": "dino-vits8", "DEVICE": "cpu"}.items():
        monkeypatch.setenv(name, value)
    assert settings.parse([]) == settings.Settings("0.0.0.0", 7999, False, "dino-vits8", "cpu", backbone_named=True)
    assert settings.parse(["--port", "1234", "--share"]).port == 1234
    monkeypatch.setenv("MCP", "true")
    assert settings.parse([]).mcp and not settings.parse([]).share
