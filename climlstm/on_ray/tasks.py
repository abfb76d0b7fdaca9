"""Work spread over a Ray cluster, behind Python's own `concurrent.futures.Executor`.

Forecasts, scores, preparation and statistics are thousands of independent pieces. They take an
Executor and know nothing of Ray; tests give them a pool of processes.

Why Ray tasks, and not Dask's distributed or Ray's Dask scheduler on the same nodes: see
cluster/README.md, with the overhead of each as benchmarks/tasks.py measures it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from climlstm.errors import ClusterError
from climlstm.on_ray.cluster import check_room, connected, ray

RETRIES = 5
"""New attempts at a task whose process or host was lost, or whose storage failed for a while."""


@contextmanager
def ray_executor(address: str | None, *, gpu: bool = False) -> Iterator["RayExecutor"]:
    """An executor on a cluster; calls that run or wait at the end of the block are cancelled.

    address: of a running cluster ('auto', or 'host:port'); None: a local Ray, for this block only.
    gpu: each task has a GPU instead of a CPU.
    Raises ConfigError where no cluster answers.
    """
    with connected(address) as hosts:
        each = {"GPU" if gpu else "CPU": 1.0}
        asked = "--gpu was given" if gpu else "Work is to be spread over the cluster"
        check_room(hosts, each, 1, asked=asked, may_grow=address is not None)
        executor = RayExecutor(gpu=gpu, workers=int(sum(host.get("CPU", 0) for host in hosts)))
        try:
            yield executor
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


class RayExecutor(Executor):
    """Runs each call as a Ray task of its own; calls that are lost are made again.

    A function must therefore bear being called twice with the same arguments. It is stored once
    for all its calls in a row: what they share, bound by functools.partial, travels once to a host.
    """

    def __init__(self, *, gpu: bool = False, workers: int = 1) -> None:
        self._max_workers = max(workers, 1)  # Dask asks executors by this name
        each = {"num_gpus": 1, "num_cpus": 0} if gpu else {"num_cpus": 1}
        task: Any = ray.remote(_call)
        self._task = task.options(**each, max_retries=RETRIES, retry_exceptions=[OSError])
        self._stored: tuple[Callable[..., Any], Any] | None = None
        self._pending: dict[Future[Any], Any] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future of a call on the cluster; its exception is the call's own."""
        if self._stored is None or self._stored[0] is not fn:
            self._stored = (fn, ray.put(fn))
        reference = self._task.remote(self._stored[1], args, kwargs)
        future: Future[Any] = Future()
        self._pending[future] = reference
        reference.future().add_done_callback(lambda done: self._finish(future, done))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End; `cancel_futures` also ends calls that run already."""
        pending = list(self._pending.items())
        if cancel_futures:
            for future, reference in pending:
                if future.cancel():
                    ray.cancel(reference)
        elif wait:
            for future, _ in pending:
                future.exception()

    def _finish(self, future: Future[Any], done: Future[Any]) -> None:
        self._pending.pop(future, None)
        if not future.set_running_or_notify_cancel():
            return
        error = done.exception()
        if error is None:
            future.set_result(done.result())
        elif getattr(error, "cause", None) is not None:
            future.set_exception(error.cause)  # type: ignore[attr-defined]
        else:
            future.set_exception(_lost(error))


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


def _lost(error: BaseException) -> ClusterError:
    return ClusterError(
        f"A piece of the work was lost {RETRIES + 1} times: {error} What was finished before is "
        "kept: the same command goes on. If a host ran out of memory while forecasting, lower "
        "forecast.batch_size."
    )
