"""Published depth heads: files of their format, made here, since none can be downloaded in a test."""

import contextlib
import hashlib
import http.server
import threading
import time

import numpy as np
import pytest
import torch
from torch.nn import functional

from dinodemo import backbones
from dinodemo.io.images import IMAGENET_MEAN, IMAGENET_STD, network_input
from dinodemo.tasks.depth import OFFICIAL_HEADS, DepthProbe, fetch_official, official, official_heads
from dinodemo.tasks.depth.tokens import read_tokens
from dinodemo.tasks.depth.upsample import to_pixels


def head_file(path, width=384, layers=4, bins=256, **extra):
    """Write a head as the published files have it: mmcv's names, a 1x1 convolution."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(bins, 2 * width * layers, 1, 1, generator=generator) / width**0.5
    state = {
        "decode_head.conv_depth.weight": weight,
        "decode_head.conv_depth.bias": torch.rand(bins, generator=generator),
    }
    torch.save({"meta": {"epoch": 1}, "state_dict": state} | extra, path)
    return path


@pytest.fixture
def four_layer_engine(tmp_path):
    """Open a random DINOv2 with four layers, which is what a published head of this depth would read."""
    import transformers as tf

    from dinodemo import Engine

    shape = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "mlp_ratio": 2, "image_size": 70}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = tf.Dinov2Model(tf.Dinov2Config(**shape, patch_size=14))
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "model")
    return Engine(str(tmp_path / "model"), device="cpu", dtype="float32")


def published_prediction(model, rgb, weight, bias, high):
    """Do what the hub's code does: layers without the final norm, joined with CLS, four times as fine, convolved."""
    pixels = torch.tensor(rgb).permute(2, 0, 1)[None] / 255
    pixels = (pixels - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    with torch.no_grad():
        states = model(pixel_values=pixels, output_hidden_states=True).hidden_states
    h, w, maps = rgb.shape[0] // 14, rgb.shape[1] // 14, []
    for state in states[1:]:  # the first one is the embedding
        patches = state[:, 1:].transpose(1, 2).reshape(1, -1, h, w)
        joined = torch.cat([patches, state[:, 0, :, None, None].expand_as(patches)], 1)
        maps.append(functional.interpolate(joined, scale_factor=4, mode="bilinear", align_corners=False))
    logit = functional.conv2d(torch.cat(maps, 1), weight, bias).relu() + 0.1
    depth = torch.einsum("ikmn,k->imn", logit / logit.sum(1, keepdim=True), torch.linspace(0.001, high, len(bias)))
    return depth.clamp(0.001, high)[0].numpy()


@pytest.mark.parametrize(("dataset", "high"), [("nyu", 10.0), ("kitti", 80.0)])
def test_a_published_head_gives_what_the_published_forward_pass_gives(
    four_layer_engine, make_picture, tmp_path, monkeypatch, dataset, high
):
    engine = four_layer_engine
    monkeypatch.setattr(official, "BACKBONES", {"tiny": (engine.backbone.name, 32, 4)})
    path = head_file(tmp_path / "head.pth", width=32)
    probe = DepthProbe.from_meta(path, dataset=dataset)
    assert probe.card_["layers"] == [0, 1, 2, 3] and probe.card_["range"] == [0.001, high] and probe.unit_ == "metres"
    picture = make_picture(60, 90)
    state = torch.load(path, weights_only=True)["state_dict"].values()
    rgb = network_input(picture, 98, 14)
    expected = published_prediction(engine.model, rgb, *state, high)
    assert np.ptp(expected) > 0.02 * high  # the test would be empty on a flat map
    found = probe.predict(engine, picture, guided=False, resolution=98)
    np.testing.assert_allclose(found, to_pixels(expected, (60, 90)), rtol=1e-4, atol=1e-4)


def test_a_published_head_survives_saving_in_the_format_of_this_app(
    four_layer_engine, make_picture, tmp_path, monkeypatch
):
    engine = four_layer_engine
    monkeypatch.setattr(official, "BACKBONES", {"tiny": (engine.backbone.name, 32, 4)})
    probe = DepthProbe.from_meta(head_file(tmp_path / "head.pth", width=32), dataset="nyu")
    probe.save(tmp_path / "saved.safetensors")
    again = DepthProbe.load(tmp_path / "saved.safetensors")
    assert again.card_ == probe.card_
    picture = make_picture()
    one, two = (p.predict(engine, picture, resolution=70) for p in (probe, again))
    assert np.array_equal(one, two)


def test_tokens_before_the_final_norm_are_those_that_the_norm_makes_the_engines_of(engine, make_picture):
    from dinodemo.io.images import load_photo

    photo = load_photo(make_picture())
    raw, raw_cls = read_tokens(engine, photo, (0, 2), 84, normed=False)
    normed, normed_cls = read_tokens(engine, photo, (0, 2), 84)
    assert raw.shape == normed.shape and raw_cls.shape == normed_cls.shape == (64,)
    for part in (slice(0, 32), slice(32, 64)):
        with torch.no_grad():
            found = engine.model.layernorm(torch.tensor(raw[..., part])).numpy()
            found_cls = engine.model.layernorm(torch.tensor(raw_cls[part])).numpy()
        np.testing.assert_allclose(found, normed[..., part], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found_cls, normed_cls[part], rtol=1e-4, atol=1e-5)


def test_other_families_are_refused_before_anything_runs(make_engine, make_picture):
    from dinodemo.io.images import load_photo

    with pytest.raises(ValueError, match=r"no DINOv2 model"):
        read_tokens(make_engine("dinov3"), load_photo(make_picture()), (0,), 84, normed=False)


@pytest.mark.parametrize(
    ("name", "width", "layers", "backbone", "indices", "high"),
    [
        ("dinov2_vits14_nyu_linear4_head.pth", 384, 4, "dinov2-small", [2, 5, 8, 11], 10.0),
        ("dinov2_vits14_kitti_linear_head.pth", 384, 1, "dinov2-small", [11], 80.0),
        ("dinov2_vitb14_nyu_linear_head.pth", 768, 1, "dinov2-base", [11], 10.0),
        ("dinov2_vitl14_kitti_linear4_head.pth", 1024, 4, "dinov2-large", [4, 11, 17, 23], 80.0),
        ("dinov2_vitg14_nyu_linear4_head.pth", 1536, 4, "dinov2-giant", [9, 19, 29, 39], 10.0),
    ],
)
def test_name_and_shapes_tell_what_a_head_belongs_to(tmp_path, name, width, layers, backbone, indices, high):
    probe = DepthProbe.from_meta(head_file(tmp_path / name, width, layers))
    assert (probe.backbone_, probe.card_["layers"], probe.card_["range"]) == (backbone, indices, [0.001, high])
    assert probe.kind == f"lin{layers}" and probe.card_["normed"] is False
    assert "Trained on" in probe.note_ and probe.metrics_ is None


def test_a_file_under_another_name_has_to_be_explained(tmp_path):
    path = head_file(tmp_path / "mine.pth", 768, 1)
    with pytest.raises(ValueError, match='"nyu" or "kitti"'):
        DepthProbe.from_meta(path)
    assert DepthProbe.from_meta(path, dataset="kitti").backbone_ == "dinov2-base"
    with pytest.raises(ValueError, match="fits dinov2-base, not dinov2-small"):
        DepthProbe.from_meta(path, dataset="nyu", backbone="dinov2-small")


def test_a_head_of_another_backbone_is_refused_with_a_sentence(engine, make_picture, tmp_path):
    probe = DepthProbe.from_meta(head_file(tmp_path / "dinov2_vits14_nyu_linear_head.pth", 384, 1))
    with pytest.raises(ValueError, match=r"trained on dinov2-small \(width 384, 12 layers\), the engine runs"):
        probe.predict(engine, make_picture())


def test_the_offline_backbone_is_not_taken_for_the_official_one(offline_engine, make_picture, tmp_path):
    probe = DepthProbe.from_meta(head_file(tmp_path / "dinov2_vits14_nyu_linear_head.pth", 384, 1))
    with pytest.raises(ValueError, match=f"engine runs {backbones.OFFLINE_DEFAULT}"):
        probe.predict(offline_engine, make_picture())


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_files_of_another_kind_are_refused(tmp_path, capsys):
    name = "dinov2_vits14_nyu_linear_head.pth"
    cases = {
        "pickle": lambda path: torch.save({"state_dict": Evil()}, path),
        "text": lambda path: path.write_text("hello"),
        "no head": lambda path: torch.save({"state_dict": {}}, path),
        "a list": lambda path: torch.save([1], path),
        "a 3x3 convolution": lambda path: torch.save(
            {"decode_head.conv_depth.weight": torch.zeros(8, 4, 3, 3), "decode_head.conv_depth.bias": torch.zeros(8)},
            path,
        ),
        "nan": lambda path: torch.save(
            {
                "decode_head.conv_depth.weight": torch.full((8, 768, 1, 1), torch.nan),
                "decode_head.conv_depth.bias": torch.zeros(8),
            },
            path,
        ),
        "another width": lambda path: head_file(path, 100, 1),
    }
    for case, make in cases.items():
        path = tmp_path / case / name
        path.parent.mkdir()
        make(path)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            DepthProbe.from_meta(path)
    with pytest.raises(ValueError, match="no published linear depth head"):
        DepthProbe.from_meta(tmp_path / name)
    assert capsys.readouterr().out == ""


def test_the_table_names_every_published_linear_head():
    assert len(OFFICIAL_HEADS) == 16
    head = OFFICIAL_HEADS["dinov2_vitb14_kitti_linear4"]
    assert head.url == "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_kitti_linear4_head.pth"
    assert head.backbone in backbones.BACKBONES and "four layers" in head.label
    assert [h.dataset for h in official_heads("dinov2-small")] == ["nyu", "nyu", "kitti", "kitti"]
    assert official_heads(backbones.OFFLINE_DEFAULT) == []
    for name, width, depth in official.BACKBONES.values():
        assert (backbones.BACKBONES[name].width, backbones.BACKBONES[name].depth) == (width, depth)


@pytest.fixture
def serve():
    """Serve bytes at a path of this machine; `declared` lies about their number."""
    servers = []

    def start(content: bytes, status: int = 200, declared: int | None = None, wait: float = 0.0) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                time.sleep(wait)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content) if declared is None else declared))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # the reader has left
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/head.pth"

    yield start
    for server in servers:
        server.shutdown()


