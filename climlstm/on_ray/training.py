"""The same training loop under Ray Train.

Ray starts the workers, joins them in a process group and restarts them from the last checkpoint
when one is lost. Nothing of it is called inside a training step.
"""

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import yaml

from climlstm import errors
from climlstm.config import Config, dump_config, parse_config, used_plugins
from climlstm.errors import ClimLSTMError, DataError, StorageError, TrainingError, missing_extra
from climlstm.on_ray import cluster
from climlstm.on_ray.metrics import gauges
from climlstm.on_ray.private import expire_claims, is_host_going
from climlstm.on_ray.stopping import pending, received, run_until_stopped
from climlstm.plugins import Plugin
from climlstm.training.group import join_group, leave_group
from climlstm.training.loop import STOPPED, prepare_training, stopped_as_asked
from climlstm.training.parallel import workers
from climlstm.training.progress import Observe, following
from climlstm.training.storage import ObjectStorage, RunStorage, opened_run

# Read by Ray when it is imported: how often the controller looks after the workers.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
# How long a group waits for room that was there a moment ago, before it is made smaller.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")

try:
    import ray
    import ray.train
    from pyarrow.fs import FSSpecHandler, PyFileSystem
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig, TorchTrainer
except ImportError as error:
    raise missing_extra("Training under Ray", "ray", error) from error

expire_claims(seconds=20)  # here, because the controller imports this module, too

HOST_GOES = "a host is to go"
"""Reason for which a training ends early, to go on on other hosts."""

SECONDS_BETWEEN_RESIZES = 30.0
"""Pause between two looks whether hosts have joined, in a run with a range of workers."""

SECONDS_TO_LEAVE = 5.0
"""Timeout for workers to leave their process group; one that hangs never does."""

logger = logging.getLogger(__name__)


def train_on_ray(
    config: Config, *, address: str | None = None, observe: Observe | None = None
) -> None:
    """Train with the workers that the run file asks for, from the run's last checkpoint on.

    Ray restarts workers that are lost. Two things are done here instead: to start a group anew
    whose processes could not find each other, because one was lost just then, and to start it
    elsewhere when a host is to go.

    address: of a running cluster ('auto', or 'host:port'); None: a local Ray, for this run only.
    observe: is shown the first worker's records as they are made.
    Raises what `train` raises, and TrainingError where workers are lost more often than
    `cluster.max_failures`.
    """
    gpus = _range(config)[0] if config.cluster.gpu else 0
    with opened_run(config) as storage, cluster.connected(address, gpus=gpus) as hosts:
        scaling = _scaling(config, hosts, may_grow=address is not None)
        each: Any = scaling.resources_per_worker
        cluster.warn_if_busy(each, _range(config)[0])
        if address is not None or len(hosts) > 1:
            cluster.check_hosts(used_plugins(config))
        interval_s = 5.0 if isinstance(storage, ObjectStorage) else 0.5
        with following(storage.journal, observe or (lambda record: None), interval_s=interval_s):
            _fit_to_the_end(config, scaling, storage)


def _fit_to_the_end(config: Config, scaling: ray.train.ScalingConfig, storage: RunStorage) -> None:
    failures_left = config.cluster.max_failures
    while True:
        try:
            ending = _fit(config, scaling, storage)
        except ray.train.WorkerGroupError as failure:
            raise _explained(failure) from failure
        except ray.train.ControllerError as failure:
            if not failures_left:
                raise _given_up(config, failure) from failure
            failures_left -= 1
            logger.warning("starting the workers anew, %d tries left: %s", failures_left, failure)
            continue
        if "error" in ending:
            raise getattr(errors, ending["error"])(ending["message"])
        if ending["reason"] == STOPPED:
            raise stopped_as_asked(storage)
        if ending["reason"] != HOST_GOES:
            return
        logger.warning("a host is to go: the training goes on elsewhere")


def _fit(config: Config, scaling: ray.train.ScalingConfig, storage: RunStorage) -> dict[str, str]:
    """Let the workers train, and return why they ended, or what the user must put right."""
    timeout_s = int(config.cluster.timeout.total_seconds())
    # Ray reads it where it starts the controller: a worker that does not even answer is lost, too.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(timeout_s)
    with pending() as request:
        trainer = TorchTrainer(
            _train_worker,  # type: ignore[arg-type]
            train_loop_config={
                "config": dump_config(config),
                "used": used_plugins(config),
                "gpu": config.cluster.gpu,
                "stop": request,
            },
            torch_config=GroupConfig(timeout_s=timeout_s),
            scaling_config=scaling,
            run_config=_run_config(config, storage),
        )
        return run_until_stopped(trainer.fit, request).return_value  # type: ignore[attr-defined]


class _Group(Backend):
    """Joins the workers in a process group, if there are several, as `join_group` does.

    Ray's own backend opens torch's store on all interfaces, for a single worker, too.
    """

    share_cuda_visible_devices = True  # as in Ray's own: LOCAL_RANK chooses among a host's GPUs

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        address, port = worker_group.execute_single(0, _address_and_port)
        timeout = timedelta(seconds=backend_config.timeout_s)
        gpu = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        worker_group.execute(_join, address=address, port=port, gpu=gpu, timeout=timeout)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        with suppress(ray.exceptions.GetTimeoutError):
            ray.get(worker_group.execute_async(leave_group), timeout=SECONDS_TO_LEAVE)


@dataclass
class GroupConfig(TorchConfig):
    """Ray's settings for torch, with a process group of our own."""

    @property
    def backend_cls(self) -> type:
        return _Group


