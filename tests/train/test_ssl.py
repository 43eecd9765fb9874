"""One step of the method against a slow float64 reference; gradients, teacher, heads."""

import copy

import pytest
import torch
from ssl_reference import BATCH, LOCAL, batch, make, slow_clip, slow_decay, slow_koleo, slow_losses, slow_rate

from dinodemo.train import FinetuneConfig
from dinodemo.train.network import load_backbone, tokens
from dinodemo.train.optim import Plan, clip, make_optimizer, schedule_step


@pytest.mark.parametrize("centering", ["sinkhorn", "off"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_full_step_equals_a_slow_float64_reference(tiny_folder, centering, shared):
    config, start, ssl = make(tiny_folder, centering=centering, shared_head=shared)
    crops, local, masks = batch(config)
    slow = copy.deepcopy(ssl).double()
    expected = slow_losses(slow, crops.double(), local.double(), masks, 0.05, config)
    total = sum(getattr(config, f"{name}_weight") * value for name, value in expected.items())
    total.backward()

    plan = Plan(config, start.backbone.depth, config.steps)
    optimizer = make_optimizer(ssl, config, plan)
    values = schedule_step(optimizer, plan, 0)
    loss, parts = ssl(crops, local, masks, 0.05)
    loss.backward()
    metrics = {name: float(value.detach()) for name, value in expected.items()}
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(metrics, rel=1e-5, abs=2e-6)
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    for (name, p), q in zip(ssl.student.named_parameters(), slow.student.parameters(), strict=True):
        assert torch.allclose(p.grad.double(), q.grad, rtol=1e-3, atol=1e-4 * float(q.grad.abs().max()) + 1e-7), name

    before = {name: p.detach().double().clone() for name, p in ssl.student.named_parameters()}
    was = {name: p.double().clone() for name, p in ssl.teacher.named_parameters()}
    slow_clip(slow.student, config.clip)
    clip(ssl, config.clip)
    optimizer.step()
    ssl.update_teacher(values.momentum)
    gradients = dict(slow.student.named_parameters())
    teacher = dict(ssl.teacher.named_parameters())
    for name, p in ssl.student.named_parameters():
        rate, decay = slow_rate(name, config), slow_decay(name, p, config)
        # Adam turns what is nothing but rounding into whole steps
        close = p.grad.abs() > 1e-3 * p.grad.abs().max() + 1e-6
        step = rate * (gradients[name].grad / (gradients[name].grad.abs() + 1e-8) + decay * before[name])
        assert torch.allclose((p.detach().double() - before[name])[close], -step[close], rtol=2e-3, atol=2e-7), name
        mixed = 0.9 * was[name] + 0.1 * p.detach().double()
        assert torch.allclose(teacher[name].double(), mixed, atol=1e-6), name


@pytest.mark.parametrize("family", ["dinov2", "dinov2-registers", "dino-v1", "dinov3"])
def test_gradients_reach_every_student_parameter_and_no_teacher(tiny_folders, family):
    config, _, ssl = make(tiny_folders[family], family)
    loss, _ = ssl(*batch(config), 0.05)
    loss.backward()
    without = [name for name, p in ssl.student.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    keys = [name for name in without if "key" not in name and "k_proj" not in name]  # a key's bias cannot matter
    assert keys == []
    assert not [
        p for part in (ssl.teacher, ssl.anchor) for p in part.parameters() if p.requires_grad or p.grad is not None
    ]


def test_the_teachers_momentum_at_its_ends(tiny_folder):
    _, _, ssl = make(tiny_folder)
    before = [p.clone() for p in ssl.teacher.parameters()]
    ssl.update_teacher(1.0)
    assert all(torch.equal(p, q) for p, q in zip(ssl.teacher.parameters(), before, strict=True))
    ssl.update_teacher(0.0)
    assert all(torch.equal(p, q) for p, q in zip(ssl.teacher.parameters(), ssl.student.parameters(), strict=True))


def test_the_teacher_stays_in_evaluation_mode(tiny_folder):
    _, _, ssl = make(tiny_folder, drop_path=0.5)
    assert ssl.train().student["backbone"].training and not ssl.teacher["backbone"].training
    assert any("DropPath" in type(m).__name__ for m in ssl.student["backbone"].modules())


@pytest.mark.parametrize("changed", [0, 1])
def test_koleo_is_the_sum_over_both_global_views_and_compares_no_photo_with_itself(tiny_folder, changed):
    config, _, ssl = make(tiny_folder)
    generator = torch.Generator().manual_seed(3)
    cls = torch.randn(2, 5, 32, generator=generator)
    cls[1, 0] = cls[0, 0]  # two views of a photo may be alike

    def koleo(views):
        config_only = {"dino_weight": 0.0, "ibot_weight": 0.0, "gram_weight": 0.0, "head_warmup": 0.0}
        ssl.config = config.replace(**config_only)
        return float(ssl.compute_losses({"cls": views}, {}, None)["koleo"])

    expected = float(slow_koleo(cls[0].double()) + slow_koleo(cls[1].double()))
    assert koleo(cls) == pytest.approx(expected, rel=1e-5)
    other = cls.clone()
    other[changed, 2] = other[changed, 3] + 0.01  # each view counts
    assert koleo(other) > koleo(cls) + 0.1


def test_the_student_hands_over_cls_of_each_global_view(tiny_folder):
    config, _, ssl = make(tiny_folder)
    crops, local, masks = batch(config)
    output = ssl.get_student_output(crops, local, masks)
    assert output["cls"].shape == (2, BATCH, 32)
    for view, cls in enumerate(output["cls"]):
        alone = tokens(ssl.student["backbone"], crops[view], masks.unflatten(0, (2, BATCH))[view])[0]
        assert torch.allclose(cls, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"ibot_weight": 0.0, "gram_weight": 0.0}, {"dino", "koleo"}),
        ({"koleo_weight": 0.0, "dino_weight": 0.0}, {"ibot", "gram"}),
        ({"centering": "softmax"}, {"dino", "ibot", "koleo", "gram"}),
    ],
)
def test_parts_can_be_switched_off(tiny_folder, settings, parts):
    config, _, ssl = make(tiny_folder, **settings)
    crops, local, masks = batch(config)
    loss, found = ssl(crops, local, masks if config.ibot_weight else None, 0.05)
    assert set(found) == parts and loss.isfinite()
    assert ("ibot_head" in ssl.student) == bool(config.ibot_weight)
    assert bool(ssl.dino_centre.any()) == (config.centering == "softmax")


