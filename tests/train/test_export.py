"""What comes out of a run opens everywhere, and says what it is."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from dinodemo import Engine
from dinodemo.backbones import Backbone
from dinodemo.train import evaluate_knn, export_run
from dinodemo.train.export import restore, write_model
from dinodemo.train.network import StartingBackbone, load_folder, tokens
from dinodemo.train.run import finetune
from dinodemo.train.runfolder import DiskFull


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos, settings):
    run = tmp_path_factory.mktemp("runs") / "one"
    fast = {"lr": 1e-2, "momentum_start": 0.0, "momentum_end": 0.0, "head_warmup": 0.0, "thaw": 0.0, "warmup": 0.0}
    finetune(photos, run, settings(**fast))
    return run


@pytest.mark.parametrize("family", ["dinov2", "dinov2-registers", "dino-v1", "dinov3"])
def test_an_exported_model_gives_the_same_tokens_everywhere(tmp_path, tiny_folders, make_picture, family):
    start = load_folder(tiny_folders[family], drop_path=0.0 if family == "dino-v1" else 0.3)
    with torch.no_grad():
        for parameter in start.module.parameters():
            parameter.add_(0.01)
    folder = write_model(tmp_path / "export", start.module, start, "A card.\n")
    size = 4 * start.backbone.patch_size
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = tokens(start.module.eval(), pixels)[0]
        loaded = AutoModel.from_pretrained(folder).eval()
        assert torch.allclose(tokens(loaded, pixels)[0], expected, atol=1e-5)
    assert getattr(loaded.config, "drop_path_rate", 0.0) == 0.0
    if family != "dino-v1":
        assert start.module.config.drop_path_rate == 0.3  # the run's own settings stay
    engine = Engine(str(folder), device="cpu", dtype="float32")
    features = engine.features(make_picture(size, size), resolution=size)
    assert np.isfinite(features.cls).all() and features.cls.shape == (32,)


def test_a_run_is_a_backbone_with_a_card_and_a_preprocessor(run, make_picture):
    engine = Engine(str(run), device="cpu", dtype="float32")
    assert engine.features(make_picture(), resolution=70).patches.shape[-1] == 32
    card = (run / "export" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers") and '"prototypes": 16' in card
    assert (run / "report.json").read_text().split('"sentence": "')[1].split('"')[0] in card
    assert '"image_mean"' in (run / "export" / "preprocessor_config.json").read_text()


def test_the_start_and_the_last_teacher_can_be_had_too(run, tmp_path, tiny_folder):
    best, last, start = (export_run(run, tmp_path / which, which) for which in ("best", "last", "start"))
    states = [load_folder(folder).module.state_dict() for folder in (best, last, start, tiny_folder)]
    name = next(name for name in states[0] if name.endswith("fc2.weight"))
    assert torch.equal(states[2][name], states[3][name])
    assert torch.equal(states[0][name], states[2][name])  # the two classes were told apart from the start
    assert not torch.equal(states[1][name], states[2][name])
    assert "last teacher, of step 4" in (last / "README.md").read_text()


def test_exports_go_nowhere_in_use_and_come_from_runs(run, tmp_path):
    with pytest.raises(ValueError, match="exists already"):
        export_run(run, tmp_path)
    with pytest.raises(ValueError, match="which must be"):
        export_run(run, tmp_path / "x", "worst")
    with pytest.raises(ValueError, match="is it the folder of a run"):
        export_run(tmp_path, tmp_path / "x")


def test_a_failed_write_keeps_the_former_export(tmp_path, tiny_folder, monkeypatch):
    start = load_folder(tiny_folder)
    folder = write_model(tmp_path / "export", start.module, start, "first")
    monkeypatch.setattr(
        type(start.module), "save_pretrained", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(DiskFull, match="free some space"):
        write_model(folder, start.module, start, "second")
    assert (folder / "README.md").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_a_folder_lost_between_two_renames_is_restored(tmp_path):
    (tmp_path / ".export.new.former").mkdir()
    restore(tmp_path / "export")
    assert (tmp_path / "export").is_dir() and not (tmp_path / ".export.new.former").exists()


def test_knn_of_any_backbone_on_class_folders(run, photos, tiny_folder):
    seen = []
    alone = evaluate_knn(str(tiny_folder), photos, device="cpu", size=56, progress=lambda *at: seen.append(at))
    assert (alone["photos"], alone["gallery"], alone["classes"]) == (20, 20, 2) and 0.5 <= alone["knn"] <= 1
    assert seen[-1] == (20, 20)
    both = evaluate_knn(str(run), photos, photos, device="cpu", size=56, k=1)
    assert both["knn"] == 1.0  # every picture is its own nearest
    with pytest.raises(ValueError, match="class folders"):
        evaluate_knn(str(tiny_folder), photos / "dark", device="cpu")


def test_a_start_keeps_its_normalisation(tmp_path, tiny_folder):
    start = load_folder(tiny_folder)
    row = Backbone("x", None, 32, 3, 4, 14, 0, "", 0)
    other = StartingBackbone(row, start.module, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    back = load_folder(write_model(tmp_path / "model", start.module, other, ""))
    assert back.mean == (0.1, 0.2, 0.3) and back.std == (0.5, 0.5, 0.5)
