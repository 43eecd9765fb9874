"""Model files from strangers: nothing in them runs, and what is damaged or absurd is refused with a sentence."""

import ast
import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest

from dinodemo import Engine
from dinodemo.backbones import find_local, is_hub_id

ROOT = Path(__file__).parents[1]
SOURCES = [*ROOT.glob("*.py"), *(ROOT / "dinodemo").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]


def calls(path: Path):
    """Yield (name, keywords) of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            yield ast.unparse(node.func), keywords, f"{path.relative_to(ROOT)}:{node.lineno}"


ALL_CALLS = [call for path in SOURCES for call in calls(path)]


def test_nothing_is_unpickled():
    own = "dinodemo/scale/cluster.py"  # what the processes of one run hand each other on their own cluster
    for name, keywords, where in ALL_CALLS:
        if name == "torch.load":
            assert keywords.get("weights_only") is True, where
        if name in ("np.load", "numpy.load"):
            assert not keywords.get("allow_pickle"), where
        if not (name in ("pickle.dumps", "pickle.loads") and where.startswith(f"{own}:")):
            assert name.split(".")[0] not in ("pickle", "dill", "joblib", "marshal", "shelve"), where
        assert name not in ("eval", "exec", "os.system", "yaml.load", "torch.hub.load"), where


def test_models_are_loaded_as_data_only():
    found = [(keywords, where) for name, keywords, where in ALL_CALLS if name.endswith("AutoModel.from_pretrained")]
    assert found
    for keywords, where in found:
        assert keywords["trust_remote_code"] is False and keywords["use_safetensors"] is True, where
        assert keywords["local_files_only"] is True, where
    assert not [where for _, keywords, where in ALL_CALLS if keywords.get("trust_remote_code") is True]


def test_no_program_is_started_through_a_shell():
    assert not [where for _, keywords, where in ALL_CALLS if keywords.get("shell")]


@pytest.fixture
def model(tmp_path, tiny_folder) -> Path:
    """Give a model folder that may be changed."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


class Bomb:
    """Leave a trace when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "model.pt", "model.safetensors"])
def test_a_pickle_is_never_opened(name, model, tmp_path):
    trace = tmp_path / "it-ran"
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(ValueError, match=r"expected config\.json and model\.safetensors|damaged|cannot be loaded"):
        Engine(str(model), device="cpu")
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_depth_head_is_no_way_in_either(suffix, tmp_path):
    from dinodemo.tasks.depth import DepthProbe

    trace, path = tmp_path / "it-ran", tmp_path / f"head{suffix}"
    path.write_bytes(pickle.dumps({"state_dict": Bomb(trace)}))
    with pytest.raises(ValueError, match=path.name):
        DepthProbe.from_meta(path) if suffix == ".pth" else DepthProbe.load(path)
    assert not trace.exists()


@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines"])
def test_code_that_comes_with_a_model_does_not_run(key, model, tmp_path):
    trace = tmp_path / "it-ran"
    (model / "evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((model / "config.json").read_text())
    config[key] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
    (model / "config.json").write_text(json.dumps(config))
    Engine(str(model), device="cpu")  # opened as the plain model that its weights are
    assert not trace.exists()
    config["model_type"] = "evil"
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"cannot be loaded|expected"):
        Engine(str(model), device="cpu")
    assert not trace.exists()


ABSURD = [
    {"num_hidden_layers": 10**9},
    {"hidden_size": 10**12},
    {"hidden_size": -32},
    {"patch_size": 0},
    {"num_attention_heads": 0},
    {"num_attention_heads": 5},
    {"hidden_size": "32"},
    {"num_hidden_layers": None},
    {"patch_size": [14, 7]},
    {"patch_size": []},
    {"num_register_tokens": 10**9},
    {"hidden_size": 1e400},
    {"image_size": 10**9},
    {"mlp_ratio": 10**9},
    {"hidden_act": "os.system"},
]


@pytest.mark.parametrize("wrong", ABSURD, ids=str)
def test_an_absurd_configuration_is_refused_at_once(wrong, model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | wrong))
    with pytest.raises(ValueError, match="model"):
        Engine(str(model), device="cpu")


def header_of(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def write_safetensors(path: Path, header: bytes, data: bytes, size: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if size is None else size) + header + data)


def longest(header: dict) -> str:
    return max((k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"][1])


BROKEN = {
    "a size beyond the file": lambda h: (json.dumps(h).encode(), 2**62),
    "a size of nothing": lambda h: (json.dumps(h).encode(), 0),
    "no JSON": lambda h: (b"{" * 500, None),
    "JSON of another kind": lambda h: (b"[1, 2, 3]", None),
    "very deep JSON": lambda h: (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, None),
    "offsets beyond the data": lambda h: (
        json.dumps(h | {longest(h): {**h[longest(h)], "data_offsets": [0, 2**40]}}).encode(),
        None,
    ),
    "offsets backwards": lambda h: (
        json.dumps(h | {longest(h): {**h[longest(h)], "data_offsets": [64, 0]}}).encode(),
        None,
    ),
    "a shape that does not fit": lambda h: (
        json.dumps(h | {longest(h): {**h[longest(h)], "shape": [2**31, 2**31]}}).encode(),
        None,
    ),
    "an unknown kind of number": lambda h: (
        json.dumps(h | {longest(h): {**h[longest(h)], "dtype": "F7"}}).encode(),
        None,
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_malformed_safetensors_header_is_refused(how, model):
    path = model / "model.safetensors"
    header, data = header_of(path)
    write_safetensors(path, *(BROKEN[how](header)[0], data), size=BROKEN[how](header)[1])
    with pytest.raises(ValueError, match=r"damaged|cannot be loaded"):
        Engine(str(model), device="cpu")


NO_IDS = [
    "../../etc",
    "/etc",
    "/etc/passwd",
    "~/model",
    "a/../b",
    "..",
    "org/../..",
    "org/model/extra",
    "org\\model",
    "file:///etc",
    "https://example.com/model",
    "org/model\n",
    "-flag/x",
    ".hidden/x",
    "org/ model",
    "",
    "\0/a",
]


@pytest.mark.parametrize("name", NO_IDS, ids=repr)
def test_what_leads_somewhere_else_is_no_hub_id(name):
    assert not is_hub_id(name)


@pytest.mark.parametrize("name", ["org/model\n", "file:///etc", "https://example.com/model", "\0/a"], ids=repr)
def test_and_is_not_found_on_this_machine(name):
    assert find_local(name) is None
