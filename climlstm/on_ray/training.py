"""The same training loop under Ray Train.

Ray starts the workers, joins them in a process group and restarts them from the last checkpoint
when one is lost. Nothing of it is called inside a training step.
"""

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psutil
import yaml

from climlstm import errors
from climlstm.config import Config, dump_config, parse_config, used_plugins
from climlstm.errors import (
    ClimLSTMError,
    ConfigError,
    DataError,
    StorageError,
    TrainingError,
    missing_extra,
)
from climlstm.on_ray.cluster import check_hosts, connected, differences, refuse_if
from climlstm.on_ray.metrics import gauges
from climlstm.on_ray.stopping import heard_wish, held_wish, run_until_stopped
from climlstm.plugins import Plugin
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
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2._internal.execution.context import get_train_context
    from ray.train.v2._internal.execution.scaling_policy import autoscaling_coordinator_client
except ImportError as error:
    raise missing_extra("Training under Ray", "ray", error) from error

# A driver that is killed outright leaves its controller's claim on places for workers, because of
# which the next one sees none free: Ray keeps a claim for 180 s and renews it every 20. The
# controller imports this module, too.
autoscaling_coordinator_client.AUTOSCALING_REQUESTS_EXPIRE_TIME_S = 20
autoscaling_coordinator_client.AUTOSCALING_REQUESTS_INTERVAL_S = 5

HOST_GOES = "a host is to go"
"""Why a training ends before its end, to go on elsewhere."""

SECONDS_BETWEEN_RESIZES = 30.0
"""After which a run with a range of workers looks whether hosts have joined."""

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
    with opened_run(config) as storage, connected(address) as cpus:
        if address is not None or len(cpus) > 1:
            check_hosts(used_plugins(config))
        interval_s = 5.0 if isinstance(storage, ObjectStorage) else 0.5
        with following(storage.journal, observe or (lambda record: None), interval_s=interval_s):
            scaling = _scaling(config, cpus, may_grow=address is not None)
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
    with held_wish() as wish:
        trainer = TorchTrainer(
            _train_worker,  # type: ignore[arg-type]
            train_loop_config={
                "config": dump_config(config),
                "used": used_plugins(config),
                "gpu": config.cluster.gpu,
                "wish": wish,
            },
            torch_config=PinnedTorchConfig(timeout_s=timeout_s),
            scaling_config=scaling,
            run_config=_run_config(config, storage),
        )
        return run_until_stopped(trainer.fit, wish).return_value  # type: ignore[attr-defined]


class _PinnedBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_pin_interface)
        super().on_start(worker_group, backend_config)

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        # A worker that hangs does not leave the group either; Ray would wait 30 s for it.
        os.environ.setdefault("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", "5")
        super().on_shutdown(worker_group, backend_config)


@dataclass
class PinnedTorchConfig(TorchConfig):
    """A process group over the network interfaces that carry the cluster itself.

    Left alone, gloo takes the address that the host's name resolves to, which may be 127.0.0.1,
    and NCCL the first interface. Names of interfaces differ between hosts, so each worker looks.
    """

    @property
    def backend_cls(self) -> type:
        return _PinnedBackend


def _pin_interface() -> None:
    """Tell gloo and NCCL, in this process, which interface has the address that Ray uses."""
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is None:
        logger.warning("no interface has Ray's address; gloo and NCCL choose one themselves")
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # '=': not each that begins so


def interface_of(address: str) -> str | None:
    """Name of the network interface of this host that has an IP address, if any has."""
    for name, addresses in psutil.net_if_addrs().items():
        if address in (a.address.partition("%")[0] for a in addresses):
            return name
    return None


def _train_worker(settings: dict[str, Any]) -> dict[str, str]:
    """What each worker does; Ray has already joined them in a process group.

    What the user must put right is returned: raised, it would be tried again in vain.
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
                    leave=_host_goes,
                )
            )
        except ClimLSTMError as error:
            return _refusal(error)
        stop = stack.enter_context(heard_wish(settings["wish"]))
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
        brought = group.exchange((socket.gethostname(), differences(used)))
    wrong = [f"{host}: {message}" for host, found in brought for message in found]
    refuse_if(list(dict.fromkeys(wrong)))  # once for each host


def _refusal(error: ClimLSTMError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


def _host_goes() -> str | None:
    """Why to end, where Ray has been told that a host of the workers is to go (a spot machine's).

    Ray's public `get_preemption_info` waits for all workers; our loop has them agree already.
    """
    goes = get_train_context().preemption_context.preemption_info
    return HOST_GOES if goes else None


def _scaling(config: Config, cpus: list[int], *, may_grow: bool) -> ray.train.ScalingConfig:
    """Workers, each with its GPU or its share of the CPUs.

    cpus: of each host.
    may_grow: whether hosts may join, so that workers for which there is no room yet can wait.
    """
    wanted = config.cluster.workers
    fewest, most = (wanted, wanted) if isinstance(wanted, int) else wanted
    if not config.cluster.gpu and fewest > sum(cpus):
        message = (
            f"cluster.workers is {fewest}, but Ray has {sum(cpus)} CPUs and each worker needs one."
        )
        if not may_grow:
            raise ConfigError(f"{message} Use fewer workers, or a larger cluster.")
        logger.warning("%s Waiting for hosts to join.", message)
    each = {"GPU": 1} if config.cluster.gpu else {"CPU": cpu_share(cpus, most)}
    return ray.train.ScalingConfig(
        num_workers=wanted,  # type: ignore[arg-type]
        use_gpu=config.cluster.gpu,
        resources_per_worker=each,
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
