import itertools
import json
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from dinodemo import Engine, backbones
from dinodemo.backbones.network import VisionTransformer
from dinodemo.engine import devices
from dinodemo.engine.cache import SharedCache
from dinodemo.io.images import IMAGENET_MEAN, IMAGENET_STD, load_photo, network_input

FAMILIES = ["dinov2", "dinov2-registers", "dino-v1", "dinov3"]
SIZES = [(60, 90), (37, 53), (1, 2000)]


@pytest.fixture
def runs(monkeypatch):
    """Record the batch sizes that the network gets; `runs.before` is called before each of them."""
    real = VisionTransformer.__call__

    class Runs(list):
        before = staticmethod(lambda images: None)

    recorded = Runs()

    def call(self, images, *args, **options):
        recorded.append(len(images))
        recorded.before(images)
        return real(self, images, *args, **options)

    monkeypatch.setattr(VisionTransformer, "__call__", call)
    return recorded


class Eager:
    """Be the slow reference: transformers' own eager attention, with every N x N matrix kept."""

    def __init__(self, engine: Engine, folder):
        row = engine.backbone
        self.patch, self.prefix = row.patch_size, 1 + row.registers
        model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
        self.options = {"interpolate_pos_encoding": True} if model.config.model_type == "vit" else {}
        self.model, self.norm = model, model.layernorm if hasattr(model, "layernorm") else model.norm

    @torch.inference_mode()
    def __call__(self, picture, resolution):
        rgb = network_input(picture, resolution, self.patch)
        pixels = (rgb / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
        pixels = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
        output = self.model(pixel_values=pixels, output_attentions=True, output_hidden_states=True, **self.options)
        self.grid = rgb.shape[0] // self.patch, rgb.shape[1] // self.patch
        self.attentions = torch.cat(output.attentions).numpy()  # [L, heads, T, T]
        self.hidden = [hidden[0].numpy() for hidden in output.hidden_states[1:]]
        self.layers = [self.norm(hidden)[0].numpy() for hidden in output.hidden_states[1:]]
        self.last = output.last_hidden_state[0].numpy()
        return self


@pytest.fixture(scope="module")
def eager(tiny_folders):
    def run(engine, family, picture, resolution):
        return Eager(engine, tiny_folders[family])(picture, resolution)

    return run


def close(actual, expected, atol=1e-4):
    np.testing.assert_allclose(actual, expected, atol=atol, rtol=0)


# agreement with transformers' eager path


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_agree_with_the_eager_path(family, size, make_engine, eager, make_picture):
    engine, picture = make_engine(family), make_picture(*size)
    reference = eager(engine, family, picture, 112)
    f = engine.features(picture, resolution=112)
    assert f.registers.shape == (engine.backbone.registers, 32)
    close(f.cls, reference.last[0])
    close(f.registers, reference.last[1 : reference.prefix])
    close(f.patches, reference.last[reference.prefix :].reshape(*reference.grid, 32))
    norms = np.linalg.norm(reference.hidden[-1][reference.prefix :], axis=-1)
    np.testing.assert_allclose(f.patch_norms, norms.reshape(reference.grid), rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_agrees_with_the_eager_path(family, size, make_engine, eager, make_picture):
    engine, picture = make_engine(family), make_picture(*size)
    reference = eager(engine, family, picture, 112)
    f = engine.features(picture, resolution=112, attention=True)
    cls_rows = reference.attentions[:, :, 0]
    assert f.layer_attention.shape == (3, 4, *reference.grid)
    close(f.layer_attention, cls_rows[..., reference.prefix :].reshape(3, 4, *reference.grid))
    close(f.prefix_attention, cls_rows[..., : reference.prefix])
    close(f.attention, f.layer_attention[-1], atol=0)
    assert np.ptp(f.attention) > 0.01  # not a uniform map, which anything would agree with


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_masses_sum_to_one(family, make_engine, make_picture):
    f = make_engine(family).features(make_picture(), resolution=112, attention=True)
    assert f.prefix_attention.shape == (3, 4, 1 + len(f.registers))
    close(f.layer_attention.sum(axis=(2, 3)) + f.prefix_attention.sum(axis=2), 1, atol=1e-5)
    assert (f.prefix_attention > 0).all()


@pytest.mark.parametrize("patch", [(0, 0), (1, 2), (-1, -1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_patchs_own_row_agrees_with_the_eager_path(family, patch, make_engine, eager, make_picture):
    engine, picture = make_engine(family), make_picture()
    reference = eager(engine, family, picture, 112)
    h, w = reference.grid
    row, column = patch[0] % h, patch[1] % w
    rows, cached = engine.attention_rows(picture, (row, column), resolution=112)
    token = reference.prefix + row * w + column
    close(rows, reference.attentions[:, :, token, reference.prefix :].reshape(3, 4, h, w))
    assert not cached
    assert engine.attention_rows(picture, (row, column), resolution=112)[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_agree_with_the_eager_path(family, make_engine, eager, make_picture):
    engine, picture = make_engine(family), make_picture()
    reference = eager(engine, family, picture, 112)
    result = engine.layers(picture, layers=(2, 0, 1, -1), resolution=112)
    for (cls, patches), layer in zip(result, (2, 0, 1, 2), strict=True):
        close(cls, reference.layers[layer][0])
        close(patches, reference.layers[layer][reference.prefix :].reshape(*reference.grid, 32))


def test_the_offline_default_agrees_with_the_eager_path(offline_engine, make_picture):
    reference = Eager(offline_engine, backbones.find_local(offline_engine.backbone.name))
    picture = make_picture(300, 400)
    reference(picture, 224)
    f = offline_engine.features(picture, resolution=224, attention=True)
    close(f.layer_attention, reference.attentions[:, :, 0, 1:].reshape(12, 6, *reference.grid))
    close(f.cls, reference.last[0], atol=1e-3)
    close(f.patches.reshape(-1, 384), reference.last[1:], atol=1e-3)
    assert "Offline default" in offline_engine.backbone.notice


# the contract


def test_features_are_read_only_float32_with_their_sizes(engine, make_picture):
    f = engine.features(make_picture(60, 90), resolution=112, attention=True)
    assert (f.image_size, f.input_size, f.grid) == ((60, 90), (98, 140), (7, 10))
    arrays = (f.cls, f.patches, f.registers, f.layer_attention, f.prefix_attention, f.patch_norms)
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
    assert not any(a.flags.writeable for a in arrays)
    assert f.nbytes == sum(a.nbytes for a in arrays)
    assert f.backbone == engine.backbone.name


def test_attention_is_none_unless_asked_for(engine, make_picture):
    f = engine.features(make_picture(), resolution=112)
    assert (f.attention, f.layer_attention, f.prefix_attention) == (None, None, None)


def test_center_crop_gives_a_square(engine, make_picture):
    picture = make_picture(300, 200)
    f = engine.features(picture, resolution=112, crop="center")
    assert (f.image_size, f.input_size) == ((300, 200), (112, 112))
    square = network_input(picture, 112, 14, crop="center")
    close(f.cls, engine.features(square, resolution=112).cls, atol=1e-6)


def test_upright_size_is_reported_for_turned_photos(engine, tmp_path, make_picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(make_picture(60, 90)).save(tmp_path / "phone.jpg", exif=exif)
    assert engine.features(tmp_path / "phone.jpg", resolution=112).image_size == (90, 60)


@pytest.mark.parametrize(
    "ask",
    [
        lambda e, p: e.features(p, resolution=7),
        lambda e, p: e.features(p, resolution=112, crop="left"),
        lambda e, p: e.layers(p, layers=(3,), resolution=112),
        lambda e, p: e.layers(p, layers=(-4,), resolution=112),
        lambda e, p: e.attention_rows(p, (7, 0), resolution=112),
        lambda e, p: e.attention_rows(p, (0, -1), resolution=112),
        lambda e, p: list(e.features_batch([p], errors="ignore")),
        lambda e, p: e.features(b"nothing"),
        lambda e, p: Engine(e.backbone.name, device="cpu", dtype="int8"),
        lambda e, p: Engine(e.backbone.name, device="abacus"),
    ],
)
def test_wrong_questions_are_refused(ask, engine, make_picture):
    with pytest.raises(ValueError, match=r"\w+ .*\w+"):
        ask(engine, make_picture())


def test_bfloat16_gives_float32_arrays_close_to_the_exact_ones(make_engine, make_picture):
    exact = make_engine().features(make_picture(), resolution=112, attention=True)
    f = make_engine(dtype="bfloat16").features(make_picture(), resolution=112, attention=True)
    assert {f.cls.dtype, f.patches.dtype, f.attention.dtype} == {np.dtype(np.float32)}
    cosine = f.cls @ exact.cls / np.linalg.norm(f.cls) / np.linalg.norm(exact.cls)
    assert cosine > 0.99
    close(f.layer_attention.sum(axis=(2, 3)) + f.prefix_attention.sum(axis=2), 1, atol=1e-5)


def test_the_model_and_its_row_are_public(engine):
    assert engine.model is engine._network.module
    assert (engine.backbone.width, engine.backbone.depth) == (32, 3)


def test_time_estimates_grow_with_tokens_and_follow_what_was_seen(engine, make_picture):
    assert engine.estimate_seconds(1000) > engine.estimate_seconds(100) > 0
    before = engine.estimate_seconds(1000)
    engine.features(make_picture(), resolution=112)
    assert engine.estimate_seconds(1000) != before


# batches


def test_a_batch_equals_single_pictures_and_keeps_their_order(engine, make_engine, make_picture):
    sizes = itertools.cycle([(60, 90), (90, 60), (60, 90), (37, 53)])
    pictures = [make_picture(*next(sizes), seed=i) for i in range(11)]
    batch = list(make_engine().features_batch(pictures, resolution=112, batch_size=4, attention=True))
    assert len(batch) == 11
    for picture, f in zip(pictures, batch, strict=True):
        single = engine.features(picture, resolution=112, attention=True)
        assert f.image_size == picture.shape[:2]
        close(f.cls, single.cls)
        close(f.patches, single.patches)
        close(f.layer_attention, single.layer_attention)
        close(f.patch_norms, single.patch_norms)


def test_pictures_of_one_shape_run_together(engine, runs, make_picture):
    pictures = [make_picture(seed=i) for i in range(10)]
    list(engine.features_batch(pictures, resolution=112, batch_size=4))
    assert runs == [4, 4, 2]


def test_auto_batches_follow_the_free_memory(engine, runs, make_picture, monkeypatch):
    need = engine._capacity.picture_bytes((98, 140))
    monkeypatch.setattr(devices, "free_memory", lambda _: int(3.5 * need / 0.6))
    list(engine.features_batch([make_picture(seed=i) for i in range(7)], resolution=112))
    assert runs == [3, 3, 1]


def test_batches_take_the_crop(engine, make_picture):
    (f,) = engine.features_batch([make_picture(300, 200)], resolution=112, crop="center")
    assert f.input_size == (112, 112)


def test_no_pictures_give_no_features(engine):
    assert list(engine.features_batch([], resolution=112)) == []


@pytest.mark.parametrize(("wrap", "total"), [(list, 5), (iter, None)])
def test_progress_is_told_after_every_picture(wrap, total, engine, make_picture):
    told = []
    pictures = wrap([make_picture(seed=i) for i in range(5)])
    found = engine.features_batch(pictures, resolution=112, batch_size=2, progress=lambda *p: told.append(p))
    for done, _ in enumerate(found, 1):
        assert told[-1] == (done, total)
    assert told == [(i, total) for i in range(1, 6)]


def test_an_unreadable_picture_is_returned_in_its_place(engine, make_picture):
    sources = [make_picture(seed=0), b"no picture at all", "missing.jpg", make_picture(seed=1)]
    told = []
    results = list(engine.features_batch(sources, resolution=112, errors="return", progress=lambda *p: told.append(p)))
    assert [type(r).__name__ for r in results] == ["Features", "ValueError", "ValueError", "Features"]
    assert "missing.jpg" in str(results[2])
    close(results[3].cls, engine.features(sources[3], resolution=112).cls)
    assert len(told) == 4


def test_an_unreadable_picture_stops_after_what_came_before_it(engine, make_picture):
    found = engine.features_batch([make_picture(seed=0), b"no picture", make_picture(seed=1)], resolution=112)
    assert next(found).cls.shape == (32,)
    with pytest.raises(ValueError, match="not a picture"):
        next(found)


def test_stopping_early_reads_and_runs_no_more(engine, runs, make_picture):
    read = []
    pictures = (read.append(i) or make_picture(seed=i) for i in range(1000))
    found = engine.features_batch(pictures, resolution=112, batch_size=2)
    next(found)
    found.close()
    assert len(read) <= 4  # one window that ran, one that was decoded meanwhile
    assert runs == [2]


def test_batches_leave_the_cache_alone(engine, make_picture):
    list(engine.features_batch([make_picture()], resolution=112))
    assert engine.features_timed(make_picture(), resolution=112)[1] is False


# memory


def out_of_memory_above(n: int):
    def check(images):
        if len(images) > n:
            raise torch.OutOfMemoryError("out of memory")

    return check


def test_out_of_memory_halves_the_batch_and_goes_on(engine, runs, make_engine, make_picture):
    pictures = [make_picture(seed=i) for i in range(8)]
    expected = [f.cls for f in make_engine().features_batch(pictures, resolution=112)]
    runs.clear()
    runs.before = out_of_memory_above(3)
    found = [f.cls for f in engine.features_batch(pictures, resolution=112, batch_size=8)]
    assert runs == [8, 4, 2, 2, 4, 2, 2]
    close(found, expected)


def test_a_single_picture_out_of_memory_names_a_smaller_resolution(engine, runs, make_picture):
    runs.before = out_of_memory_above(0)
    with pytest.raises(RuntimeError, match=r"resolution 1.. needs more memory") as error:
        engine.features(make_picture(), resolution=112)
    assert int(re.search(r"resolution of (\d+) would fit", str(error.value))[1]) < 112
    assert not devices.is_out_of_memory(error.value)  # or callers would halve again


@pytest.mark.parametrize("size", [(100, 100), (37, 53), (300, 100), (1, 2000), (2000, 3), (480, 640), (90, 1000)])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.11])
def test_too_large_names_a_resolution_that_then_fits(size, share, engine, runs, make_picture, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda _: int(share * engine._capacity.picture_bytes((224, 224))))
    picture = make_picture(*size)
    with pytest.raises(RuntimeError, match="would fit") as error:
        engine.features(picture, resolution=448)
    assert runs == []
    named = int(re.search(r"resolution of (\d+) would fit", str(error.value))[1])
    assert 14 <= named < 448
    assert engine.features(picture, resolution=named).patches.size
    assert named >= 0.7 * 224 * (0.6 * share) ** 0.5  # nor is it needlessly small


def test_too_large_in_a_batch_is_returned_or_raised(engine, make_picture, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda _: 1000)
    (error,) = engine.features_batch([make_picture()], resolution=112, errors="return")
    assert "needs more memory" in str(error)
    with pytest.raises(RuntimeError, match="needs more memory"):
        list(engine.features_batch([make_picture()], resolution=112))


def test_cached_features_are_given_out_however_little_memory_is_free(engine, make_picture, monkeypatch):
    engine.features(make_picture(), resolution=112)
    monkeypatch.setattr(devices, "free_memory", lambda _: 0)
    assert engine.features_timed(make_picture(), resolution=112)[1] is True


# cache


def test_the_same_picture_runs_once_however_it_is_given(engine, runs, make_picture, tmp_path):
    picture = make_picture()
    path = tmp_path / "same.png"
    Image.fromarray(picture).save(path)
    sources = [picture, picture.copy(), str(path), path.read_bytes(), Image.open(path), load_photo(path)]
    cached = [engine.features_timed(source, resolution=112)[1] for source in sources]
    assert cached == [False, True, True, True, True, True]
    assert runs == [1]


@pytest.mark.parametrize(
    "other",
    [{"resolution": 98}, {"attention": True}, {"crop": "center"}],
    ids=str,
)
def test_other_questions_run_again(other, engine, runs, make_picture):
    question = {"resolution": 112, "attention": False, "crop": None}
    engine.features(make_picture(), **question)
    assert engine.features_timed(make_picture(), **question | other)[1] is False
    assert len(runs) == 2


def test_one_changed_pixel_is_another_picture(engine, make_picture):
    engine.features(make_picture(), resolution=112)
    changed = make_picture().copy()
    changed[0, 0, 0] ^= 1
    assert engine.features_timed(changed, resolution=112)[1] is False


def test_cached_features_equal_the_first_ones(engine, make_picture):
    first, again = (engine.features(make_picture(), resolution=112, attention=True) for _ in range(2))
    np.testing.assert_array_equal(first.patches, again.patches)
    np.testing.assert_array_equal(first.layer_attention, again.layer_attention)


def test_engines_that_share_a_cache_do_not_share_answers(make_engine, make_picture):
    cache = SharedCache(1 << 20)
    engines = [make_engine(f, cache=cache) for f in ("dinov2", "dinov2-registers")]
    engines.append(make_engine("dinov2", cache=cache, dtype="bfloat16"))
    found = [e.features_timed(make_picture(), resolution=112) for e in engines]
    assert [cached for _, cached in found] == [False, False, False]
    assert len({f.cls.tobytes() for f, _ in found}) == 3
    assert make_engine("dinov2", cache=cache).features_timed(make_picture(), resolution=112)[1] is True


def test_a_rewritten_export_is_not_answered_from_the_old_one(tiny_folder, tmp_path, make_picture):
    folder, cache = shutil.copytree(tiny_folder, tmp_path / "export"), SharedCache(1 << 20)
    Engine(str(folder), device="cpu", dtype="float32", cache=cache).features(make_picture(), resolution=112)
    (folder / "model.safetensors").touch()
    again = Engine(str(folder), device="cpu", dtype="float32", cache=cache)
    assert again.features_timed(make_picture(), resolution=112)[1] is False


def test_the_cache_is_bounded(make_engine, make_picture):
    cache = SharedCache(100_000)
    engine = make_engine(cache=cache)
    for i in range(20):
        engine.features(make_picture(seed=i), resolution=112, attention=True)
        assert 0 < cache.nbytes <= 100_000
    assert engine.features_timed(make_picture(seed=19), resolution=112, attention=True)[1] is True
    assert engine.features_timed(make_picture(seed=0), resolution=112, attention=True)[1] is False


def test_errors_are_not_cached(engine, runs, make_picture):
    def fail(images):
        raise RuntimeError("the device is gone")

    runs.before = fail
    with pytest.raises(RuntimeError, match="the device is gone"):
        engine.features(make_picture(), resolution=112)
    del runs.before
    assert engine.features_timed(make_picture(), resolution=112)[1] is False


# threads


def test_eight_threads_with_one_picture_run_the_network_once(engine, runs, make_picture):
    asked, release = threading.Semaphore(0), threading.Event()
    runs.before = lambda _: release.wait(10)
    real = engine._cache.get

    def get(key, compute):
        asked.release()
        return real(key, compute)

    engine._cache.get = get
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(engine.features, make_picture(), resolution=112) for _ in range(8)]
        for _ in range(8):
            assert asked.acquire(timeout=300)
        release.set()
        found = [job.result(10) for job in jobs]
    assert runs == [1]
    assert len({f.cls.tobytes() for f in found}) == 1


@pytest.mark.parametrize("merge", [False, True])
def test_eight_threads_with_their_own_pictures_are_not_mixed_up(merge, engine, make_engine, make_picture):
    sizes = [(60, 90), (90, 60), (60, 90), (37, 53)]
    pictures = [make_picture(*sizes[i % 4], seed=i) for i in range(8)]
    expected = [make_engine().features(p, resolution=112, attention=True) for p in pictures]
    engine._scheduler._merge = merge
    start = threading.Barrier(8, timeout=300)

    def work(i):
        start.wait()
        order = [(i + k) % 8 for k in range(8)] if i % 2 else [i] * 4
        return [(j, engine.features(pictures[j], resolution=112, attention=True)) for j in order]

    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(work, range(8)):
            for j, f in result:
                close(f.cls, expected[j].cls)
                close(f.patches, expected[j].patches)
                close(f.layer_attention, expected[j].layer_attention)


def test_waiting_requests_are_merged_into_one_run(engine, runs, make_engine, make_picture):
    pictures = [make_picture(seed=i) for i in range(5)]
    expected = [make_engine().features(p, resolution=112).cls for p in pictures]
    runs.clear()
    engine._scheduler._merge = True
    inside, release, asked = threading.Event(), threading.Event(), threading.Semaphore(0)
    lock = engine._scheduler._device_lock

    class Door:
        def __enter__(self):
            asked.release()
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    def block(_):
        inside.set()
        assert release.wait(10)

    engine._scheduler._device_lock, runs.before = Door(), block
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(engine.features, pictures[0], resolution=112)]
        assert inside.wait(10)
        jobs += [pool.submit(engine.features, p, resolution=112) for p in pictures[1:]]
        for _ in range(5):
            assert asked.acquire(timeout=300)
        release.set()
        found = [job.result(10).cls for job in jobs]
    assert runs == [1, 4]
    close(found, expected)


def test_single_questions_get_through_between_the_batches_of_a_long_job(engine, runs, make_picture):
    pictures = [make_picture(seed=i) for i in range(6)]
    found = engine.features_batch(pictures, resolution=112, batch_size=2)
    next(found)
    assert engine.features(make_picture(seed=99), resolution=112).cls.shape == (32,)
    assert len(list(found)) == 5


def test_every_run_holds_the_device(make_engine, runs, make_picture):
    lock, held = threading.Lock(), []
    engine = make_engine(device_lock=lock)
    runs.before = lambda _: held.append(lock.locked())
    engine.features(make_picture(), resolution=112)
    list(engine.features_batch([make_picture()], resolution=112))
    engine.layers(make_picture(), layers=(0,), resolution=112)
    engine.attention_rows(make_picture(), (0, 0), resolution=112)
    assert held == [True] * 4
    assert not lock.locked()


def test_sharded_weights_open_too(tmp_path, tiny_folder, engine, make_picture):
    model = AutoModel.from_pretrained(tiny_folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    sharded = Engine(str(tmp_path / "sharded"), device="cpu", dtype="float32")
    close(sharded.features(make_picture(), resolution=112).cls, engine.features(make_picture(), resolution=112).cls)
