"""What runs the network: chosen by name, by a trial that is remembered, and the same numbers either way."""

import json

import numpy as np
import pytest

from dinodemo.backbones import openvino_network
from dinodemo.backbones.network import VisionTransformer
from dinodemo.engine import backends

FAMILIES = ("dinov2", "dinov2-registers", "dino-v1", "dinov3")


@pytest.fixture
def automatic(monkeypatch, tmp_path):
    """Let "auto" decide, as if OpenVINO were installed; gives the networks that it was asked for."""
    asked = []

    class Other(VisionTransformer):
        backend = "openvino"

        def __init__(self, network):
            self.__dict__ |= network.__dict__
            asked.append(network.backbone.name)

    monkeypatch.delenv("DINODEMO_BACKEND")
    monkeypatch.setattr(backends, "is_installed", lambda: True)
    monkeypatch.setattr(backends, "version", lambda name: "1")
    monkeypatch.setattr(backends, "OpenVinoTransformer", Other)
    monkeypatch.setattr(backends, "trial_file", lambda: tmp_path / "cache" / "backends.json")
    return asked


@pytest.mark.parametrize(("ratio", "expected"), [(1.4, "openvino"), (1.1, "torch"), (0.5, "torch")])
def test_auto_takes_what_a_trial_found_faster_and_remembers_it(ratio, expected, automatic, make_engine, monkeypatch):
    monkeypatch.setattr(backends, "trial", lambda first, second: ratio)
    assert make_engine().backend == expected
    assert list(json.loads(backends.trial_file().read_text()).values()) == [ratio]
    monkeypatch.setattr(backends, "trial", lambda first, second: pytest.fail("tried again"))
    assert make_engine().backend == expected
    assert len(automatic) == (2 if expected == "openvino" else 1)  # what was found slower is not even compiled


def test_another_shape_or_format_has_a_trial_of_its_own(automatic, make_engine, monkeypatch):
    monkeypatch.setattr(backends, "trial", lambda first, second: 1.0)
    for family, dtype in (("dinov2", "float32"), ("dinov3", "float32"), ("dinov2", "bfloat16")):
        make_engine(family, dtype=dtype)
    assert len(json.loads(backends.trial_file().read_text())) == 3


def test_where_openvino_fails_pytorch_runs_and_the_log_says_why(automatic, make_engine, monkeypatch, caplog):
    def fail(network):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(backends, "OpenVinoTransformer", fail)
    assert make_engine().backend == "torch"
    assert "no such operation" in caplog.text


def test_a_damaged_record_is_measured_anew(automatic, make_engine, monkeypatch):
    monkeypatch.setattr(backends, "trial", lambda first, second: 2.0)
    backends.trial_file().parent.mkdir()
    backends.trial_file().write_text('["not an object"]')
    assert make_engine().backend == "openvino"


def test_the_environment_decides_in_the_place_of_auto(make_engine, monkeypatch):
    monkeypatch.setattr(backends, "is_installed", lambda: pytest.fail("asked for OpenVINO"))
    assert make_engine().backend == "torch"
    monkeypatch.setenv("DINODEMO_BACKEND", "onnx")
    with pytest.raises(ValueError, match="DINODEMO_BACKEND of the environment must be one of auto, torch, openvino"):
        make_engine()
    assert make_engine(backend="torch").backend == "torch"
    with pytest.raises(ValueError, match=r"backend must be one of .*'tensorrt'"):
        make_engine(backend="tensorrt")


def test_a_named_backend_that_is_not_installed_says_how(make_engine, monkeypatch):
    monkeypatch.setattr(openvino_network, "is_installed", lambda: False)
    with pytest.raises(RuntimeError, match=r"pip install .*dinodemo\[openvino\]"):
        make_engine(backend="openvino")


def test_the_trial_is_the_ratio_of_the_best_times_after_a_run_that_does_not_count(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(backends.time, "perf_counter", lambda: clock[0])

    class Network:
        backbone = type("Row", (), {"patch_size": 14})

        def __init__(self, *seconds):
            self.seconds = list(seconds)

        def __call__(self, picture):
            assert picture.shape == (1, 518, 518, 3)
            clock[0] += self.seconds.pop(0)

    assert backends.trial(Network(9, 6, 3), Network(1, 2, 4)) == 1.5


# the real thing, where it is installed


@pytest.mark.skipif(not openvino_network.is_installed(), reason="OpenVINO is not installed")
@pytest.mark.parametrize("family", FAMILIES)
def test_openvino_gives_the_same_features_layers_and_rows(family, make_engine, make_picture):
    ours, theirs = make_engine(family, backend="openvino"), make_engine(family)
    assert (ours.backend, theirs.backend) == ("openvino", "torch")
    for height, width in ((60, 90), (120, 50)):
        picture = make_picture(height, width)
        a, b = (engine.features(picture, 112, attention=True) for engine in (ours, theirs))
        for name in ("cls", "patches", "registers", "layer_attention", "prefix_attention", "patch_norms"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=2e-4, err_msg=name)
        for mine, its in zip(ours.layers(picture, (0, 2)), theirs.layers(picture, (0, 2)), strict=True):
            np.testing.assert_allclose(mine[1], its[1], atol=1e-4)
        rows, expected = (engine.attention_rows(picture, (1, 2), 112)[0] for engine in (ours, theirs))
        np.testing.assert_allclose(rows, expected, atol=1e-5)
    batch = list(ours.features_batch([make_picture(60, 90, seed) for seed in range(3)], 112))
    one = theirs.features(make_picture(60, 90, 2), 112)
    np.testing.assert_allclose(batch[2].patches, one.patches, atol=1e-4)


@pytest.mark.skipif(not openvino_network.is_installed(), reason="OpenVINO is not installed")
def test_openvino_that_disagrees_is_refused(make_engine, monkeypatch):
    monkeypatch.setattr(openvino_network, "AGREEMENT", 1.1)
    with pytest.raises(RuntimeError, match=r"cosine 1\.0000 to PyTorch's"):
        make_engine(backend="openvino")
