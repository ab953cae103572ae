"""Several processes, on one machine or more, that train one model: each takes its share of every batch.

`torchrun --nproc-per-node 2 -m tidecast train ...` starts them; by itself a process is a team of one.
"""

import atexit
import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn


def size() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_rank_zero() -> bool:
    """Whether this is the one that speaks for all."""
    return int(os.environ.get("RANK", "0")) == 0


def device(name: str) -> torch.device:
    """This process's GPU, or the CPU."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)


def join(where: torch.device) -> None:
    """Meet the others, once in a process's life."""
    if size() > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
        atexit.register(distributed.destroy_process_group)


def share(rows: Tensor) -> Tensor:
    """This one's part of some rows (N,); all of them where there are too few for everybody."""
    return rows if len(rows) < size() else rows[int(os.environ.get("RANK", "0")) :: size()]


def broadcast_weights(model: nn.Module) -> None:
    """Give everybody the leader's weights."""
    if size() > 1:
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)


def total(parts: Tensor) -> Tensor:
    """The sum of everybody's tensor, in its place."""
    if size() > 1:
        distributed.all_reduce(parts)
    return parts


def mean(number: float, where: torch.device) -> float:
    """Of everybody's number."""
    return float(total(torch.tensor(number, device=where))) / size()


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give everybody the sum of all gradients."""
    if size() > 1:
        gradients = [each.grad for each in parameters if each.grad is not None]
        flat = total(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