def _address_and_port() -> tuple[str, int]:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), probe.getsockname()[1]


def _join(address: str, port: int, *, gpu: bool, timeout: timedelta) -> None:
    """Set the environment that torchrun would set, and start the process group."""
    worker = ray.train.get_context()
    os.environ |= {
        "LOCAL_RANK": str(worker.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(worker.get_local_world_size()),
        "RANK": str(worker.get_world_rank()),
        "WORLD_SIZE": str(worker.get_world_size()),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }
    if worker.get_world_size() > 1:
        join_group(gpu=gpu, address=ray.util.get_node_ip_address(), timeout=timeout)


def _train_worker(settings: dict[str, Any]) -> dict[str, str]:
    """Train in one worker; Ray has already joined it with the others in a process group.

    An error that the user must put right is returned: raised, it would be tried again in vain.
    """
    with ExitStack() as stack:
        try:
            _check_alike(settings["used"], gpu=settings["gpu"])
            config = parse_config(yaml.safe_load(settings["config"]), where="run file")
            storage = stack.enter_context(opened_run(config))
            training = stack.enter_context(
                prepare_training(
                    config,
                    storage,
                    resume_from=storage.latest(),
                    observe=gauges(config.name),
                    leave=lambda: HOST_GOES if is_host_going() else None,
                )
            )
        except ClimLSTMError as error:
            return _refusal(error)
        stop = stack.enter_context(received(settings["stop"]))
        try:
            return {"reason": training.run(stop)}
        except (StorageError, TrainingError) as error:  # all workers have agreed on it
            return _refusal(error)
        except DataError as error:
            if training.group.world > 1:  # Ray has to end the others
                raise
            return _refusal(error)


def _check_alike(used: Sequence[Plugin], *, gpu: bool) -> None:
    """Raises PluginError, on every worker, unless all their hosts have the plugins of the run.

    A host may have joined after the driver has asked all others.
    """
    with workers(gpu=gpu) as group:
        brought = group.exchange((socket.gethostname(), cluster.differences(used)))
    wrong = [f"{host}: {message}" for host, found in brought for message in found]
    cluster.refuse_if(list(dict.fromkeys(wrong)))  # once for each host


def _refusal(error: ClimLSTMError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


def _range(config: Config) -> tuple[int, int]:
    """Fewest and most workers of a run."""
    wanted = config.cluster.workers
    return (wanted, wanted) if isinstance(wanted, int) else wanted


def require_room(config: Config, hosts: Sequence[cluster.Host], *, may_grow: bool) -> None:
    """Raises ConfigError where the hosts have no room for the workers of a run.

    may_grow: whether hosts may join, so that workers for which there is no room yet can wait.
    """
    gpu, (fewest, _) = config.cluster.gpu, _range(config)
    cluster.check_room(
        hosts,
        {"GPU" if gpu else "CPU": 1},
        fewest,
        asked=f"cluster.workers is {fewest}" + (" and cluster.gpu true" if gpu else ""),
        may_grow=may_grow,
    )


def _scaling(
    config: Config, hosts: Sequence[cluster.Host], *, may_grow: bool
) -> ray.train.ScalingConfig:
    """Workers, each with its GPU or its share of the CPUs; `may_grow` as for `require_room`."""
    require_room(config, hosts, may_grow=may_grow)
    gpu, (_, most) = config.cluster.gpu, _range(config)
    cpus = [int(host.get("CPU", 0)) for host in hosts]
    return ray.train.ScalingConfig(
        num_workers=config.cluster.workers,  # type: ignore[arg-type]
        use_gpu=gpu,
        resources_per_worker={"GPU": 1} if gpu else {"CPU": cpu_share(cpus, most)},
        elastic_resize_monitor_interval_s=SECONDS_BETWEEN_RESIZES,  # type: ignore[call-arg]
    )


def cpu_share(cpus: list[int], workers: int) -> int:
    """Most CPUs that each worker can have, where none may straddle two hosts; at least 1.

    cpus: of each host.
    """
    shares = range(max(cpus, default=1), 0, -1)
    return next((s for s in shares if sum(c // s for c in cpus) >= workers), 1)


def _run_config(config: Config, storage: RunStorage) -> ray.train.RunConfig:
    """Checkpoints are kept by the loop itself, with which one process and torchrun have them, too.

    Ray only tests at the start, with a file in the run's folder, that each worker sees the storage.
    """
    files, path = None, str(storage.folder.resolve().parent)
    if isinstance(storage, ObjectStorage):
        files = PyFileSystem(FSSpecHandler(storage.files))
        path = storage.root.rpartition("/")[0]
    return ray.train.RunConfig(
        name=config.name,
        storage_path=path,
        storage_filesystem=files,
        failure_config=ray.train.FailureConfig(max_failures=config.cluster.max_failures),
        logging_config=ray.train.LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]
    )


def _explained(failure: "ray.train.WorkerGroupError") -> ClimLSTMError:
    """The error of the first worker that failed, if it is one that the user can put right."""
    for rank, error in sorted(failure.worker_failures.items()):
        cause = getattr(error, "cause", error)
        if isinstance(cause, ClimLSTMError):
            return cause
        logger.error("worker %d: %s", rank, error)
    return TrainingError(f"The training failed on Ray: {failure}")


def _given_up(config: Config, failure: "ray.train.ControllerError") -> TrainingError:
    return TrainingError(
        f"The workers could not be started {config.cluster.max_failures + 1} times (cluster."
        f"max_failures is {config.cluster.max_failures}): {failure} Check that the hosts reach "
        "each other on all ports, then go on with --resume."
    )
