"""Files of depth probes: damaged and others are refused, whatever is wrong with them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dinodemo.tasks.depth import DepthProbe


@pytest.fixture
def fitted(engine):
    rng = np.random.default_rng(0)
    depth = np.linspace(5, 1, 84)[:, None] + np.zeros((84, 112))
    pairs = [(rng.integers(0, 255, (84, 112, 3), dtype=np.uint8), depth) for _ in range(5)]
    return DepthProbe("lin1", epochs=1, resolution=112, bins=32).fit(engine, pairs)


def damaged(fitted, path: Path, change) -> Path:
    from safetensors.torch import load, save

    fitted.save(path)
    card, tensors = json.loads(json.dumps(fitted.card_)), load(path.read_bytes())
    change(card, tensors)
    path.write_bytes(save(tensors, {"card": json.dumps(card)}))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda card, tensors: card.update(format="other"),
        lambda card, tensors: card.update(width=7),
        lambda card, tensors: card.update(layers=[99]),
        lambda card, tensors: card.update(layers=3),
        lambda card, tensors: card.update(range=[5, 1]),
        lambda card, tensors: card.update(range=[0, "far"]),
        lambda card, tensors: card.update(bins=10**9),
        lambda card, tensors: card.update(warning=None),
        lambda card, tensors: card.update(kind="lin9"),
        lambda card, tensors: card.update(relative="yes"),
        lambda card, tensors: card.update(metrics={"rmse": "low"}),
        lambda card, tensors: card.update(metrics={"rmse": 1.0}),
        lambda card, tensors: card.pop("resolution"),
        lambda card, tensors: tensors.pop("bias"),
        lambda card, tensors: tensors.update(weight=tensors["weight"][:, 1:].contiguous()),
        lambda card, tensors: tensors["weight"].fill_(float("nan")),
        lambda card, tensors: tensors.update(bias=tensors["bias"].to(torch.int32)),
    ],
)
def test_damaged_files_are_refused(fitted, tmp_path, change):
    with pytest.raises(ValueError, match=r"probe\.safetensors is not a depth probe saved by this app"):
        DepthProbe.load(damaged(fitted, tmp_path / "probe.safetensors", change))


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"hello")
    for name in ("a.safetensors", "missing.safetensors"):
        with pytest.raises(ValueError, match="not a depth probe"):
            DepthProbe.load(tmp_path / name)
