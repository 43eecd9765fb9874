"""Where a family keeps its tokens; and that another layout is one subclass."""

import numpy as np
import pytest
import torch

from dinodemo.backbones import adapter
from dinodemo.backbones.adapter import BackboneAdapter, adapter_for, adapter_of, layer_of


class RegistersFirst(BackboneAdapter):
    """Registers, then the class token, then patches."""

    @property
    def cls_index(self) -> int:
        return self.registers

    def split(self, tokens, axis=-2):
        first, registers, patches = super().split(tokens, axis)
        both = [np.expand_dims(first, axis), registers]
        before = np.concatenate(both, axis=axis)
        parts = np.split(before, [self.registers], axis=axis)
        return parts[1].squeeze(axis), parts[0], patches


@pytest.mark.parametrize("registers", [0, 1, 4])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_tokens_are_split_along_any_axis(registers, library):
    tokens = np.arange(2 * (1 + registers + 6) * 3).reshape(2, -1, 3)
    given = torch.from_numpy(tokens) if library == "torch" else tokens
    layout = BackboneAdapter(registers)
    cls, kept, patches = layout.split(given)
    assert (cls == given[:, 0]).all() and (kept == given[:, 1 : 1 + registers]).all()
    assert (patches == given[:, 1 + registers :]).all() and layout.token_of(5) == registers + 6
    swapped = given.swapaxes(1, 2)
    assert (layout.split(swapped, axis=-1)[2] == patches.swapaxes(1, 2)).all()


def test_another_layout_is_a_subclass_and_a_line(monkeypatch):
    monkeypatch.setitem(adapter.ADAPTERS, "other_vit", RegistersFirst)
    layout = adapter_for({"model_type": "other_vit", "num_register_tokens": 2})
    tokens = np.arange(9)[:, None]
    cls, registers, patches = layout.split(tokens)
    assert (cls.item(), registers.ravel().tolist(), patches.ravel().tolist()) == (2, [0, 1], [3, 4, 5, 6, 7, 8])
    assert layout.cls_index == 2 and layout.token_of(0) == 3


@pytest.mark.parametrize(("family", "drop_path"), [("dinov2", 0.1), ("dinov3", 0.1), ("dino-v1", None)])
def test_a_model_is_known_by_its_configuration(family, drop_path, tiny_folders):
    from transformers import AutoModel

    layout = adapter_of(AutoModel.from_pretrained(tiny_folders[family]))
    assert layout.registers == (4 if family == "dinov3" else 0)
    assert layout.train_options(0.1).get("drop_path_rate") == drop_path
    assert bool(layout.call_options) == (family == "dino-v1")


def test_parameters_know_their_layer():
    names = ("embeddings.cls_token", "encoder.layer.0.mlp.fc1.weight", "layer.11.norm1.bias", "layernorm.weight")
    assert [layer_of(name, 12) for name in names] == [0, 1, 12, 13]
