"""The trained head: its metrics against slow references, its files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from head_scenes import COLOURS, MASK, PHOTO, scene
from PIL import Image, ImageDraw
from torch.nn import functional

from dinodemo.tasks.segmentation_head import SegmentationHead, training
from dinodemo.tasks.segmentation_head.dataset import choose_held_out

ASSETS = Path(__file__).resolve().parents[2] / "assets"
RESOLUTION = 168  # 12 x 12 patches


def tiny_head(**options) -> SegmentationHead:
    return SegmentationHead(**{"resolution": RESOLUTION, "epochs": 20} | options)


@pytest.fixture
def fitted(engine):
    return tiny_head(epochs=5).fit(engine, [scene(i) for i in range(5)], ["red", "blue", "yellow"])


@pytest.mark.parametrize(("kind", "resolution", "epochs"), [("linear", 336, 20), ("conv", 168, 15)])
def test_one_pair_is_learned_by_heart(engine, kind, resolution, epochs):
    mask = np.zeros((168, 168), np.uint8)
    mask[:, 70:] = 1  # on the border of patches
    photo = np.array(COLOURS, np.uint8)[mask]
    head = tiny_head(kind=kind, resolution=resolution, epochs=epochs).fit(engine, [(photo, mask)])
    counts = training.confusion(mask, head.predict(engine, photo).classes, 2)
    assert training.mean_iou(counts) > 0.95
    assert head.miou_ is None and head.iou_ is None and head.confusion_ is None
    assert "No held-out figure" in head.note_
    assert head.classes_ == ("background", "class 1")


def test_three_classes_are_learned_and_measured_on_photos_not_trained_on(engine, monkeypatch):
    seen = []
    original = training.HeadNetwork.standardise
    monkeypatch.setattr(
        training.HeadNetwork, "standardise", lambda self, samples: (seen.extend(samples), original(self, samples))[1]
    )
    pairs = [scene(i) for i in range(10)]
    head = tiny_head().fit(engine, pairs, ["red", "blue", "yellow"])
    assert head.miou_ > 0.75
    assert head.card_["held_out_pairs"] == 2 and len(seen) == 8
    held = [engine.features(pairs[i][0], RESOLUTION).patches for i in (4, 9)]
    assert not any(np.array_equal(sample.patches.numpy(), patches) for sample in seen for patches in held)
    # the figures are those of predict, on exactly these photos
    counts = sum(training.confusion(m, head.predict(engine, p).classes, 4) for p, m in (pairs[4], pairs[9]))
    assert np.array_equal(head.confusion_, counts)
    assert np.allclose(head.confusion_normalised_.sum(1), 1)
    assert head.miou_ == pytest.approx(np.mean(head.iou_))


def test_held_out_photos_are_whole_and_leave_every_label_in_training():
    one, two = {0, 1}, {0, 2}
    assert choose_held_out(list("abc"), [one] * 3) == []
    assert choose_held_out(list("abcd"), [one] * 4) == [3]
    assert choose_held_out(list("abcdefghij"), [one] * 10) == [4, 9]
    assert choose_held_out(list("abcdd"), [one] * 5) == [3, 4]  # the same photo twice
    assert choose_held_out(list("abcd"), [one, one, one, two]) == [0]  # the only one with label 2 is needed
    assert choose_held_out(list("abcdef"), [two, two, one, one, one, one]) == [0, 4]  # label 2 is measured too


def test_confusion_against_a_slow_reference():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 17, 9)).astype(np.uint8)
    truth[:3] = training.IGNORE
    slow = np.zeros((4, 4), int)
    for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
        if t != training.IGNORE:
            slow[t, p] += 1
    counts = training.confusion(truth, predicted, 4)
    assert np.array_equal(counts, slow)
    judged = truth != training.IGNORE
    for label, iou in enumerate(training.class_iou(counts)):
        true, said = judged & (truth == label), judged & (predicted == label)
        assert np.isnan(iou) if label == 3 else iou == pytest.approx((true & said).sum() / (true | said).sum())


def test_shares_are_areas():
    mask = np.zeros((6, 9), np.uint8)
    mask[:2, :3], mask[:, 6:] = 1, training.IGNORE
    shares = training.label_shares(mask, (2, 2), 2).numpy() / 255
    slow = np.zeros((2, 2, 2))
    fine = np.repeat(mask, 2, axis=1)  # a cell is 3 x 9 of these
    for label, row, column in np.ndindex(2, 2, 2):
        slow[label, row, column] = (fine[3 * row : 3 * row + 3, 9 * column : 9 * column + 9] == label).mean()
    assert np.allclose(shares, slow, atol=1 / 255)


def test_ignored_pixels_have_no_effect(engine):
    class Altered:
        """Give other features where the pixels are ignored."""

        backbone, device, identity = engine.backbone, engine.device, engine.identity

        def features(self, photo, resolution):
            f = engine.features(photo, resolution)
            patches = f.patches.copy()
            patches[:, : patches.shape[1] // 2] *= -3
            return replace(f, patches=patches)

    photo, mask = scene(0, (168, 168))
    mask[:, :84] = training.IGNORE
    heads = [tiny_head(epochs=3).fit(e, [(photo, mask)], None) for e in (engine, Altered())]
    first, second = (head._network.state_dict() for head in heads)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_rare_labels_weigh_more_and_the_mean_weight_is_one():
    shares = torch.zeros(3, 10, 10, dtype=torch.uint8)
    shares[0], shares[1, 0] = 255, 255
    shares[0, 0] = 0
    sample = training.Sample(torch.zeros(10, 10, 2), shares)
    weights = training.class_weights([sample])
    assert weights[1] > weights[0] > 0 == weights[2]
    assert training.balanced_loss(torch.zeros(3, 10, 10), shares, weights)[1] == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize("size", [(1, 200), (37, 53), (5, 4), (300, 211)])
def test_upsampling_in_chunks_equals_upsampling_at_once(size, monkeypatch):
    monkeypatch.setattr(training, "CHUNK_BYTES", 5000)
    logits = torch.randn(3, 8, 11, generator=torch.Generator().manual_seed(0))
    classes, probability = training.winners(logits, size)
    whole = functional.interpolate(logits[None], size, mode="bilinear")[0].softmax(0).max(0)
    assert np.array_equal(classes, whole.indices.numpy())
    assert np.allclose(probability, whole.values.numpy(), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (13, 7), (90, 61)])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_odd_sizes_are_trained_on_and_predicted(engine, kind, size, make_picture):
    mask = np.zeros(size, np.uint8)
    mask.ravel()[: mask.size // 2] = 1
    head = tiny_head(kind=kind, epochs=1).fit(engine, [(make_picture(*size), mask)])
    result = head.predict(engine, make_picture(*size, seed=2))
    assert result.classes.shape == result.probability.shape == size
    assert result.classes.dtype == np.uint8 and result.probability.dtype == np.float32
    assert (result.probability >= 0.5 - 1e-6).all() and (result.probability <= 1).all()


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_saved_and_loaded_is_the_same(engine, kind, tmp_path):
    pairs = [scene(i) for i in range(5)]
    head = tiny_head(kind=kind, epochs=3, layers=(1, -1)).fit(engine, pairs, ["red", "blue", "yellow"])
    head.save(tmp_path / "head")
    loaded = SegmentationHead.load(tmp_path / "head")
    for field in ("classes", "probability"):
        first, second = (getattr(h.predict(engine, pairs[0][0]), field) for h in (head, loaded))
        assert np.array_equal(first, second)
    assert loaded.card_ == json.loads(json.dumps(head.card_)) and loaded.note_ == head.note_
    assert np.array_equal(loaded.confusion_, head.confusion_)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "head").read_bytes()


def test_the_seed_decides_everything_and_the_shared_state_nothing(engine):
    pairs = [scene(i) for i in range(4)]

    def train(seed):
        torch.rand(seed + 1)
        head = tiny_head(kind="conv", epochs=2, seed=seed).fit(engine, pairs)
        return torch.cat([tensor.ravel() for tensor in head._network.state_dict().values()])

    state = torch.random.get_rng_state()
    first, second, other = train(1), train(1), train(2)
    assert torch.equal(first, second) and not torch.equal(first, other)
    torch.random.set_rng_state(state)
    tiny_head(epochs=1).fit(engine, pairs)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_many_features_are_kept_as_float16_and_inference_mode_does_no_harm(engine, monkeypatch):
    from dinodemo.tasks.segmentation_head import head as module

    monkeypatch.setattr(module, "FLOAT32_BYTES", 1)
    with torch.inference_mode():
        head = tiny_head().fit(engine, [scene(i) for i in range(5)])
    assert head.miou_ > 0.6


def test_progress_goes_up_and_can_cancel(engine):
    told = []
    head = tiny_head(epochs=3)
    head.fit(engine, [scene(i) for i in range(4)], progress=lambda *report: told.append(report))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told) and told[-1][:2] == (7, 7)
    assert told[0][2] == "features of photo 1 of 4" and "held-out mIoU" in told[-2][2] and told[-1][2] == head.note_

    def cancel(done, total, message):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        tiny_head().fit(engine, [scene(0)], progress=cancel)


def test_another_backbone_is_refused_with_the_remedy(fitted, make_engine):
    with pytest.raises(ValueError, match=r"was trained on .*dinov2 \(width 32\).* runs .*dinov3.*; open .* or train"):
        fitted.predict(make_engine("dinov3"), scene(0)[0])
    with pytest.raises(ValueError, match="nothing is fitted yet"):
        SegmentationHead().predict(None, scene(0)[0])


def test_other_weights_of_the_same_name_are_refused_and_old_heads_warned_of(fitted, engine, tmp_path):
    from dataclasses import replace as changed

    fitted.save(tmp_path / "h.safetensors")
    head = SegmentationHead.load(tmp_path / "h.safetensors")
    assert head.check_engine(engine) == "" and head.identity_ == engine.identity
    head.identity_ = changed(head.identity_, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"this head was made with .* train it again"):
        head.predict(engine, PHOTO)
    head.identity_ = None
    assert "records no checksum" in head.check_engine(engine)
    assert head.predict(engine, PHOTO).classes.shape == MASK.shape


@pytest.mark.parametrize(
    ("pairs", "classes", "message"),
    [
        ([], None, "no pairs"),
        ([(PHOTO, MASK[:50])], None, r"pair 1: the mask is 112 x 50 but picture is 112 x 84 .*; draw it"),
        ([(PHOTO, MASK), (PHOTO, MASK / 2)], None, "mask of pair 2 must be .* whole numbers.*float64"),
        ([(PHOTO, MASK.astype(int) - 1)], None, "must hold 0 to 255, got -1 to 2"),
        ([(PHOTO, np.full_like(MASK, 255))], None, "all 255"),
        ([(PHOTO, MASK)], ["red", "blue"], "mask of pair 1 holds label 3, but only 2 classes"),
        ([(PHOTO, MASK)], ["red", "blue", "yellow", "green"], "no mask shows green"),
        ([(PHOTO, MASK)], ["red", "red", "yellow"], "different names"),
        ([(PHOTO, MASK)], "red", "list of names"),
        ([(PHOTO, np.ones_like(MASK))], None, "nothing to tell apart"),
        ([(b"no picture", MASK)], None, "not a picture"),
    ],
)
def test_masks_that_do_not_fit_are_refused(engine, pairs, classes, message):
    with pytest.raises(ValueError, match=message):
        tiny_head().fit(engine, pairs, classes)


def test_a_label_smaller_than_any_part_of_a_patch_is_refused(engine, make_picture):
    mask = np.zeros((600, 600), np.uint8)
    mask[0, 0] = 1
    with pytest.raises(ValueError, match="class 1 covers less"):
        SegmentationHead(resolution=28).fit(engine, [(make_picture(600, 600), mask)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mlp"}, '"linear" or "conv"'),
        ({"epochs": 0}, "epochs"),
        ({"seed": -1}, "seed"),
        ({"layers": ()}, "layers"),
    ],
)
def test_options_are_checked(engine, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_head(**options).fit(engine, [scene(0)])


def test_damaged_and_foreign_files_are_refused(fitted, tmp_path):
    from safetensors.torch import load, save

    path = tmp_path / "head.safetensors"
    fitted.save(path)
    good, tensors = path.read_bytes(), load(path.read_bytes())

    def changed(**entries):
        return save(tensors, {"card": json.dumps(fitted.card_ | entries)})

    bad = [
        b"",
        good[:-40],
        good[:20],
        b"PK\x03\x04" + good,
        save(tensors),
        save(tensors, {"card": "{"}),
        save(tensors, {"card": "[" * 100_000}),
        changed(format="other"),
        changed(width=16),
        changed(width="32"),
        changed(classes=["a", "b"]),
        changed(classes=None),
        changed(kind="conv"),
        changed(kind=[]),
        changed(iou=[1]),
        changed(confusion=[[2**80]]),
        changed(miou="x"),
        changed(epochs=0),
        changed(layers=3),
        changed(backbone=None),
        save(tensors | {"mean": tensors["mean"] * torch.nan}, {"card": json.dumps(fitted.card_)}),
        save({"mean": tensors["mean"]}, {"card": json.dumps(fitted.card_)}),
    ]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"head\.safetensors is not a segmentation head saved by this app"):
            SegmentationHead.load(path)
    with pytest.raises(ValueError, match="No such file"):
        SegmentationHead.load(tmp_path / "none")


def composite(background: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Paste the shipped cup and flower on another shipped photo."""
    rng = np.random.default_rng(seed)
    flower_mask = Image.new("L", (640, 427))
    ImageDraw.Draw(flower_mask).ellipse((172, 86, 444, 358), fill=255)
    cup_mask = Image.open(ASSETS / "segmentation" / "cup_mask.png").convert("L").point(lambda value: 255 * (value > 0))
    photo = Image.open(ASSETS / background).convert("RGB").resize((400, 300))
    labels = Image.new("L", photo.size)
    for label, (name, mask) in enumerate((("coffee_cup.jpg", cup_mask), ("flower_dahlia.jpg", flower_mask)), start=1):
        box, side = mask.getbbox(), int(rng.integers(110, 160))
        size = side, side * (box[3] - box[1]) // (box[2] - box[0])
        part = Image.open(ASSETS / name).convert("RGB").crop(box).resize(size)
        cut = mask.crop(box).resize(size, Image.Resampling.NEAREST)
        place = int(rng.integers(0, 30)) + 200 * ((label + seed) % 2), int(rng.integers(0, 280 - size[1]))
        photo.paste(part, place, cut)
        labels.paste(label, place, cut)
    return np.asarray(photo), np.asarray(labels)


def test_a_real_backbone_learns_cup_and_flower_from_a_few_composites(offline_engine):
    names = ("forest_stream.jpg", "mountain_path.jpg", "chinese_palace.jpg", "forest_stream.jpg")
    pairs = [composite(name, seed) for seed, name in enumerate(names)]
    head = SegmentationHead(resolution=280, epochs=20).fit(offline_engine, pairs, ["cup", "flower"])
    assert head.miou_ > 0.75, head.note_
    photo, mask = composite("mountain_path.jpg", 9)
    iou = training.class_iou(training.confusion(mask, head.predict(offline_engine, photo).classes, 3))
    assert iou.min() > 0.6
