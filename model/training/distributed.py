"""Data-parallel training on one machine or several: each rank trains on its shard of every batch.

Started with torchrun: `torchrun --nproc-per-node 2 -m tidecast train ...`. Without it the world size is 1, and nothing
here communicates.
"""

import atexit
import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn


def world_size() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_rank_zero() -> bool:
    """Whether this process is rank 0, the only one that writes files, registers models and reports."""
    return _rank() == 0


def local_device(name: str) -> torch.device:
    """This process's device: the GPU of its local rank for `cuda`, else the device of that name."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)


def init_process_group(device: torch.device) -> None:
    """Initialise the process group, once per process: NCCL on GPUs, else Gloo."""
    if world_size() > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(distributed.destroy_process_group)


def shard(rows: Tensor) -> Tensor:
    """This rank's shard of rows (N,); all of them if there are fewer rows than ranks."""
    return rows if len(rows) < world_size() else rows[_rank() :: world_size()]


def broadcast_weights(model: nn.Module) -> None:
    """Copy rank 0's weights to all ranks."""
    if world_size() > 1:
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of the tensor over all ranks, in place."""
    if world_size() > 1:
        distributed.all_reduce(tensor)
    return tensor


def all_reduce_mean(number: float, device: torch.device) -> float:
    """The mean of a number over all ranks."""
    return float(all_reduce_sum(torch.tensor(number, device=device))) / world_size()


def all_reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over all ranks, in one flat all-reduce."""
    if world_size() > 1:
        gradients = [each.grad for each in parameters if each.grad is not None]
        flat = all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
