"""What is kept of a teacher at each evaluation: patches and attention of the first photos."""

import numpy as np
import pytest
import torch

from dinodemo.train.evaluate import LastAttention
from dinodemo.train.network import load_folder, tokens
from dinodemo.train.run import finetune


@pytest.mark.parametrize("family", ["dinov2", "dinov2-registers", "dino-v1", "dinov3"])
def test_the_last_attention_is_the_networks_own(tiny_folders, family):
    module = load_folder(tiny_folders[family]).module.eval()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    if module.config.patch_size == 14:
        pixels = pixels[..., :56, :56]
    with torch.inference_mode(), LastAttention() as last:
        tokens(module, pixels)
    module.set_attn_implementation("eager")
    options = {"interpolate_pos_encoding": True} if module.config.model_type == "vit" else {}
    with torch.inference_mode():
        expected = module(pixel_values=pixels, output_attentions=True, **options).attentions[-1].mean(dim=1)[:, 0]
    assert torch.allclose(last.of_cls(), expected, atol=1e-5)


def test_a_run_keeps_patches_and_attention_of_three_photos(tmp_path, photos, settings):
    finetune(photos, tmp_path / "run", settings())
    films = sorted((tmp_path / "run" / "film").glob("*.npz"))
    assert [path.stem for path in films] == ["step-00000000", "step-00000002", "step-00000004"]
    with np.load(films[-1]) as film:
        assert film["patches"].shape[:3] == film["attention"].shape == (3, 2, 2)
        assert (film["attention"].sum(axis=(1, 2)) < 1).all() and (film["attention"] > 0).all()  # CLS keeps its part
