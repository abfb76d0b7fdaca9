"""The names of Ray that are not public: all that climlstm uses, each with a guard.

Where a release has one of them no more, the run goes on without what it gave, with a warning;
tests/test_private_names.py then fails and names it. Known to be there: Ray 2.60.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

logger = logging.getLogger(__name__)

LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Variable by which Ray makes no clusters, and so listens on 127.0.0.1 alone, where it is "0"."""


@contextmanager
def on_loopback() -> Iterator[None]:
    """A Ray that is started in the block listens on 127.0.0.1 alone: its ports run what they get.

    Ray has no argument for it. Its processes read the environment, and this one has read it when
    Ray was imported.
    """
    before = os.environ.get(LOOPBACK_ONLY)
    os.environ[LOOPBACK_ONLY] = "0"
    constants: Any = getattr(getattr(ray, "_private", None), "ray_constants", None)
    makes_clusters = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    if makes_clusters is None:
        _warn("its ports may be open to the network")
    else:
        constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        if makes_clusters is not None:
            constants.ENABLE_RAY_CLUSTER = makes_clusters
        os.environ.pop(LOOPBACK_ONLY)
        if before is not None:
            os.environ[LOOPBACK_ONLY] = before


def expire_claims(seconds: int) -> None:
    """Let a controller's claim on places for workers end so long after its last sign of life.

    A driver that is killed leaves its claim behind, and the next one sees no room until it ends:
    with Ray's own 180 s, for minutes.
    """
    try:
        from ray.train.v2._internal.execution.scaling_policy import (
            autoscaling_coordinator_client as client,
        )

        client.AUTOSCALING_REQUESTS_EXPIRE_TIME_S  # noqa: B018 (is it there?)
    except (ImportError, AttributeError):
        _warn("a run after one that was killed may wait for three minutes")
    else:
        client.AUTOSCALING_REQUESTS_EXPIRE_TIME_S = seconds
        client.AUTOSCALING_REQUESTS_INTERVAL_S = seconds // 4


def is_host_going() -> bool:
    """In a worker: whether Ray was told that a host of the workers is to go (a spot machine's).

    Ray's public `get_preemption_info` waits for all workers; our loop has them agree already.
    """
    try:
        from ray.train.v2._internal.execution.context import get_train_context

        return bool(get_train_context().preemption_context.preemption_info)
    except (ImportError, AttributeError):
        return False


def _warn(consequence: str) -> None:
    logger.warning("Ray %s is not known to climlstm, so that %s", ray.__version__, consequence)
