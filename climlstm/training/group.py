"""Starting the process group, so that only those who belong to it can reach it.

torch's own store listens on all interfaces whatever address it is given, gloo on the address of the
host's name, NCCL on the first interface. Here all three take one interface: workers on one machine
meet on loopback, workers on several on the interface that has the address of the first.
"""

import logging
import os
import socket
from datetime import timedelta

import psutil
import torch.distributed as dist

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

LONGEST_WAIT = timedelta(minutes=30)
"""Timeout for workers to come to the store, as torch has it."""


def join_group(*, gpu: bool, address: str | None = None, timeout: timedelta | None = None) -> None:
    """Start the process group of the environment: RANK, WORLD_SIZE, MASTER_ADDR and so on.

    address: of this host in the network of the workers; by default, libraries look for it.
    timeout: after which a worker that does not answer counts as lost; by default torch's.
    """
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    together = int(os.environ.get("LOCAL_WORLD_SIZE", "0")) == world
    if together:
        _pin(LOOPBACK)
    elif address:
        _pin(address)
    backend = "nccl" if gpu else "gloo"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun has a store itself
        dist.init_process_group(backend, timeout=timeout)
        return
    place = LOOPBACK if together else os.environ["MASTER_ADDR"]
    port = int(os.environ["MASTER_PORT"])
    store = _store(place, port, first=rank == 0, timeout=timeout or LONGEST_WAIT)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)


def leave_group() -> None:
    """End the process group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def interface_of(address: str) -> str | None:
    """Name of the network interface of this host that has an IP address, if any has."""
    for name, addresses in psutil.net_if_addrs().items():
        if address in (a.address.partition("%")[0] for a in addresses):
            return name
    return None


def _pin(address: str) -> None:
    """Tell gloo and NCCL, in this process, to use the interface with an address."""
    interface = interface_of(address)
    if interface is None:
        logger.warning("no interface has the address %s; gloo and NCCL choose one", address)
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # '=': not each that begins so


def _store(place: str, port: int, *, first: bool, timeout: timedelta) -> dist.TCPStore:
    """The store in which workers find each other; the first one listens, at `place` alone."""
    if not first:
        return dist.TCPStore(place, port, is_master=False, timeout=timeout)
    family = socket.getaddrinfo(place, port, type=socket.SOCK_STREAM)[0][0]
    return dist.TCPStore(
        place,
        port,
        is_master=True,
        timeout=timeout,
        wait_for_workers=False,
        multi_tenant=True,
        master_listen_fd=socket.create_server((place, port), family=family).detach(),
    )
