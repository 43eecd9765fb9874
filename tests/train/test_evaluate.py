"""Which photos an evaluation counts: those that can be read, and no other in the place of one that cannot."""

import shutil

import pytest
import torch

from dinodemo.train import data
from dinodemo.train.data import PhotoCache, scan, split
from dinodemo.train.evaluate import Evaluator, evaluate_knn
from dinodemo.train.network import load_folder


@pytest.fixture
def damaged(photos, tmp_path):
    """Copy the photos and damage one of each class."""
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    for path in (root / "dark" / "08.png", root / "light" / "11.png"):
        path.write_bytes(path.read_bytes()[:60])
    return root


def test_an_unreadable_photo_is_left_out_of_the_count(damaged, settings, tiny_folder, monkeypatch):
    monkeypatch.setattr(data, "LEAST_HELD_OUT", 2)
    found, config, start = scan(damaged), settings(holdout=0.5), load_folder(tiny_folder)
    parts = split(found, config)
    broken = {i for i, path in enumerate(found.paths) if path.stat().st_size == 60}
    assert len(found.paths) == 20 and len(broken) == 2 and set(parts.queries) & broken
    with PhotoCache(found.paths) as cache:
        evaluator = Evaluator(cache, parts, config, start.mean, start.std, torch.device("cpu"))
        evaluator.remember_start(start.module)
        module = start.module.eval()
        _, hits = evaluator(module, torch.nn.Linear(start.backbone.width, 16))
    counted = [i for i in parts.queries if i not in broken]
    assert evaluator.queries == counted and len(hits) == len(counted)
    assert not broken & set(evaluator.gallery)
    assert evaluator.where == f"{len(counted)} held-out photos"


def test_knn_of_a_backbone_leaves_unreadable_photos_out(damaged, tiny_folder, tmp_path):
    clean = tmp_path / "clean"
    shutil.copytree(damaged, clean)
    for path in clean.rglob("*.png"):
        if path.stat().st_size == 60:
            path.unlink()
    found, expected = (evaluate_knn(str(tiny_folder), folder, size=28) for folder in (damaged, clean))
    assert found.pop("left_out") == 2 and expected.pop("left_out") == 0
    assert found == expected and found["photos"] == 18


def test_a_folder_of_unreadable_photos_is_refused(damaged, tiny_folder):
    for path in damaged.rglob("*.png"):
        path.write_bytes(b"no photo")
    with pytest.raises(ValueError, match="none of the 20"):
        evaluate_knn(str(tiny_folder), damaged, size=28)
