"""Which of how many workers this process is, and what they do together.

The only room with torch.distributed. One process, `torchrun` and Ray Train all end up here: who
started the process group does not matter.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Workers:
    """The workers that train together, as one of them sees it."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this worker speaks and writes for all."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over the workers during backward."""
        if self.world == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)

    def total(self, values: Tensor) -> Tensor:
        """Sum over the workers, the same on each; the argument is left as it is."""
        summed = values.clone()
        if self.world > 1:
            dist.all_reduce(summed)
        return summed

    def agree(self, flag: bool) -> bool:
        """Whether the first worker says so: decisions that all must take alike."""
        if self.world == 1:
            return flag
        decision = torch.tensor([int(flag)], device=self.device)
        dist.broadcast(decision, src=0)
        return bool(decision.item())

    def any(self, flag: bool) -> bool:
        """Whether any worker says so."""
        return bool(self.total(torch.tensor([float(flag)], device=self.device)).item() > 0)

    def wait(self) -> None:
        """Return when all workers have come here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def workers(*, gpu: bool) -> Iterator[Workers]:
    """This process among its workers; a process group that `torchrun` asks for is started here."""
    started = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if started:
        dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield _this_worker(gpu)
    finally:
        if started:
            dist.destroy_process_group()


def _this_worker(gpu: bool) -> Workers:
    together = dist.is_initialized()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if gpu:
        # Ray shows each worker its own GPUs only; torchrun shows all of them to every worker.
        device = torch.device("cuda", local_rank % max(torch.cuda.device_count(), 1))
        torch.cuda.set_device(device)
    return Workers(
        rank=dist.get_rank() if together else 0,
        world=dist.get_world_size() if together else 1,
        device=device,
    )
