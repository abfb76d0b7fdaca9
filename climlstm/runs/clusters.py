"""Spread the steps of a run over a cluster, or keep them in this process."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from climlstm.errors import ConfigError, missing_extra


@contextmanager
def spread_over(address: str | None, *, gpu: bool = False) -> Iterator[Executor | None]:
    """An executor on a Ray cluster; none without an address."""
    if address is None:
        yield None
        return
    from climlstm.on_ray.tasks import ray_executor

    with ray_executor(address, gpu=gpu) as executor:
        yield executor


@contextmanager
def scheduler_of(*, ray: str | None, dask: str | None) -> Iterator[Any]:
    """The scheduler that `prepare` uses: this process, or a cluster.

    ray: address of a running Ray cluster; dask: of a dask.distributed scheduler ('HOST:PORT').
    Raises ConfigError where none answers, MissingExtraError without the library.
    """
    if ray is not None and dask is not None:
        raise ConfigError("There are a Ray cluster and a Dask cluster to prepare on; name one.")
    if dask is not None:
        with _dask_cluster(dask) as get:
            yield get
        return
    with spread_over(ray) as executor:
        yield "threads" if executor is None else executor


@contextmanager
def _dask_cluster(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise missing_extra("A dask.distributed cluster", "distributed", error) from error
    try:
        client = Client(address, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"No scheduler of dask.distributed answers at '{address}': {error}. Start one with "
            "'dask scheduler', and workers with 'dask worker ADDRESS', or leave the option out."
        ) from error
    with client:
        yield client.get
