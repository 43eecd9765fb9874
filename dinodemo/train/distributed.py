"""Several processes that train one network: start-up from torchrun's variables, collectives, and sharding (FSDP2)."""

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
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

    Call it again whenever other parameters begin to learn.
    """
    if world() == 1:
        return module
    return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)


def share(n: int) -> list[int]:
    """Return which of n items this rank works on; all ranks get equally many, so the last may repeat some."""
    return [i % n for i in range(rank(), -(-n // world()) * world(), world())]


def join_shares(rows: Tensor, n: int) -> Tensor:
    """Join the ranks' rows of `share(n)`.

    Args:
        rows: (ceil(n / world), ...), of this rank.
        n: Rows of all ranks together.

    Returns:
        All n rows, each once and in order, on every rank.
    """
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
    return _reduce(values, dist.ReduceOp.SUM)


def reduce_max(values: Tensor) -> Tensor:
    """Return the largest of each element over ranks; without gradients."""
    return _reduce(values, dist.ReduceOp.MAX)


def _reduce(values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
    if world() == 1:
        return values
    reduced = values.clone()
    dist.all_reduce(reduced, op=how)
    return reduced


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
    """Average a tensor over ranks in place and return it."""
    if world() > 1:
        dist.all_reduce(values)
        values /= world()
    return values


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on any rank, so that all take the same branch.

    Args:
        flag: Of this rank.
        device: That the ranks communicate on.
    """
    if world() == 1:
        return flag
    answer = torch.tensor(int(flag), device=device)
    dist.all_reduce(answer, op=dist.ReduceOp.MAX)
    return bool(answer)


def from_first(value):
    """Return the first rank's value on every rank (any object that pickles)."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def barrier() -> None:
    """Wait until every rank has arrived here."""
    if world() > 1:
        dist.barrier()


def shard(modules: Iterable[nn.Module], device: torch.device) -> None:
    """Leave each rank its part of every parameter; a module is whole only while it runs. Rewrites modules in place.

    Zhao et al. 2023 (arXiv:2304.11277), as torch's fully_shard does it. Parameters become DTensors, gradients are
    averaged over ranks.

    Args:
        modules: An inner module comes before the one that contains it.
        device: Of this rank.
    """
    # fully_shard warns of outputs that are views, of which nobody may change one in place; nobody here does
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
    mesh = init_device_mesh(device.type, (world(),))
    for module in modules:
        # explicit, since the outermost module would otherwise stay whole after a forward pass without a backward one
        fully_shard(module, mesh=mesh, reshard_after_forward=True)


def own_part(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor, sharing its memory; any other tensor unchanged."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor whole, on every rank; all must call together. Any other tensor unchanged."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(state: Any) -> Any:
    """Return a state dict with its sharded tensors whole on the CPU of the first rank, None on the others.

    Tensors that are not sharded are not copied. All ranks must call together; one tensor at a time is whole on the
    device.
    """
    if isinstance(state, dict):
        return {name: gather(value) for name, value in state.items()}
    if not isinstance(state, DTensor):
        return state
    full = whole(state)
    return full.cpu() if rank() == 0 else None


def split_like(full: Tensor, own: Tensor) -> Tensor:
    """Return this rank's part of a tensor.

    Args:
        full: Whole on every rank.
        own: Gives the layout; where it is whole, `full` is returned as it is.
    """
    if not isinstance(own, DTensor) or full.shape != own.shape:
        return full
    return distribute_tensor(full.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def load_network(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load whole weights into a module, sharded or not.

    Args:
        module: To fill.
        weights: By the names of its state dict, whole on every rank.
    """
    own = module.state_dict()
    module.load_state_dict({name: split_like(value, own[name]) for name, value in weights.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's whole state; its parameters may be sharded.

    Args:
        optimizer: To fill.
        state: What the state dict of an optimiser of the same groups held, whole on every rank.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = {
        number: {name: split_like(value, parameters[number]) for name, value in entry.items()}
        for number, entry in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": entries})
