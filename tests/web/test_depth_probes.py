"""Which depth probes are offered, and that keys from the page cannot reach other files."""

import pytest

from dinodemo.tasks.depth import probe_store as depth_probes
from dinodemo.tasks.depth.probe_store import ProbeStore


class Own:
    backbone_ = "dinov2-small"


@pytest.fixture
def store(tmp_path, monkeypatch):
    for name in ("dinov2-small", "dinov2-small-offline"):
        (tmp_path / f"depth_rooms_{name}.safetensors").write_bytes(b"")
    monkeypatch.setattr(depth_probes, "WEIGHTS", tmp_path)
    return ProbeStore(services=None)


def test_ready_probes_are_those_of_the_very_backbone(store):
    assert [key for _, key in store.ready("dinov2-small")] == ["ready:depth_rooms_dinov2-small.safetensors"]
    assert store.ready("dinov2-base") == []


def test_ones_own_probe_comes_first_and_only_with_its_backbone(store):
    own = (("older", Own()), ("newer", Own()))
    keys = [key for _, key in store.choices("dinov2-small", own)]
    assert keys[:3] == ["own:newer", "own:older", "ready:depth_rooms_dinov2-small.safetensors"]
    assert any(key.startswith("meta:") for key in keys) and any(key.startswith("dpt:") for key in keys)
    assert not any(key.startswith("own:") for key in [k for _, k in store.choices("dinov2-base", own)])


@pytest.mark.parametrize("key", ["ready:../../etc/passwd", "own:nobody's", "what", "meta:../x"])
def test_keys_that_are_not_offered_are_refused(store, key):
    with pytest.raises((ValueError, RuntimeError)):
        store.load(key)


def test_a_dpt_model_is_one_of_the_list_and_no_folder(store, tmp_path):
    with pytest.raises(ValueError, match="no DPT model"):
        store.estimate(f"dpt:{tmp_path}", (), None, "dinov2-small", 518, False, True)
