"""What learns when: layers found in every family, thawing from the top, warm-ups, frozen last layers."""

import pytest
from ssl_reference import batch, make

from dinodemo.backbones.adapter import layer_of
from dinodemo.train.network import load_folder
from dinodemo.train.optim import NEVER, Plan, make_optimizer, schedule_step, thaw


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
