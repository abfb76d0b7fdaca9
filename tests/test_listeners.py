"""Who can reach a run: a local one, in whatever way it is started, listens on loopback alone."""

import ipaddress
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from climlstm.training.group import interface_of

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ON_LOOPBACK = ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file", "--rdzv-endpoint"]
"""As README has it: without, the launcher itself listens on all interfaces."""


def listeners(root):
    """(pid, address) of everything at which a process and its descendants take connections."""
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.Error):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    yield process.pid, connection.laddr.ip.removeprefix("::ffff:")


def heard(command, **env):
    """All listeners of a command from its start to its end, which has to be good."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=os.environ | env)  # fmt: skip
    found = set()
    root = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.Error):
            found.update(listeners(root))
        time.sleep(0.1)
    assert process.returncode == 0, process.stdout.read().decode()
    return process.pid, found


def train(run_file, *options):
    return ["-m", "climlstm", "train", str(run_file), "--set", "training.epochs=2", *options]


def beyond_loopback(found):
    return {(pid, ip) for pid, ip in found if not ipaddress.ip_address(ip).is_loopback}


@pytest.mark.slow
def test_one_plain_process_listens_nowhere(run_file):
    assert heard([sys.executable, *train(run_file, "--plain")])[1] == set()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_torchrun_listen_on_loopback(run_file, workers):
    """Its launcher, which is not ours, has a store of its own on all interfaces."""
    options = ["--nproc-per-node", str(workers)]
    launcher, found = heard([*TORCHRUN, *options, *train(run_file, "--plain")])
    assert {pid for pid, _ in beyond_loopback(found)} <= {launcher}
    assert len({pid for pid, _ in found} - {launcher}) == (workers if workers > 1 else 0)


@pytest.mark.slow
def test_torchrun_as_readme_has_it_listens_on_loopback_too(run_file, tmp_path):
    options = ["--nproc-per-node", "2", *ON_LOOPBACK, str(tmp_path / "meeting")]
    command = [*TORCHRUN, *options, *train(run_file, "--plain")]
    _, found = heard(command, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    assert len({pid for pid, _ in found}) >= 2
    assert beyond_loopback(found) == set()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2])
def test_ray_and_its_workers_listen_on_loopback(run_file, workers):
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    _, found = heard([sys.executable, *train(run_file, "--workers", str(workers))])
    assert found
    assert beyond_loopback(found) == set()


JOIN = """
import sys, time
import torch.distributed as dist
from climlstm.training.group import join_group, leave_group
join_group(gpu=False, address=sys.argv[1])
dist.barrier()
print("joined", flush=True)
sys.stdin.readline()
leave_group()
"""


def test_workers_on_several_hosts_listen_on_the_interface_of_their_cluster():
    """Here on one host with its address in the network, but told to be on two."""
    addresses = {
        a.address
        for several in psutil.net_if_addrs().values()
        for a in several
        if a.family == socket.AF_INET and not ipaddress.ip_address(a.address).is_loopback
    }
    if not addresses:
        pytest.skip("this host has loopback only")
    address = addresses.pop()
    with socket.create_server((address, 0)) as probe:
        port = probe.getsockname()[1]
    env = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
           "MASTER_ADDR": address, "MASTER_PORT": str(port)}  # fmt: skip
    processes = [
        subprocess.Popen([sys.executable, "-c", JOIN, address], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, env=os.environ | env | {"RANK": str(rank)})
        for rank in range(2)
    ]  # fmt: skip
    try:
        assert [p.stdout.readline() for p in processes] == [b"joined\n"] * 2
        found = {ip for p in processes for _, ip in listeners(psutil.Process(p.pid))}
        assert found == {address}
        for process in processes:
            process.communicate(b"\n", timeout=60)
            assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()


def test_the_interface_is_the_one_with_the_address():
    assert interface_of("127.0.0.1") in ("lo", "lo0")
    assert interface_of("192.0.2.255") is None  # reserved for documentation: no host has it
