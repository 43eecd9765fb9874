"""Two processes on the CPU learn what one learns from the joined batch, each with the whole network or with half."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dinodemo.train import FinetuneConfig, __main__, distributed, train
from dinodemo.train.distributed import gather, load_network, load_optimizer, own_part, whole
from dinodemo.train.network import load_backbone
from dinodemo.train.optim import Plan, clip, make_optimizer, schedule_step, thaw
from dinodemo.train.runfolder import checkpoint_path, load_newest_checkpoint, read_json, read_metrics
from dinodemo.train.ssl import SelfDistillation

PHOTOS, STEPS = 6, 3
SETTINGS = {
    "global_size": 56,
    "local_size": 28,
    "eval_size": 56,
    "n_local": 1,
    "batch_size": PHOTOS,
    "prototypes": 24,
    "head_hidden": 16,
    "head_bottleneck": 8,
    "head_warmup": 0.3,
    "thaw": 0.3,
    "steps": STEPS,
    "lr": 1e-3,
    "gram_weight": 0.5,
    "momentum_start": 0.9,
    "freeze_last_layer": 0.0,
}
PATHS = {"PYTHONPATH": str(Path(__file__).parents[2])}  # of the processes that are started here


def crops(step):
    """Make a step's crops and masks of all photos."""
    generator = torch.Generator().manual_seed(step)
    big = torch.randn(2, PHOTOS, 3, 56, 56, generator=generator)
    small = torch.randn(1, PHOTOS, 3, 28, 28, generator=generator)
    return big, small, torch.rand(2, PHOTOS, 16, generator=generator) < 0.3


def start(folder: str, centering: str, sharded: bool):
    """Make the network, the optimiser and its plan."""
    config = FinetuneConfig.from_dict({**SETTINGS, "backbone": folder, "centering": centering})
    torch.manual_seed(0)
    ssl = SelfDistillation(load_backbone(config).module, config).train()
    if sharded:
        ssl.shard(torch.device("cpu"))
    plan = Plan(config, 3, STEPS)
    return config, ssl, make_optimizer(ssl, config, plan), plan


def learn(folder: str, centering: str, sharded: bool = False) -> dict:
    """Train three steps on this rank's photos; heads first, then blocks thaw."""
    config, ssl, optimizer, plan = start(folder, centering, sharded)
    mine = slice(
        distributed.rank() * PHOTOS // distributed.world(), (distributed.rank() + 1) * PHOTOS // distributed.world()
    )
    losses = []
    for step in range(STEPS):
        thaw(optimizer, step)
        model = ssl if sharded else distributed.wrap(ssl)
        values = schedule_step(optimizer, plan, step)
        big, small, masks = crops(step)
        loss, parts = model(big[:, mine], small[:, mine], masks[:, mine].flatten(0, 1), values.teacher_temp)
        loss.backward()
        norm = clip(ssl, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ssl.update_teacher(values.momentum)
        losses.append(distributed.mean(torch.stack([loss.detach(), *parts.values(), norm])))
    rows = torch.arange(7.0)[distributed.share(7)][:, None]
    weights = {name: whole(value) for name, value in ssl.state_dict().items()}
    return {
        "losses": losses,
        "weights": weights,
        "centre": ssl.dino_centre,
        "again": restored(folder, centering, ssl, optimizer) if sharded else None,
        "joined": distributed.join_shares(rows, 7),
        "any": distributed.any_rank(distributed.rank() == 1, rows.device),
        "first": distributed.from_first(distributed.rank()),
    }


def restored(folder: str, centering: str, ssl, optimizer) -> dict:
    """Save as the first rank would, load into a new start; tells what is the same afterwards and how much is held."""
    box = [gather(ssl.state_dict()), gather(optimizer.state_dict())]
    torch.distributed.broadcast_object_list(box)
    _, other, second, _ = start(folder, centering, True)
    load_network(other, box[0])
    load_optimizer(second, box[1])
    parameters = zip(ssl.parameters(), other.parameters(), strict=True)
    moments = zip(flat_moments(optimizer), flat_moments(second), strict=True)
    return {
        "weights": all(torch.equal(own_part(one), own_part(two)) for one, two in parameters),
        "moments": all(torch.equal(own_part(one), own_part(two)) for one, two in moments),
        "whole": box,
        "held": sum(own_part(p).numel() for p in ssl.parameters()),
        "all": sum(p.numel() for p in ssl.parameters()),
    }


def flat_moments(optimizer) -> list[torch.Tensor]:
    return [value for entry in optimizer.state.values() for value in entry.values()]


def main(folder: str, out: str, *command: str) -> None:
    torch.set_num_threads(1)
    with distributed.process_group(torch.device("cpu")):
        results = {centering: learn(folder, centering) for centering in ("sinkhorn", "softmax")}
        results["sharded"] = learn(folder, "softmax", sharded=True)
        results["command"] = __main__.main(command)
        if distributed.rank() == 1:
            torch.save(results, out)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Name the folder of a run of four steps that `two_ranks` fills."""
    return tmp_path_factory.mktemp("ranks") / "run"


@pytest.fixture(scope="module")
def two_ranks(tiny_folder, run, photos, short):
    """Run `main` in two gloo processes; returns what the second found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = run.with_name("second.pt")
    sets = [part for name, value in short.items() for part in ("--set", f"{name}={value}")]
    command = [str(photos), "--out", str(run), "--device", "cpu", *sets]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(tiny_folder), str(out), *command],
            env={**os.environ, **PATHS, **group, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    return torch.load(out)


@pytest.mark.parametrize("kind", ["sinkhorn", "softmax", "sharded"])
def test_two_processes_equal_one_with_the_joined_batch(two_ranks, tiny_folder, kind):
    alone, second = learn(str(tiny_folder), "softmax" if kind == "sharded" else kind), two_ranks[kind]
    for step, (one, two) in enumerate(zip(alone["losses"], second["losses"], strict=True)):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-5), f"step {step}: {one} alone, {two} together"
    assert torch.allclose(alone["centre"], second["centre"], atol=1e-6)
    for name, value in alone["weights"].items():
        if name.endswith("k_proj.bias"):
            continue  # cannot matter: its gradient is rounding, which Adam turns into steps
        assert torch.allclose(value, second["weights"][name], atol=2e-4), name


