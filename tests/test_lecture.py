"""The lecture companion runs from top to bottom, and shows what its text says."""

import runpy
from pathlib import Path

import pytest

from dinodemo.backbones import OFFLINE_DEFAULT, find_local

COMPANION = Path(__file__).parents[1] / "lecture" / "companion.py"
FIGURES = [
    "1-shapes",
    "2-multi-crop",
    "3-collapse",
    "3-one-batch",
    "4-masks",
    "5-knn-and-linear",
    "6-attention",
    "7-pca",
    "8-segmentation",
    "9-depth",
    "10-retrieval",
    "11-sharpness",
    "12-part-and-whole",
    "13-ibot",
    "14-few-labels",
]


@pytest.fixture
def one_thread():
    """Run on one thread of torch: on busy cores more only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_companion_shows_what_it_says(tmp_path, monkeypatch, one_thread):
    pytest.importorskip("matplotlib", reason="matplotlib is in requirements-dev.txt")
    if find_local(OFFLINE_DEFAULT) is None:
        pytest.skip(f"{OFFLINE_DEFAULT} is not in weights/; run `dinodemo weights fetch {OFFLINE_DEFAULT}`")
    for name, value in {"LECTURE_FAST": "1", "LECTURE_FIGURES": str(tmp_path), "MPLBACKEND": "Agg"}.items():
        monkeypatch.setenv(name, value)
    shown = runpy.run_path(str(COMPANION), run_name="__main__")

    assert sorted(p.stem for p in tmp_path.glob("*.png")) == sorted(FIGURES)
    end = {name: {curve: values[-1] for curve, values in curves.items()} for name, curves in shown["runs"].items()}
    collapsed, uniform = end["not centred"], end["not sharp"]
    assert all(collapsed["loss"] < other["loss"] for name, other in end.items() if name != "not centred")
    assert collapsed["entropy of the mean"] < 0.1 and uniform["entropy"] > 0.95
    assert end["Sinkhorn-Knopp and sharp"]["entropy of the mean"] > 0.5
    assert shown["shares"]["plain softmax"][0] > 0.5 and abs(shown["shares"]["Sinkhorn-Knopp"][0] - 1 / 8) < 0.01
    accuracy = {name: found.accuracy for name, found in shown["results"].items()}
    assert min(accuracy["class tokens, k-NN"], accuracy["class tokens, linear"]) > 0.7
    assert max(accuracy["pixels, k-NN"], accuracy["pixels, linear"]) < 0.5
    assert shown["iou"] > 0.8 and shown["right"] > 0.8
    assert shown["sharpness"][0.3]["entropy"][-1] > shown["sharpness"][0.04]["entropy"][-1]
    assert (shown["own"] > shown["other"]).all() and shown["own"][-1] > shown["own"][0]
    assert shown["needed"][-1] > 0.5


def test_the_notebook_is_the_script():
    pytest.importorskip("jupytext", reason="jupytext is in requirements-dev.txt")
    from tools.notebook import notebook_text

    assert COMPANION.with_suffix(".ipynb").read_text(encoding="utf-8") == notebook_text(), "run `make notebook`"
