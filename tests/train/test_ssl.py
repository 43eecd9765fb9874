"""One step of the method against a slow float64 reference; gradients, teacher, heads, thawing."""

import copy
import math

import pytest
import torch
from torch.nn.functional import gelu, linear, normalize

from dinodemo.backbones.adapter import layer_of
from dinodemo.train import FinetuneConfig
from dinodemo.train.network import load_backbone, load_folder, tokens
from dinodemo.train.optim import NEVER, Plan, clip, make_optimizer, schedule_step, thaw
from dinodemo.train.ssl import SelfDistillation

BATCH, LOCAL = 3, 2
SETTINGS = {
    "global_size": 56,
    "local_size": 28,
    "eval_size": 56,
    "n_local": LOCAL,
    "batch_size": BATCH,
    "prototypes": 24,
    "head_hidden": 16,
    "head_bottleneck": 8,
    "head_warmup": 0.0,
    "thaw": 0.0,
    "freeze_last_layer": 0.0,
    "steps": 10,
    "warmup": 0.2,
    "clip": 0.5,
    "gram_weight": 0.7,
    "momentum_start": 0.9,
    "lr": 1e-3,
}


def make(folder, family="dinov2", **settings):
    patch = 14 if family.startswith("dinov2") else 16
    sizes = {"global_size": 4 * patch, "local_size": 2 * patch, "eval_size": 4 * patch}
    config = FinetuneConfig.from_dict({**SETTINGS, **sizes, "backbone": str(folder), **settings})
    torch.manual_seed(0)
    start = load_backbone(config)
    ssl = SelfDistillation(start.module, config).train()
    with torch.no_grad():  # a student that differs from its teacher, as it does after a few steps
        for parameter in ssl.student.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return config, start, ssl


def batch(config, seed=1):
    generator = torch.Generator().manual_seed(seed)
    big = torch.randn(2, BATCH, 3, config.global_size, config.global_size, generator=generator)
    small = torch.randn(LOCAL, BATCH, 3, config.local_size, config.local_size, generator=generator)
    masks = torch.rand(2 * BATCH, 16, generator=generator) < torch.tensor([0.5, 0.3, 0, 0.6, 0, 0.2])[:, None]
    return big, small, masks


def slow_head(head, x):
    for i, layer in enumerate(layers := [m for m in head.mlp if isinstance(m, torch.nn.Linear)]):
        x = linear(x, layer.weight, layer.bias)
        x = gelu(x) if i < len(layers) - 1 else x
    x = x / x.norm(dim=-1, keepdim=True)
    return x @ (head.last_layer.weight_v / head.last_layer.weight_v.norm(dim=1, keepdim=True)).T


def slow_sinkhorn(logits, temp):
    q = torch.exp(logits / temp).T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
        q = q / q.sum(dim=0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def slow_targets(logits, temp, centering):
    return slow_sinkhorn(logits, temp) if centering == "sinkhorn" else torch.softmax(logits / temp, dim=-1)


def cross_entropy(target, logits):
    return -(target * torch.log_softmax(logits / 0.1, dim=-1)).sum()


def slow_koleo(cls):
    """Compute one view's loss, photo by photo."""
    unit = [normalize(row, dim=0) for row in cls]
    nearest = [min((unit[i] - unit[j]).norm() for j in range(len(unit)) if j != i) for i in range(len(unit))]
    return -sum(torch.log(distance) for distance in nearest) / len(nearest)


def slow_losses(ssl, crops, local, masks, temp, config):
    """Compute the parts one crop, one patch and one pair at a time, in float64."""
    student, teacher = ssl.student, ssl.teacher
    ibot = "dino_head" if config.shared_head else "ibot_head"
    flat = crops.flatten(0, 1)
    seen = [
        student["backbone"](flat[i : i + 1], bool_masked_pos=masks[i : i + 1]).last_hidden_state[0] for i in range(6)
    ]
    small = [
        [student["backbone"](local[v, b : b + 1]).last_hidden_state[0, 0] for b in range(BATCH)] for v in range(LOCAL)
    ]
    with torch.no_grad():
        aim = [teacher["backbone"](flat[i : i + 1]).last_hidden_state[0] for i in range(6)]
        rows = torch.stack([slow_head(teacher["dino_head"], t[0]) for t in aim])
        targets = slow_targets(rows, temp, config.centering)
        patch_rows = [slow_head(teacher[ibot], aim[i][1 + j]) for i in range(6) for j in range(16) if masks[i, j]]
        patch_targets = slow_targets(torch.stack(patch_rows), temp, config.centering)
        anchor = [ssl.anchor(flat[i : i + 1]).last_hidden_state[0, 1:] for i in range(6)]
    views = [[seen[v * BATCH + b][0] for b in range(BATCH)] for v in range(2)] + small
    pairs = [(s, t) for s in range(2 + LOCAL) for t in range(2) if s != t]
    dino = (
        sum(
            cross_entropy(targets[t * BATCH + b], slow_head(student["dino_head"], views[s][b]))
            for s, t in pairs
            for b in range(BATCH)
        )
        / len(pairs)
        / BATCH
    )
    patches, row = torch.zeros((), dtype=torch.float64), 0
    for i in range(6):
        for j in range(16):
            if masks[i, j]:
                logits = slow_head(student[ibot], seen[i][1 + j])
                patches = patches + cross_entropy(patch_targets[row], logits) / masks[i].sum() / 6
                row += 1
    koleo = sum(slow_koleo(view) for view in views[:2])
    grams = [
        [(n @ n.T).clamp_min(0) for n in (normalize(seen[i][1:], dim=1), normalize(anchor[i], dim=1))] for i in range(6)
    ]
    gram = sum(((a - b) ** 2).mean() for a, b in grams) / 6
    return {"dino": dino, "ibot": patches, "koleo": koleo, "gram": gram}


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


def slow_clip(student, limit):
    for part in student.values():
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in part.parameters()))
        for p in part.parameters():
            p.grad *= min(1, limit / norm)


