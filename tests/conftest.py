"""Shared fixtures: tiny random models of every family, pictures, the offline default; and no way to the network."""

import ipaddress
import os
import socket
import tempfile
from pathlib import Path

# before anything imports huggingface_hub: no network, and an empty cache of this run's own
_HF_HOME = tempfile.TemporaryDirectory(prefix="dinodemo-tests-hf-")
os.environ.update(HF_HOME=_HF_HOME.name, HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
os.environ["DINODEMO_BACKEND"] = "torch"  # whatever else is installed: tests of the others name them
for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT", "DINODEMO_WEIGHTS"):
    os.environ.pop(_name, None)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from clocks import Clocks  # noqa: E402
from PIL import Image  # noqa: E402

FAMILIES = ("dinov2", "dinov2-registers", "dino-v1", "dinov3")


SLOW_LAST = ("train", "jobs", "web", "scale", "browser")  # folders of tests; what is not named comes first


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Order tests: the quick ones report first, those that start processes later, the browser's last."""
    root = Path(__file__).parent

    def place(item) -> int:
        folder = Path(item.fspath).relative_to(root).parts[0]
        return SLOW_LAST.index(folder) if folder in SLOW_LAST else -1

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def only_this_machine():
    """Refuse every connection that leaves the machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        local = self.family not in (socket.AF_INET, socket.AF_INET6) or address[0] == "localhost"
        if not local and not ipaddress.ip_address(address[0]).is_loopback:
            raise OSError(f"tests may not connect to {address[0]}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


def build_model(family: str):
    """Make a small random model whose attention is not uniform, as freshly initialised ones have it."""
    import torch
    import transformers as tf

    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    make = {
        "dinov2": lambda: tf.Dinov2Model(tf.Dinov2Config(**shape, mlp_ratio=2, image_size=70, patch_size=14)),
        "dinov2-registers": lambda: tf.Dinov2WithRegistersModel(
            tf.Dinov2WithRegistersConfig(**shape, mlp_ratio=2, image_size=70, patch_size=14, num_register_tokens=4)
        ),
        "dino-v1": lambda: tf.ViTModel(
            tf.ViTConfig(**shape, intermediate_size=64, image_size=48, patch_size=16), add_pooling_layer=False
        ),
        "dinov3": lambda: tf.DINOv3ViTModel(
            tf.DINOv3ViTConfig(**shape, intermediate_size=64, patch_size=16, num_register_tokens=4)
        ),
    }[family]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = make().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn_like(parameter)
                matrix = parameter.ndim > 1
                parameter.copy_(0.3 * noise if matrix else parameter + 0.1 * noise)
                if "mask_token" in name:
                    parameter.zero_()
    return model


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory) -> dict[str, Path]:
    """Give a model folder per family."""
    import torch

    torch.set_num_threads(1)  # more only get in each other's way on models this small
    root = tmp_path_factory.mktemp("tiny")
    for family in FAMILIES:
        build_model(family).save_pretrained(root / family)
        (root / family / "preprocessor_config.json").write_text("{}")  # ImageNet's mean and deviation
    return {family: root / family for family in FAMILIES}


@pytest.fixture(scope="session")
def tiny_folder(tiny_folders) -> Path:
    """Give a DINOv2 folder; not to be changed."""
    return tiny_folders["dinov2"]


@pytest.fixture
def make_engine(tiny_folders):
    """Open a tiny engine of a family, with a cache of its own."""
    from dinodemo import Engine

    def make(family: str = "dinov2", **options):
        return Engine(str(tiny_folders[family]), **{"device": "cpu", "dtype": "float32"} | options)

    return make


@pytest.fixture
def engine(make_engine):
    """Give a fresh tiny DINOv2 engine."""
    return make_engine()


@pytest.fixture(scope="session")
def offline_engine():
    """Give the real offline default."""
    from dinodemo import Engine, backbones

    if backbones.find_local(backbones.OFFLINE_DEFAULT) is None:
        pytest.skip("weights/dinov2-small-offline is missing: run `dinodemo weights fetch`")
    return Engine(backbones.OFFLINE_DEFAULT, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def make_picture():
    """Make a smooth random (H, W, 3) uint8 picture; another seed, another picture."""

    def make(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
        coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    return make


@pytest.fixture
def weights_folder(tmp_path, monkeypatch) -> Path:
    """Use an empty weights folder instead of the project's."""
    monkeypatch.setenv("DINODEMO_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def clocks(monkeypatch):
    """Give clocks that a test sets."""
    return Clocks(monkeypatch)
