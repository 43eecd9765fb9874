"""Two processes on the CPU learn what one process learns from the joined batch."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from dinodemo.train import FinetuneConfig, distributed
from dinodemo.train.network import open_start
from dinodemo.train.optim import Plan, clip, make_optimizer, schedule_step, thaw
from dinodemo.train.ssl import SelfDistillation

PHOTOS, STEPS = 6, 3
SETTINGS = {
    "global_size": 56, "local_size": 28, "eval_size": 56, "n_local": 1, "batch_size": PHOTOS, "prototypes": 24,
    "head_hidden": 16, "head_bottleneck": 8, "head_warmup": 0.3, "thaw": 0.3, "steps": STEPS, "lr": 1e-3,
    "gram_weight": 0.5, "momentum_start": 0.9, "freeze_last_layer": 0.0,
}  # fmt: skip


def crops(step):
    """Make a step's crops and masks of all photos."""
    generator = torch.Generator().manual_seed(step)
    big = torch.randn(2, PHOTOS, 3, 56, 56, generator=generator)
    small = torch.randn(1, PHOTOS, 3, 28, 28, generator=generator)
    return big, small, torch.rand(2, PHOTOS, 16, generator=generator) < 0.3


def learn(folder: str, centering: str) -> dict:
    """Train three steps on this rank's photos; heads first, then blocks thaw."""
    config = FinetuneConfig.from_dict({**SETTINGS, "backbone": folder, "centering": centering})
    torch.manual_seed(0)
    ssl = SelfDistillation(open_start(config).module, config).train()
    plan = Plan(config, 3, STEPS)
    optimizer = make_optimizer(ssl, config, plan)
    mine = slice(
        distributed.rank() * PHOTOS // distributed.world(), (distributed.rank() + 1) * PHOTOS // distributed.world()
    )
    losses = []
    for step in range(STEPS):
        thaw(optimizer, step)
        model = distributed.wrap(ssl)
        values = schedule_step(optimizer, plan, step)
        big, small, masks = crops(step)
        loss, parts = model(big[:, mine], small[:, mine], masks[:, mine].flatten(0, 1), values.teacher_temp)
        loss.backward()
        norm = clip(ssl, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ssl.update_teacher(values.momentum)
        losses.append(distributed.mean(torch.stack([loss.detach(), *parts.values(), norm])))
    rows = torch.arange(7.0)[list(distributed.share(7))][:, None]
    return {"losses": losses, "student": ssl.student.state_dict(), "centre": ssl.dino_centre,
            "joined": distributed.join_shares(rows, 7),
            "any": distributed.any_rank(distributed.rank() == 1, rows.device),
            "first": distributed.from_first(distributed.rank())}  # fmt: skip


def main(folder: str, out: str) -> None:
    torch.set_num_threads(1)
    with distributed.process_group(torch.device("cpu")):
        results = {centering: learn(folder, centering) for centering in ("sinkhorn", "softmax")}
        if distributed.rank() == 1:
            torch.save(results, out)


@pytest.fixture(scope="module")
def two_ranks(tiny_folder, tmp_path_factory):
    """Run `main` in two gloo processes; returns what the second found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path_factory.mktemp("ranks") / "second.pt"
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(tiny_folder), str(out)],
                         env={**os.environ, **group, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]  # fmt: skip
    errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    return torch.load(out)


@pytest.mark.parametrize("centering", ["sinkhorn", "softmax"])
def test_two_processes_equal_one_with_the_joined_batch(two_ranks, tiny_folder, centering):
    alone, second = learn(str(tiny_folder), centering), two_ranks[centering]
    for step, (one, two) in enumerate(zip(alone["losses"], second["losses"], strict=True)):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-5), f"step {step}: {one} alone, {two} together"
    assert torch.allclose(alone["centre"], second["centre"], atol=1e-6)
    for name, value in alone["student"].items():
        if name.endswith("k_proj.bias"):
            continue  # cannot matter: its gradient is rounding, which Adam turns into steps
        assert torch.allclose(value, second["student"][name], atol=2e-4), name


def test_what_ranks_tell_each_other(two_ranks):
    told = two_ranks["sinkhorn"]
    assert torch.equal(told["joined"], torch.arange(7.0)[:, None])
    assert told["any"] is True and told["first"] == 0


def test_a_process_alone_needs_no_group():
    rows = torch.ones(3, 2)
    assert distributed.world() == 1 and distributed.rank() == 0 and list(distributed.share(3)) == [0, 1, 2]
    assert distributed.join_shares(rows, 3) is rows and distributed.gather_rows(rows) == (rows, 0)
    assert distributed.reduce_sum(rows) is rows and not distributed.any_rank(False, rows.device)
    module = torch.nn.Linear(1, 1)
    assert distributed.wrap(module) is module and distributed.from_first("x") == "x"


if __name__ == "__main__":
    main(*sys.argv[1:])
