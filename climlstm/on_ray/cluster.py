"""A Ray cluster: reached or started from here, and asked for room and plugins."""

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from climlstm import plugins
from climlstm.environment import check_gpus, usable_cores
from climlstm.errors import ConfigError, PluginError, missing_extra
from climlstm.plugins import Plugin

# Read by Ray when it is imported.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default

try:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from climlstm.on_ray.private import on_loopback
except ImportError as error:
    raise missing_extra("Working on a Ray cluster", "ray", error) from error

REACH_SECONDS = 10.0
"""Timeout for a connection to the head."""

ANSWER_SECONDS = 60.0
"""Timeout for a host to list its plugins: it starts a process and imports them."""

Host = Mapping[str, float]
"""Resources of a host by Ray's names: CPU, GPU, memory."""

logger = logging.getLogger(__name__)


@contextmanager
def connected(address: str | None, *, gpus: int = 0) -> Iterator[list[Host]]:
    """Connect to Ray for the block; yields the resources of each host.

    A Ray to which this process is connected already is used.

    address: of a running cluster ('auto', or 'host:port'); None: a local Ray, for this block only.
    gpus: that a local Ray has to have.
    Raises ConfigError where no cluster answers, or a local one would lack GPUs.
    """
    if ray.is_initialized():
        yield _hosts()
    elif address is None:
        check_gpus(gpus, "cluster.gpu is true", "Set cluster.gpu=false")
        with _local() as settings, _session(address, **settings, log_to_driver=False) as hosts:
            yield hosts
    else:
        _check_reachable(address)
        with _session(address, address=address) as hosts:
            yield hosts


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
            "num_cpus": usable_cores(),
            "include_dashboard": False,
            "object_store_memory": 100_000_000,  # bytes; little is put there
            "_temp_dir": folder,
        }


@contextmanager
def _session(shown: str | None, **settings: Any) -> Iterator[list[Host]]:
    if beside := plugins.modules_beside():  # no package brings them to the workers
        settings["runtime_env"] = {"py_modules": [str(place) for place in beside]}
    try:
        with on_loopback() if shown is None else nullcontext():
            ray.init(logging_level=logging.ERROR, **settings)
    except Exception as error:  # Ray raises plain ones, too, where its processes do not start
        if shown is None:
            raise ConfigError(
                f"Ray cannot be started on this machine: {error}. Try again when it is less busy, "
                "or do without: 'climlstm train RUN_FILE --plain'."
            ) from error
        if not isinstance(error, ConnectionError | RuntimeError | ValueError):
            raise
        raise _no_cluster(shown, error) from error
    try:
        yield _hosts()
    finally:
        ray.shutdown()


def _no_cluster(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"No Ray cluster answers at '{address}': {error}. Start one with 'ray start --head', or "
        "leave --address out to use this machine only. One that wants a token, as 'ray start' "
        "says where it does, needs RAY_AUTH_MODE=token here, too."
    )


def _check_reachable(address: str) -> None:
    """Raises ConfigError where nothing listens; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # 'auto': Ray knows where to look
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, error) from error


def _hosts() -> list[Host]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_room(
    hosts: Sequence[Host], each: Mapping[str, float], count: int, *, asked: str, may_grow: bool
) -> None:
    """Check that `count` processes find room; Ray would wait for it, without a word and an end.

    each: CPUs or GPUs of one process, which lie on one host.
    asked: what asks for them, as the beginning of a sentence: "cluster.workers is 2".
    may_grow: whether hosts may join; too little room is then a warning.
    Raises ConfigError otherwise.
    """
    for resource, amount in each.items():
        there = [host.get(resource, 0) for host in hosts]
        if sum(int(n // amount) for n in there) >= count:
            continue
        beside = f", {amount:g} on one host" if amount > 1 else ""
        message = (
            f"{asked}, which takes {count * amount:g} {resource}s{beside}, but Ray has "
            f"{' + '.join(f'{n:g}' for n in there)} on {len(hosts)} host{'s' * (len(hosts) != 1)}."
        )
        if not may_grow:
            advice = "set cluster.gpu=false, " if resource == "GPU" else ""
            raise ConfigError(
                f"{message} Ask for less, {advice}or give the --address of a larger cluster."
            )
        logger.warning("%s Waiting for hosts to join; Ctrl-C or SIGTERM ends it.", message)


def warn_if_busy(each: Mapping[str, float], count: int) -> None:
    """Say what `count` processes wait for, where others have the CPUs or GPUs that they need."""
    free = ray.available_resources()
    for resource, amount in each.items():
        if free.get(resource, 0) < amount * count:
            logger.warning(
                "%g %ss are needed, and only %g are free now: waiting for the others to be freed",
                amount * count,
                resource,
                free.get(resource, 0),
            )


def ask_hosts(question: Callable[[], Any]) -> dict[str, Any]:
    """Answers of a function on each host of the cluster, by host name and address; where it fails,
    {'problems': [the reason]}."""
    ask = ray.remote(num_cpus=0, max_retries=0)(question)
    answers, found = {}, {}
    for node in (each for each in ray.nodes() if each["Alive"]):
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        host = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        answers[host] = ask.options(scheduling_strategy=there).remote()
    for host, answer in answers.items():
        try:
            found[host] = ray.get(answer, timeout=ANSWER_SECONDS)
        except ray.exceptions.RayError as error:  # not even this climlstm is there
            found[host] = {"problems": [f"did not answer: {getattr(error, 'cause', error)!r}"]}
    return found


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
    """Raises PluginError where hosts lack plugins; each message names its host."""
    if wrong:
        listed = "\n".join(f"- {message}" for message in wrong)
        raise PluginError(
            f"Not every host of the cluster has the plugins of this run:\n{listed}\n"
            "Install the same packages on all hosts, or send them along with 'climlstm submit "
            "--ship WHEEL'."
        )


def differences(used: Sequence[Plugin]) -> list[str]:
    """Plugins of a run that are missing here or have another version, one message each."""
    return plugins.missing(used) + plugins.changed(used)
