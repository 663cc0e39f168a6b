"""Several processes on one training: who this one is, and how they exchange what each has computed.

Alone, everything here costs nothing and changes nothing. Processes are started by `accelerate launch` or `torchrun`.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
from torch import Tensor

from clip_har.errors import ConfigError

T = TypeVar("T")


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """This process's number, 0 for the one that writes files and talks."""
    return torch.distributed.get_rank() if _running() else 0


def world_size() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if _running() else 1


def is_main() -> bool:
    """Whether this is the process that writes files and talks."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if _running():
        torch.distributed.barrier()


def gather_objects(own: T) -> list[T]:
    """What every process has, by rank, in every process."""
    if not _running():
        return [own]
    gathered: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(gathered, own)
    return gathered


def gather_rows(rows_BD: Tensor) -> Tensor:
    """The rows of all processes, by rank: [W * B, D], with gradients that flow back to the process they came from.

    All processes must give the same number of rows.
    """
    if not _running():
        return rows_BD
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows_BD.contiguous()))


def _running() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def mean(tensor: Tensor) -> Tensor:
    """The mean of what every process has; all must call this."""
    return torch.stack(gather_objects(tensor)).mean(dim=0)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is spread over the processes, put together; all must call this. Others as they are."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def shard_like(target: Tensor, value: Tensor) -> Tensor:
    """A whole tensor in the form of `target`: this process's part of it where `target` is spread."""
    if not hasattr(target, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)


def initialise(device: str) -> None:
    """Join the other processes, where a launcher started several.

    Args:
        device: "cpu" keeps the processes on the CPU, where they talk over gloo.
    """
    if not launched() or _running():
        return
    if device.startswith("cuda:"):
        raise ConfigError(
            f"--device {device} would put all processes on one GPU", remedy="Use --device auto: each takes its own."
        )
    from accelerate import PartialState

    PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
