"""This process among its workers, and their common operations.

The only place with torch.distributed beside group.py. One process, `torchrun` and Ray Train all
end up here: who started the process group does not matter.
"""

import inspect
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from climlstm.environment import check_gpus
from climlstm.training.group import join_group, leave_group

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """The workers that train together, as one of them sees it."""

    rank: int
    world: int
    device: torch.device
    neighbours: int = 1
    """Workers on this machine, itself included: they share its memory and its disk."""

    @property
    def is_first(self) -> bool:
        """Whether this worker speaks and writes for all."""
        return self.rank == 0

    def wrap(self, module: nn.Module, *, precision: torch.dtype = torch.float32) -> nn.Module:
        """The module, with gradients averaged over the workers during backward.

        precision: in which gradients travel.
        """
        if self.world == 1:
            return module
        # Gradients of a 1 × 1 convolution have other strides, but only where the length is 1.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        devices = [self.device] if self.device.type == "cuda" else None
        wrapped = DistributedDataParallel(module, device_ids=devices, **_WITHOUT_BUFFERS)
        if precision != torch.float32:
            wrapped.register_comm_hook(precision, _average_rounded)
        return wrapped

    def mean(self, values: Tensor, *, precision: torch.dtype = torch.float32) -> Tensor:
        """Mean over the workers, the same on each; values travel in the precision given."""
        if self.world == 1:
            return values
        travelling = (values / self.world).to(precision)
        dist.all_reduce(travelling)
        return travelling.to(values.dtype)

    def gather(self, values: Tensor) -> list[Tensor]:
        """Collect a tensor of each worker on the first one, in main memory; the others get nothing.

        values: of one shape on all workers. They come one after another, so that the device of the
        first holds two at most.
        """
        if not self.is_first:
            dist.send(values.contiguous(), dst=0)
            return []
        gathered = [values.cpu()]
        for rank in range(1, self.world):
            received = torch.empty_like(values)
            dist.recv(received, src=rank)
            gathered.append(received.cpu())
        return gathered

    def total(self, values: Tensor) -> Tensor:
        """Sum over the workers, the same on each; the argument is left as it is."""
        summed = values.clone()
        if self.world > 1:
            dist.all_reduce(summed)
        return summed

    def exchange(self, value: T) -> list[T]:
        """The value of each worker, by rank, on every worker; small and picklable."""
        if self.world == 1:
            return [value]
        values: list[T] = [value] * self.world
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any worker."""
        return bool(self.total(torch.tensor([float(flag)], device=self.device)).item() > 0)

    def wait(self) -> None:
        """Wait until all workers have called this."""
        if self.world > 1:
            dist.barrier()


def apart(module: nn.Module) -> AbstractContextManager[None]:
    """A context in which a wrapped module does not average its gradients over the workers."""
    if isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return nullcontext()


def _average_rounded(precision: torch.dtype, bucket: dist.GradBucket) -> Future[Tensor]:
    """Mean gradient over the workers, sent in a lower precision.

    Like torch's own bf16_compress_hook, which refuses gloo.
    """
    buffer = bucket.buffer()
    travelling = (buffer / dist.get_world_size()).to(precision)
    work = dist.all_reduce(travelling, async_op=True)
    return work.get_future().then(lambda sent: buffer.copy_(sent.value()[0]))


# Our buffers are constants, alike on all workers. Before 2.13, torch had another word for it.
_WITHOUT_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}


class Stopwatch:
    """Seconds that this worker's device spends inside the blocks that are timed with it."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def timing(self) -> Iterator[None]:
        """On a GPU nothing is waited for: events are put between the kernels."""
        if self._on_gpu:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
            self._pairs.append((first, last))
        else:
            began = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - began

    def read(self) -> float:
        """Seconds since it was read last."""
        if self._pairs:
            self._pairs[-1][1].synchronize()
            self._seconds += sum(a.elapsed_time(b) for a, b in self._pairs) / 1000
            self._pairs.clear()
        seconds, self._seconds = self._seconds, 0.0
        return seconds


@contextmanager
def workers(*, gpu: bool) -> Iterator[Workers]:
    """This process among its workers; a process group that `torchrun` asks for is started here.

    Raises ConfigError where a GPU is asked for and there is none, or fewer than workers.
    """
    started = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if gpu:  # Ray has given each worker its own
        wanted = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if started else 1
        check_gpus(wanted, "cluster.gpu is true", "Set cluster.gpu=false")
    if started:
        join_group(gpu=gpu)
    try:
        yield _this_worker(gpu)
    finally:
        if started:
            leave_group()


def _this_worker(gpu: bool) -> Workers:
    together = dist.is_initialized()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if gpu:
        # torchrun shows all GPUs to every worker, Ray perhaps its own only.
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return Workers(
        rank=dist.get_rank() if together else 0,
        world=dist.get_world_size() if together else 1,
        device=device,
        neighbours=int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if together else 1,
    )
