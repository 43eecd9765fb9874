"""Split networks over the processes of a group (FSDP2), for backbones too large to be held whole by each of them."""

import re
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from . import distributed

if TYPE_CHECKING:
    from .ssl import SelfDistillation

_BLOCK = re.compile(r"(?:.+\.)?layers?\.\d+")


def shard(ssl: "SelfDistillation", device: torch.device) -> None:
    """Leave each rank its share of every parameter; a block is whole only while it runs. Rewrites ssl in place.

    Zhao et al. 2023 (arXiv:2304.11277), as torch's fully_shard does it: block by block, then what remains of the
    backbone, and each head. Parameters become DTensors, gradients are averaged over ranks.
    """
    # fully_shard warns of outputs that are views, of which nobody may change one in place; nobody here does
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
    mesh = init_device_mesh(device.type, (distributed.world(),))
    backbones = [ssl.student["backbone"], ssl.teacher["backbone"], *([] if ssl.anchor is None else [ssl.anchor])]
    blocks = [part for backbone in backbones for name, part in backbone.named_modules() if _BLOCK.fullmatch(name)]
    heads = [head for network in (ssl.student, ssl.teacher) for name, head in network.items() if name != "backbone"]
    for module in (*blocks, *backbones, *heads):  # a block before the backbone that it is in
        # told explicitly: the outermost module would stay whole after a forward pass without a backward one
        fully_shard(module, mesh=mesh, reshard_after_forward=True)


def own_part(tensor: Tensor) -> Tensor:
    """Return this rank's share of a sharded tensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor whole, on every rank; all must ask for it together. Any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(state: Any) -> Any:
    """Copy a state dict with its sharded tensors whole and on the CPU of the first rank, left out on the others.

    What is not sharded is not copied. All ranks must ask together; one tensor at a time is whole on the device.
    """
    if isinstance(state, dict):
        return {name: gather(value) for name, value in state.items()}
    if not isinstance(state, DTensor):
        return state
    full = whole(state)
    return full.cpu() if distributed.rank() == 0 else None


def split_like(full: Tensor, own: Tensor) -> Tensor:
    """Return this rank's share of a tensor that every rank has whole, laid out as `own`; whole if `own` is."""
    if not isinstance(own, DTensor) or full.shape != own.shape:
        return full
    return distribute_tensor(full.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def load_network(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load whole weights into a module, sharded or not."""
    own = module.state_dict()
    module.load_state_dict({name: split_like(value, own[name]) for name, value in weights.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the whole state of an optimiser, whose parameters may be sharded."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = {
        number: {name: split_like(value, parameters[number]) for name, value in entry.items()}
        for number, entry in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": entries})
