"""Hosts on this machine, made of namespaces: each has its own address, processes and /tmp/ray.

A host is what `unshare` makes (mount, process and IPC namespace) in a network namespace of its
own, which a pair of virtual cables joins to a switch. When the first process of a host is killed,
the kernel kills all others in it, as when somebody pulls the plug. Cutting a cable tells nobody.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

BIN = Path(sys.executable).parent
HEAD, PORT = "10.213.77.1", 6379
DASHBOARD = f"http://{HEAD}:8265"
ENVIRONMENT = {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default, so that all else on this machine goes first
}
LOCAL_NETWORK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""As the files in cluster/ have them for hosts on one local network."""


@dataclass
class Host:
    """A machine made of namespaces, with a Ray node on it."""

    name: str
    address: str
    folder: Path
    """What it has as /tmp/ray."""
    switch: str
    port: str
    """The end of its cable that is in the switch."""
    process: subprocess.Popen = field(repr=False)

    @property
    def first(self) -> psutil.Process:
        """The process that has number 1 on the host."""
        unshare = psutil.Process(self.process.pid)
        return unshare.children()[0]

    def train_workers(self) -> list[psutil.Process]:
        """The processes on the host that train."""
        return self.running("RayTrainWorker")

    def running(self, text: str) -> list[psutil.Process]:
        """The processes on the host with a text in their command lines."""
        return [p for p in self.first.children(recursive=True) if text in " ".join(_command(p))]

    def processes(self) -> list[list[str]]:
        """The command lines of all that runs on the host."""
        return [_command(p) for p in self.first.children(recursive=True)]

    def cable(self, state: str) -> None:
        """Cut the cable to the host ('down') or mend it ('up'); nobody is told."""
        _ip("-n", self.switch, "link", "set", self.port, state)

    def run(self, *command: str | Path) -> str:
        """What a command prints that runs on the host; fails where it fails."""
        done = subprocess.run(
            ["nsenter", f"--target={self.first.pid}", "--net", "--mount", "--pid", "--ipc", "--uts",
             *map(str, command)],
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pull_the_plug(self) -> None:
        """End everything on the host at once."""
        first = self.first
        first.send_signal(signal.SIGKILL)
        self.process.wait(timeout=20)


class Command:
    """A running command of climlstm with its output in a file."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        self.ended = False
        """Whether the tests are through with it."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "climlstm", *arguments],
            env=os.environ | environment,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )

    def finish(self, seconds: float = 300) -> str:
        """What it printed; fails where it does not succeed in time."""
        status, output = self.outcome(seconds)
        assert status == 0, f"exit status {status}\n{output}"
        return output

    def outcome(self, seconds: float = 300) -> tuple[int | None, str]:
        """Exit status, or None where it is not over in time, and what it printed."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        self.end()
        return status, self.log.read_text()

    def end(self) -> None:
        self.ended = True
        self.process.kill()
        self.process.wait()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Cluster:
    """A switch, and hosts on it."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        """settings: variables of the environment in which Ray is started."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.scratch = folder / "tmp"
        """What programs have as folder for passing things, so that tests see what is left there."""
        self.scratch.mkdir()
        self.environment = (
            ENVIRONMENT | settings | {"TMPDIR": str(self.scratch), "RAY_TMPDIR": "/tmp"}
        )
        self.mark = f"cl{os.getpid() % 100000}"
        self.hosts: dict[str, Host] = {}
        self.networks: set[str] = set()
        self.commands: list[Command] = []
        self.switch = f"{self.mark}sw"
        _ip("netns", "add", self.switch)
        _ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "br0", "up")
        # An end of a cable for the tests themselves, which are a client of the cluster.
        self.outside = f"{self.mark}x"
        _ip("link", "add", self.outside, "type", "veth", "peer", "name", "x", "netns", self.switch)
        _ip("-n", self.switch, "link", "set", "x", "master", "br0", "up")
        _ip("address", "add", "10.213.77.254/24", "dev", self.outside)
        _ip("link", "set", self.outside, "up")

    def climlstm(self, *command: str | Path, **environment: str) -> "Command":
        """Start a command of ours outside the cluster, as a user does."""
        log = self.folder / f"command{len(self.commands)}.log"
        arguments = [*map(str, command), "--address", DASHBOARD]
        self.commands.append(Command(arguments, log, self.environment | environment))
        return self.commands[-1]

    def wait_for(self, condition: Callable[[], object], *, seconds: float, what: str) -> float:
        """Seconds until something came to pass; fails where it does not, or a command fails."""
        began = time.monotonic()
        while not condition():
            for command in self.commands[-1:]:
                assert command.ended or not command.process.poll(), command.log.read_text()
            if time.monotonic() > began + seconds:
                pytest.fail(f"after {seconds:.0f} s still not: {what}")
            time.sleep(0.3)
        return time.monotonic() - began

    def host(self, number: int) -> Host:
        """The host with this number; 1 is the head."""
        return self.hosts[f"{self.mark}n{number}"]

    def alive(self, number: int) -> bool:
        """Whether there is such a host, with Ray on it."""
        host = self.hosts.get(f"{self.mark}n{number}")
        return host is not None and host.process.poll() is None

    def complete(self) -> None:
        """Start what is missing of two hosts, and return when both serve."""
        if not self.alive(1):
            for host in list(self.hosts.values()):
                self.remove(host)
            self.add(1)
            self.wait_for(dashboard_answers, seconds=400, what="a dashboard that answers")
        if not self.alive(2):
            self.add(2)

    def add(self, number: int, *, cpus: int = 1) -> Host:
        """Start a host, and return when Ray runs on it; number 1 is the head.

        Ray gives up where its node is not there in 30 s, as on a machine busy with other things.
        """
        log = self.folder / f"host{number}.log"

        def started() -> bool:
            return "Ray runtime started" in log.read_text()

        for _ in range(3):
            host = self._start(number, cpus=cpus)
            self.wait_for(
                lambda host=host: started() or host.process.poll() is not None,
                seconds=180,
                what=f"Ray on host {number}",
            )
            if started():
                return host
            self.remove(host)
        pytest.fail(f"Ray does not start on host {number}:\n{log.read_text()}")

    def _start(self, number: int, *, cpus: int) -> Host:
        address = f"10.213.77.{number}"
        if f"{self.mark}n{number}" in self.hosts:
            self.remove(self.host(number))
        name = self.plug_in(number)
        folder = self.folder / f"host{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        place = f"--address={HEAD}:{PORT}"
        if number == 1:
            place = f"--head --port={PORT} --dashboard-host=0.0.0.0"
        script = (
            f"hostname {name} && mkdir -p /tmp/ray && mount --bind {folder} /tmp/ray"
            f" && mount -t tmpfs tmpfs /dev/shm"
            f" && exec {BIN}/ray start --block {place} --node-ip-address={address}"
            f" --num-cpus={cpus} --object-store-memory=100000000 --disable-usage-stats"
        )
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--ipc", "--uts",
             "--fork", "--mount-proc", "--kill-child", "bash", "-c", script],
            env=os.environ | self.environment,
            stdout=(self.folder / f"host{number}.log").open("w"),
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.hosts[name] = Host(name, address, folder, self.switch, f"p{number}", process)
        return self.hosts[name]

    def plug_in(self, number: int) -> str:
        """The name of a new network namespace with a cable to the switch."""
        name = f"{self.mark}n{number}"
        _ip("netns", "add", name)
        self.networks.add(name)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"p{number}", "netns", self.switch)  # noqa: E501  # fmt: skip
        _ip("-n", self.switch, "link", "set", f"p{number}", "master", "br0", "up")
        _ip("-n", name, "address", "add", f"10.213.77.{number}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        return name

    def remove(self, host: Host) -> None:
        """Take a host away with all that runs on it."""
        if host.process.poll() is None:
            host.pull_the_plug()
        # The kernel takes its time over a namespace, and until then the switch has its cable.
        subprocess.run(["ip", "-n", self.switch, "link", "delete", host.port], check=False)
        subprocess.run(["ip", "netns", "delete", host.name], check=False)
        self.networks.discard(host.name)
        self.hosts.pop(host.name, None)

    def close(self) -> None:
        """Leave nothing behind."""
        for command in self.commands:
            command.end()
        for host in list(self.hosts.values()):
            self.remove(host)
        for name in self.networks:
            subprocess.run(["ip", "netns", "delete", name], check=False)
        subprocess.run(["ip", "link", "delete", self.outside], check=False)
        subprocess.run(["ip", "netns", "delete", self.switch], check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def why_not() -> str | None:
    """Why no hosts can be made here, if so."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    trial = f"cl{os.getpid() % 100000}try"
    made = subprocess.run(["ip", "netns", "add", trial], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", trial], check=False)
    made = subprocess.run(
        ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "true"],
        capture_output=True,
        text=True,
    )
    return f"namespaces cannot be made: {made.stderr.strip()}" if made.returncode else None


def dashboard_answers() -> bool:
    request = urllib.request.Request(
        f"{DASHBOARD}/api/jobs/",
        headers={"Authorization": f"Bearer {ENVIRONMENT['RAY_AUTH_TOKEN']}"},
    )
    try:
        return urllib.request.urlopen(request, timeout=2).status == 200
    except OSError:
        return False


@contextmanager
def made_cluster(folder: Path, settings: dict[str, str]) -> Iterator[Cluster]:
    """A switch; the hosts come with `complete`. Skips where there is no right to make them."""
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with ExitStack() as stack:
        # Whoever ends the tests from outside shall not leave hosts behind, either.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGTERM, before)
        cluster = Cluster(folder, settings)
        stack.callback(cluster.close)
        yield cluster