def test_local_crops_can_be_left_out(tiny_folder):
    config, _, ssl = make(tiny_folder, n_local=0)
    crops, _, masks = batch(config)
    assert ssl.get_student_output(crops, None, masks)["dino"].shape == (2, BATCH, config.prototypes)


def test_prototypes_are_asked_for_cls_and_masked_patches_only(tiny_folder):
    config, _, ssl = make(tiny_folder, shared_head=True)
    rows = []
    for network in (ssl.student, ssl.teacher):
        network["dino_head"].last_layer.register_forward_hook(lambda _m, _i, output: rows.append(len(output)))
    crops, local, masks = batch(config)
    ssl(crops, local, masks, 0.05)
    masked = int(masks.sum())
    assert sorted(rows) == sorted([2 * BATCH + masked, (2 + LOCAL) * BATCH + masked])


def test_a_start_from_scratch_follows_the_seed():
    shape = {
        "backbone": "scratch",
        "scratch_width": 32,
        "scratch_depth": 2,
        "scratch_heads": 2,
        "head_warmup": 0.0,
        "thaw": 0.0,
        "global_size": 56,
        "local_size": 28,
        "eval_size": 56,
    }
    one, same, other = (load_backbone(FinetuneConfig(**shape, seed=seed)).module.state_dict() for seed in (0, 0, 1))
    name = "encoder.layer.0.mlp.fc1.weight"
    assert torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name])


def test_drop_path_where_there_is_none_is_an_error(tiny_folders):
    with pytest.raises(ValueError, match="drop_path"):
        make(tiny_folders["dino-v1"], "dino-v1", drop_path=0.1)