def slow_rate(name, config):
    if not name.startswith("backbone"):
        return 0.0  # the heads' warm-up begins at nothing
    block = [i for i in range(3) if f"layer.{i}." in name]
    scale = 0.9 ** (2 - block[0]) if block else 0.9**3 if "embeddings" in name else 1
    return config.lr * scale * (0.2 if "patch_embeddings" in name else 1) * 0.5  # first of two steps of warm-up


def slow_decay(name, parameter, config):
    token = any(t in name for t in ("cls_token", "mask_token", "position_embeddings"))
    return 0.0 if parameter.ndim < 2 or token else config.weight_decay_start


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


def test_layers_are_found_in_every_family(tiny_folders):
    for folder in tiny_folders.values():
        names = [name for name, _ in load_folder(folder).module.named_parameters()]
        assert {layer_of(name, 3) for name in names} == {0, 1, 2, 3, 4}
        assert layer_of(next(n for n in names if "patch_embeddings" in n), 3) == 0
        assert layer_of(names[-1], 3) == 4


def test_heads_learn_first_then_blocks_thaw_from_the_top(tiny_folder):
    config, start, ssl = make(tiny_folder, head_warmup=0.2, thaw=0.3, steps=20, warmup=0.1)
    plan = Plan(config, 3, 20)
    optimizer = make_optimizer(ssl, config, plan)
    assert [plan.thaw_step(layer) for layer in (4, 3, 2, 1, 0)] == [4, 4, 6, 8, 10]
    learning = []
    for step in range(12):
        thaw(optimizer, step)
        learning.append(sorted({layer_of(n, 3) for n, p in start.module.named_parameters() if p.requires_grad}))
    assert learning[3] == [] and learning[4] == [3, 4] and learning[7] == [2, 3, 4] and learning[10] == [0, 1, 2, 3, 4]
    thaw(optimizer, 0)
    loss, parts = ssl(*batch(config), 0.05)
    loss.backward()
    assert all(p.grad is None for p in start.module.parameters())
    assert all(p.grad is not None for p in ssl.student["dino_head"].parameters())
    assert "gram" not in parts  # nothing that it could hold in place


def test_a_layer_warms_up_when_it_thaws_and_the_rest_stays_frozen(tiny_folder):
    config, _, ssl = make(tiny_folder, head_warmup=0.2, thaw=0.3, warmup=0.1, max_blocks=1, steps=20)
    plan = Plan(config, 3, 20)
    optimizer = make_optimizer(ssl, config, plan)
    assert plan.thaw_step(3) == 4 and plan.thaw_step(2) == plan.thaw_step(0) == NEVER
    top = next(g for g in optimizer.param_groups if g["thaw_step"] == 4)
    rates = []
    for step in (4, 5, 6):
        schedule_step(optimizer, plan, step)
        rates.append(top["lr"] / plan.values(step).lr)
    assert rates == pytest.approx([0.5, 1, 1])
    schedule_step(optimizer, plan, 5, lr_factor=0.25)
    assert top["lr"] == pytest.approx(0.25 * plan.values(5).lr)


def test_the_last_layer_of_a_head_is_frozen_at_first(tiny_folder):
    config, _, ssl = make(tiny_folder, freeze_last_layer=0.3)
    optimizer, plan = make_optimizer(ssl, config, plan := Plan(config, 3, 10)), plan
    last = [group for group in optimizer.param_groups if group["last"]]
    schedule_step(optimizer, plan, 2)
    assert last and all(group["lr"] == 0 for group in last)
    schedule_step(optimizer, plan, 3)
    assert all(group["lr"] > 0 for group in last)


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
