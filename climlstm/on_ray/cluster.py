"""A Ray cluster, reached from here."""

import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from climlstm import plugins
from climlstm.errors import ConfigError, PluginError, missing_extra
from climlstm.plugins import Plugin

# Read by Ray when it is imported.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default

try:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise missing_extra("Working on a Ray cluster", "ray", error) from error

REACH_SECONDS = 10.0
"""After which a head that does not answer counts as absent."""

ANSWER_SECONDS = 60.0
"""How long a host may take to say which plugins it has: it starts a process, and imports."""

logger = logging.getLogger(__name__)


@contextmanager
def connected(address: str | None) -> Iterator[list[int]]:
    """Ray while the block lasts; yields the CPUs of each host. A Ray that runs already is used.

    address: of a running cluster ('auto', or 'host:port'); None: a local Ray, for this block only.
    Raises ConfigError where no cluster answers.
    """
    if ray.is_initialized():
        yield _cpus_of_hosts()
        return
    if address is None:
        with _local() as settings, _session(address, **settings, log_to_driver=False) as cpus:
            yield cpus
    else:
        _check_reachable(address)
        with _session(address, address=address) as cpus:
            yield cpus


@contextmanager
def _local() -> Iterator[dict[str, Any]]:
    """Settings of a Ray on this machine, whose logs and sockets are deleted at the end."""
    # Not below a TMPDIR of the user: the path of a socket must not exceed 107 bytes.
    place = "/tmp" if os.path.isdir("/tmp") else None
    with tempfile.TemporaryDirectory(
        prefix="climlstm-ray-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield {
            "address": "local",
            "num_cpus": len(os.sched_getaffinity(0)),
            "include_dashboard": False,
            "object_store_memory": 100_000_000,  # bytes; little is put there
            "_temp_dir": folder,
        }


@contextmanager
def _session(shown: str | None, **settings: Any) -> Iterator[list[int]]:
    try:
        with _on_loopback() if shown is None else nullcontext():
            ray.init(logging_level=logging.ERROR, **settings)
    except Exception as error:  # Ray raises plain ones, too, where its processes do not start
        if shown is None:
            raise ConfigError(
                f"Ray cannot be started on this machine: {error}. Try again when it is less busy, "
                "or train in this process with --plain."
            ) from error
        if not isinstance(error, ConnectionError | RuntimeError | ValueError):
            raise
        raise ConfigError(
            f"No Ray cluster answers at '{shown}': {error}. Start one with 'ray start --head', "
            "or leave --address out to use this machine only. One that wants a token, as 'ray "
            "start' says where it does, needs RAY_AUTH_MODE=token here, too."
        ) from error
    try:
        yield _cpus_of_hosts()
    finally:
        ray.shutdown()


def check_hosts(used: Sequence[Plugin]) -> None:
    """Raises PluginError unless every host of the cluster has the plugins of a run, as here.

    used: from `used_plugins`. Hosts that join later are asked when they begin to train.
    """
    ask = ray.remote(num_cpus=0, max_retries=0)(differences)
    asked = []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answer = ask.options(scheduling_strategy=there).remote(list(used))
            asked.append((f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})", answer))
    wrong = []
    for host, answer in asked:
        try:
            wrong += [f"{host}: {message}" for message in ray.get(answer, timeout=ANSWER_SECONDS)]
        except ray.exceptions.RayTaskError as error:  # not even this climlstm is there
            wrong.append(f"{host}: climlstm cannot be used there: {error.cause!r}")
        except ray.exceptions.RayError as error:
            logger.warning("%s did not say which plugins it has: %s", host, error)
    refuse_if(wrong)


def refuse_if(wrong: Sequence[str]) -> None:
    """Raises PluginError where there is anything wrong with hosts, each message with its host."""
    if wrong:
        listed = "\n".join(f"- {message}" for message in wrong)
        raise PluginError(
            f"Not every host of the cluster has the plugins of this run:\n{listed}\n"
            "Install the same packages on all hosts, or send them along with 'climlstm submit "
            "--ship WHEEL'."
        )


def differences(used: Sequence[Plugin]) -> list[str]:
    """What of a run's plugins is missing here, or has another version; best empty."""
    return plugins.missing(used) + plugins.changed(used)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that is started meanwhile listens on 127.0.0.1 alone: its ports run what they are sent.

    Ray has no argument for it, but does so where it is told to make no clusters. Its processes read
    the environment, and this one has read it when Ray was imported.
    """
    name, constants = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", ray._private.ray_constants
    before = os.environ.get(name), constants.ENABLE_RAY_CLUSTER
    os.environ[name], constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before[1]
        if before[0] is None:
            del os.environ[name]
        else:
            os.environ[name] = before[0]


def _cpus_of_hosts() -> list[int]:
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def _check_reachable(address: str) -> None:
    """Raises ConfigError where nothing listens; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # 'auto': Ray knows where to look
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"No Ray cluster answers at '{address}': {error}. Start one with 'ray start --head', "
            "or leave --address out to use this machine only."
        ) from error