NAME = "dinov2_vits14_nyu_linear"


def test_a_head_is_downloaded_once_and_loads(serve, tmp_path):
    content = head_file(tmp_path / "made.pth", 384, 1).read_bytes()
    path = fetch_official(NAME, tmp_path / "heads", url=serve(content))
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert DepthProbe.from_meta(path).backbone_ == "dinov2-small"
    assert fetch_official(NAME, tmp_path / "heads", url="http://127.0.0.1:1/") == path


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"content": b"no", "status": 404}, "cannot be had"),
        ({"content": b"half", "declared": 4000}, "broke off after 4 of 4000|cannot be had"),
        ({"content": b"", "declared": 10**9}, "more than any head"),
        ({"content": b"late", "wait": 3.0}, "cannot be had"),
    ],
)
def test_a_download_that_fails_leaves_nothing_behind(serve, tmp_path, monkeypatch, answer, message):
    monkeypatch.setattr(official, "TIMEOUT", 0.3)
    with pytest.raises(RuntimeError, match=message):
        fetch_official(NAME, tmp_path / "heads", url=serve(**answer))
    assert list((tmp_path / "heads").iterdir()) == []


def test_a_server_out_of_reach_is_told_at_once(tmp_path):
    with pytest.raises(RuntimeError, match="check the network"):
        fetch_official(NAME, tmp_path, url="http://127.0.0.1:1/head.pth")
    with pytest.raises(ValueError, match="no published head is called 'other'"):
        fetch_official("other", tmp_path)
