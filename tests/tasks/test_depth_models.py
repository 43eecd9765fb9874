"""Whole depth models: DPT and Depth Anything with random weights, from folders and from a hub on this machine."""

import json
import shutil

import numpy as np
import pytest
import torch
from backbones.hub_server import serve
from huggingface_hub import constants

from dinodemo.io.images import IMAGENET_MEAN, IMAGENET_STD, network_input
from dinodemo.tasks.depth.dpt import DPT_MODELS, DptDepth
from dinodemo.tasks.depth.probe_store import ProbeStore
from dinodemo.tasks.depth.upsample import to_pixels


@pytest.fixture(scope="module")
def dpt_folder(tmp_path_factory):
    import transformers as tf

    backbone = tf.Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        mlp_ratio=2,
        image_size=70,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=False,
    )
    config = tf.DPTConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=256,
        readout_type="project",
        reassemble_factors=[4, 2, 1, 0.5],
        is_hybrid=False,
        add_projection=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tf.DPTForDepthEstimation(config)
        for parameter in model.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("dpt")
    model.save_pretrained(folder)
    return folder


def test_a_dpt_model_predicts_at_the_photos_size(dpt_folder, make_picture):
    from transformers import DPTForDepthEstimation

    dpt, picture = DptDepth(dpt_folder, device="cpu"), make_picture(60, 90)
    depth = dpt.predict(picture, guided=False, resolution=84)
    assert depth.shape == (60, 90) and depth.dtype == np.float32 and np.ptp(depth) > 0
    rgb = network_input(picture, 84, 14)
    pixels = (rgb / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    with torch.no_grad():
        model = DPTForDepthEstimation.from_pretrained(dpt_folder).eval()
        raw = model(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]).predicted_depth[0].numpy()
    np.testing.assert_allclose(depth, to_pixels(raw, (60, 90)), rtol=1e-4, atol=1e-5)
    both = dpt.predict(picture, flip=True, guided=False, resolution=84)
    mirrored = dpt.predict(np.ascontiguousarray(picture[:, ::-1]), guided=False, resolution=84)[:, ::-1]
    np.testing.assert_allclose(both, (depth + mirrored) / 2, rtol=1e-4, atol=1e-4)
    assert dpt.predict(picture, resolution=84).shape == (60, 90)


def test_other_models_and_an_unreachable_hub_are_refused(tiny_folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected dpt on dinov2 or depth_anything"):
        DptDepth(tiny_folder)
    with pytest.raises(ValueError, match=r"no config\.json"):
        DptDepth(tmp_path)
    with pytest.raises(ValueError, match="neither a folder nor a name"):
        DptDepth("no such/model/at all")
    with pytest.raises(RuntimeError, match="cannot be reached"):
        DptDepth()


@pytest.fixture(scope="module")
def general_folder(tmp_path_factory):
    """Give Depth Anything V2 Small's layout with random weights; its sizes but for fewer and narrower layers."""
    import transformers as tf

    backbone = tf.Dinov2Config(
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=70,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = tf.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=48,
        neck_hidden_sizes=[6, 12, 24, 48],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tf.DepthAnythingForDepthEstimation(config)
        for parameter in model.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("general")
    model.save_pretrained(folder)
    return folder


def test_a_general_model_gives_near_and_far(general_folder, make_picture):
    from transformers import DepthAnythingForDepthEstimation

    general, picture = DptDepth(general_folder, device="cpu"), make_picture(60, 90)
    depth = general.predict(picture, guided=False, resolution=84)
    assert general.unit_ == "relative" and depth.shape == (60, 90) and 0.0999 < depth.min() < depth.max() <= 1
    rgb = network_input(picture, 84, 14)
    pixels = (rgb / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    with torch.no_grad():
        model = DepthAnythingForDepthEstimation.from_pretrained(general_folder).eval()
        inverse = model(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]).predicted_depth[0].numpy()
    order = np.corrcoef(to_pixels(inverse, (60, 90)).ravel().argsort().argsort(), depth.ravel().argsort().argsort())
    assert order[0, 1] < -0.95  # what the model calls large is near


def test_a_general_model_in_metres_says_so(general_folder, tmp_path):
    shutil.copytree(general_folder, tmp_path / "metric")
    config = json.loads((tmp_path / "metric" / "config.json").read_text())
    (tmp_path / "metric" / "config.json").write_text(
        json.dumps(config | {"depth_estimation_type": "metric", "max_depth": 20})
    )
    assert DptDepth(tmp_path / "metric", device="cpu").unit_ == "metres"


def test_models_of_the_list_are_fetched_from_the_hub_by_name(general_folder, dpt_folder, tmp_path, monkeypatch):
    """The names, sizes and licences are what a person sees before the download starts."""
    labels = [label for label, key in ProbeStore(None).choices("none") if key.startswith("dpt:")]
    assert len(labels) == len(DPT_MODELS) and all(" MB, Apache-2.0" in label for label in labels)
    given = {"depth-anything/Depth-Anything-V2-Small-hf": general_folder, "facebook/dpt-dinov2-small-kitti": dpt_folder}
    with serve() as hub:
        for name, folder in given.items():
            hub.put(name, {path.name: path.read_bytes() for path in folder.iterdir()})
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        for name in given:
            assert DptDepth(name, device="cpu").unit_ == ("relative" if "anything" in name.lower() else "metres")
        assert hub.downloads("model.safetensors") == 2
