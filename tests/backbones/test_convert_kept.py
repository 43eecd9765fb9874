"""What an import keeps: a folder with its origin, whole or not at all, under a name of its own."""

import errno
import hashlib
import json
from pathlib import Path

import pytest
import torch

from dinodemo.backbones import BACKBONES, DiskProblem, convert, offline
from dinodemo.backbones.convert import import_checkpoint

from .foreign import save_originals, to_meta, weights_of


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    """Give a model folder per family; not to be changed."""
    return save_originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture
def checkpoint(originals, tmp_path) -> Path:
    """Give a file that can be imported."""
    torch.save(to_meta(weights_of(originals["dinov2"]), "dinov2"), tmp_path / "good.pth")
    return tmp_path / "good.pth"


def test_the_folder_says_where_it_comes_from_and_verifies(originals, weights_folder, tmp_path):
    file = tmp_path / "my weights (1).pth"
    torch.save(to_meta(weights_of(originals["dinov2"]), "dinov2"), file)
    imported = import_checkpoint(str(file))
    assert imported.folder == weights_folder / "my-weights-1"
    record = json.loads((imported.folder / "source.json").read_text())
    assert (record["name"], record["source"], record["family"]) == (imported.name, file.name, "Meta DINOv2")
    assert record["source_sha256"] == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    assert tuple(record["notes"]) == imported.notes
    files = {f"{imported.name}/{name}" for name in ("config.json", "model.safetensors", "preprocessor_config.json")}
    assert {name for name, state in offline.verify().items() if state == "ok"} >= files
    assert {f.name for f in weights_folder.iterdir()} == {imported.name}
    (imported.folder / "config.json").write_text("{}")
    assert offline.verify()[f"{imported.name}/config.json"].startswith("checksum differs")


@pytest.mark.parametrize("name", ["", ".hidden", "..", "-v", "a/b", "a" * 65, "a b", "ä", "a\n", next(iter(BACKBONES))])
def test_unfit_names_are_refused(name, checkpoint, tmp_path):
    if name:
        with pytest.raises(ValueError, match="--name"):
            import_checkpoint(checkpoint, name, tmp_path / "root")
        assert not (tmp_path / "root").exists()
    else:  # none was given
        assert import_checkpoint(checkpoint, name, tmp_path / "root").name == "good"


def test_a_name_is_not_taken_twice(checkpoint, tmp_path):
    first = import_checkpoint(checkpoint, root=tmp_path / "root")
    before = sorted((f.name, f.stat().st_mtime_ns) for f in first.folder.iterdir())
    with pytest.raises(ValueError, match=r"good exists already; delete it, or give another name with --name"):
        import_checkpoint(checkpoint, root=tmp_path / "root")
    assert sorted((f.name, f.stat().st_mtime_ns) for f in first.folder.iterdir()) == before
    (tmp_path / "root" / "dangling").symlink_to("nowhere")
    with pytest.raises(ValueError, match="exists already"):
        import_checkpoint(checkpoint, "dangling", tmp_path / "root")


def test_a_name_that_is_taken_meanwhile_is_told(checkpoint, tmp_path, monkeypatch):
    def slow(*_):
        (tmp_path / "root" / "good").mkdir()
        (tmp_path / "root" / "good" / "other").touch()

    monkeypatch.setattr(convert, "_try_out", slow)
    with pytest.raises(ValueError, match="exists already"):
        import_checkpoint(checkpoint, root=tmp_path / "root")
    assert [f.name for f in (tmp_path / "root").rglob("*")] == ["good", "other"]


def test_a_model_that_fails_its_trial_leaves_nothing(checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    state["blocks.0.norm1.weight"] *= 1e30
    state["blocks.0.attn.qkv.weight"] *= 1e30
    torch.save(state, checkpoint)
    with pytest.raises(ValueError, match="features are not finite"):
        import_checkpoint(checkpoint, root=tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full"),
        (OSError(errno.EACCES, "Permission denied"), "cannot be written"),
    ],
)
def test_a_full_or_closed_disk_is_told_and_leaves_nothing(error, told, checkpoint, tmp_path, monkeypatch):
    def write(*_, **__):
        raise error

    monkeypatch.setattr(convert, "write_json", write)
    with pytest.raises(DiskProblem, match=told):
        import_checkpoint(checkpoint, root=tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_what_safetensors_says_of_the_disk_is_understood(checkpoint, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def write(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", write)
    with pytest.raises(DiskProblem, match="is full"):
        import_checkpoint(checkpoint, root=tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_the_command_names_what_it_read_and_how_to_use_it(tmp_path, weights_folder, capsys):
    from dinodemo import cli

    original = save_originals(tmp_path / "originals")["dinov2"]
    torch.save(to_meta(weights_of(original), "dinov2"), tmp_path / "my vit.pth")
    assert cli.main(["weights", "import", str(tmp_path / "my vit.pth"), "--name", "mine"]) == 0
    assert "--backbone mine" in capsys.readouterr().out
    assert cli.main(["weights", "import", str(tmp_path / "my vit.pth"), "--name", "mine"]) == 1
    assert "--name" in capsys.readouterr().err
    assert cli.main(["weights", "list"]) == 0
    assert "mine " in capsys.readouterr().out
