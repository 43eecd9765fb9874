"""Several processes that train one network: start-up from torchrun's variables, and what is joined over ranks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """Return this process's number, 0 when it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes, 1 when this one is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the group that torchrun announces in the environment and leave it at the end; yields this rank's device."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    # evaluation and export happen between collectives, so waiting may take long
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=1))
    try:
        yield device
    finally:
        dist.destroy_process_group()


def wrap(module: nn.Module) -> nn.Module:
    """Return the module with gradients averaged over ranks; the module itself when this process is alone.

    To be called anew whenever other parameters begin to learn.
    """
    if world() == 1:
        return module
    return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)


def share(n: int) -> list[int]:
    """Return which of n pieces of work are this rank's: as many on each, so the last ranks do some a second time."""
    return [i % n for i in range(rank(), -(-n // world()) * world(), world())]


def join_shares(rows: Tensor, n: int) -> Tensor:
    """Join the ranks' rows of `share(n)` to all n rows, each once and in order, on every rank."""
    if world() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world())]
    dist.all_gather(parts, rows.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)[:n].contiguous()  # row i is row i // world of rank i % world


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Return all ranks' rows, equally many each, and where this rank's begin; gradients flow back to every rank."""
    if world() == 1:
        return rows, 0
    return _Gather.apply(rows), rank() * len(rows)


def reduce_sum(values: Tensor) -> Tensor:
    """Return the sum of a tensor over ranks; without gradients."""
    if world() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


class _Gather(torch.autograd.Function):
    """Concatenate the ranks' rows; backwards, a row gets the sum of its gradients on all ranks."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        parts = [torch.empty_like(rows) for _ in range(world())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = reduce_sum(gradient.contiguous())
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def mean(values: Tensor) -> Tensor:
    """Average a tensor over ranks."""
    if world() > 1:
        dist.all_reduce(values)
        values /= world()
    return values


def any_rank(flag: bool, device: torch.device) -> bool:
    """Tell whether the flag is set on any rank, so that all take the same turn."""
    if world() == 1:
        return flag
    answer = torch.tensor(int(flag), device=device)
    dist.all_reduce(answer, op=dist.ReduceOp.MAX)
    return bool(answer)


def from_first(value):
    """Give every rank the first rank's value (any object that pickles)."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def barrier() -> None:
    """Wait until every rank has come here."""
    if world() > 1:
        dist.barrier()
