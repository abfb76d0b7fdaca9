"""A Ray cluster, reached from here."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from climlstm.errors import ConfigError, missing_extra

# Read by Ray when it is imported.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default

try:
    import ray
except ImportError as error:
    raise missing_extra("Working on a Ray cluster", "ray", error) from error

REACH_SECONDS = 10.0
"""After which a head that does not answer counts as absent."""


@contextmanager
def connected(address: str | None) -> Iterator[list[int]]:
    """Ray while the block lasts; yields the CPUs of each host. A Ray that runs already is used.

    address: of a running cluster ('auto', or 'host:port'); None: a local Ray, for this block only.
    Raises ConfigError where no cluster answers.
    """
    if ray.is_initialized():
        yield _cpus_of_hosts()
        return
    local: dict[str, Any] = {
        "address": "local",
        "num_cpus": len(os.sched_getaffinity(0)),
        "include_dashboard": False,
        "object_store_memory": 100_000_000,  # bytes; little is put there
    }
    if address is not None:
        _check_reachable(address)
    try:
        ray.init(
            **(local if address is None else {"address": address}),
            logging_level=logging.ERROR,
            log_to_driver=address is not None,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"No Ray cluster answers at '{address}': {error}. Start one with 'ray start --head', "
            "or leave --address out to use this machine only."
        ) from error
    try:
        yield _cpus_of_hosts()
    finally:
        ray.shutdown()


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