def test_sharing_the_network_changes_nothing_but_who_holds_it(two_ranks):
    plain, sharded = two_ranks["softmax"], two_ranks["sharded"]
    for one, two in zip(plain["losses"], sharded["losses"], strict=True):
        assert torch.allclose(one, two, rtol=1e-6, atol=1e-6)
    held = sharded["again"]
    assert 0.4 < held["held"] / held["all"] < 0.6


def test_a_shared_network_is_saved_whole_and_comes_back(two_ranks, tiny_folder):
    again = two_ranks["sharded"]["again"]
    assert again["weights"] and again["moments"]
    weights, optimizer = again["whole"]
    _, alone, second, _ = start(str(tiny_folder), "softmax", False)
    load_network(alone, weights)  # what one process by itself finds in the checkpoint
    load_optimizer(second, optimizer)
    saved = two_ranks["sharded"]["weights"]
    assert all(torch.equal(value, saved[name]) for name, value in alone.state_dict().items())
    shapes = {(m.shape, p.shape) for p, e in second.state.items() for n, m in e.items() if n != "step"}
    assert shapes and all(one == two for one, two in shapes)


def test_what_ranks_tell_each_other(two_ranks):
    told = two_ranks["sinkhorn"]
    assert torch.equal(told["joined"], torch.arange(7.0)[:, None])
    assert told["any"] is True and told["first"] == 0


def losses(run) -> list[float]:
    return [line["loss"] for line in read_metrics(run) if line["kind"] == "train"]


def forget(run, *steps: int) -> None:
    """Leave the run as if it had been killed before these checkpoints."""
    for step in steps:
        checkpoint_path(run / "checkpoints", step).unlink()
    (run / "report.json").unlink()


def test_two_processes_share_the_photos_and_one_writes(two_ranks, run):
    assert two_ranks["command"] == 0
    assert read_json(run / "status.json")["state"] == "finished" and len(losses(run)) == 4
    last = load_newest_checkpoint(run / "checkpoints")
    assert last["step"] == 4 and last["sampler"]["position"] == 4 * 2 * 4  # steps, processes, photos of each


def test_torchrun_goes_on_with_a_run_and_shares_the_network(two_ranks, run):
    before, config = losses(run), read_json(run / "config.json")
    forget(run, 2, 4)
    config["settings"]["shard"] = True
    (run / "config.json").write_text(json.dumps(config))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "dinodemo.train",
        "--out",
        str(run),
        "--resume",
    ]
    done = subprocess.run(
        command,
        env={**os.environ, **PATHS, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(run)) == 1  # the first rank alone speaks
    assert losses(run) == pytest.approx(before, rel=1e-5)
    assert read_json(run / "report.json")["state"] == "finished"

    forget(run, 4)
    assert train(None, run, resume=True)["state"] == "finished"  # one process, from what two had shared
    assert losses(run)[:2] == pytest.approx(before[:2], rel=1e-5) and len(losses(run)) == 4


def test_a_process_alone_needs_no_group():
    rows = torch.ones(3, 2)
    assert distributed.world() == 1 and distributed.rank() == 0 and distributed.share(3) == [0, 1, 2]
    assert distributed.join_shares(rows, 3) is rows and distributed.gather_rows(rows) == (rows, 0)
    assert distributed.reduce_sum(rows) is rows and not distributed.any_rank(False, rows.device)
    module = torch.nn.Linear(1, 1)
    assert distributed.wrap(module) is module and distributed.from_first("x") == "x"


if __name__ == "__main__":
    main(*sys.argv[1:])
