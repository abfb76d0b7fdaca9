"""The same training loop under Ray Train.

Ray starts the workers, joins them in a process group and restarts them from the last checkpoint
when one is lost. Nothing of it is called inside a training step.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from climlstm import errors
from climlstm.config import Config, dump_config, parse_config
from climlstm.errors import ClimLSTMError, ConfigError, TrainingError, missing_extra
from climlstm.ray_cluster import connected
from climlstm.training import checkpoint
from climlstm.training.checkpoint import Position
from climlstm.training.loop import prepare_training, run_folder
from climlstm.training.progress import JOURNAL, Observe, following

# Read by Ray when it is imported: by default a report waits up to 2 s for the controller to look.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
# By default a group that waits for a host that is gone tries for 60 s before it is made smaller.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")

try:
    import ray
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
except ImportError as error:
    raise missing_extra("Training under Ray", "ray", error) from error

SECONDS_BETWEEN_RESIZES = 30.0
"""After which a run with a range of workers looks whether hosts have joined."""

logger = logging.getLogger(__name__)


def train_on_ray(
    config: Config,
    *,
    resume_from: Path | None = None,
    address: str | None = None,
    observe: Observe | None = None,
) -> None:
    """Train with the workers that the run file asks for.

    Ray restarts workers that are lost, but not a group whose processes cannot find each other
    because one was lost just then; that is done here, and Ray then goes on from its last
    checkpoint of this run name.

    resume_from: a checkpoint of the same run.
    address: of a running cluster ('auto', or 'host:port'); None: a local Ray, for this run only.
    observe: is shown the first worker's records as they are made, where the run's folder can be
       read from here.
    Raises what `train` raises, and TrainingError where workers are lost more often than
    `cluster.max_failures`.
    """
    with (
        connected(address) as cpus,
        following(run_folder(config) / JOURNAL, observe or (lambda record: None)),
    ):
        scaling = _scaling(config, cpus, may_grow=address is not None)
        for failures_left in reversed(range(config.cluster.max_failures + 1)):
            try:
                refusal = _fit(config, scaling, resume_from)
                break
            except ray.train.WorkerGroupError as failure:
                raise _explained(failure) from failure
            except ray.train.ControllerError as failure:
                if not failures_left:
                    raise _given_up(config, failure) from failure
                logger.warning(
                    "starting the workers anew, %d tries left: %s", failures_left, failure
                )
    if refusal is not None:
        raise getattr(errors, refusal["error"])(refusal["message"])


def _fit(
    config: Config, scaling: ray.train.ScalingConfig, resume_from: Path | None
) -> dict[str, str] | None:
    """Let the workers train, and return what the user must put right, if anything."""
    trainer = TorchTrainer(
        _train_worker,  # type: ignore[arg-type]
        train_loop_config={
            "config": dump_config(config),
            "resume_from": str(resume_from) if resume_from else None,
        },
        torch_config=PinnedTorchConfig(timeout_s=int(config.cluster.timeout.total_seconds())),
        scaling_config=scaling,
        run_config=_run_config(config),
    )
    return trainer.fit().return_value  # type: ignore[attr-defined]


class _PinnedBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_pin_interface)
        super().on_start(worker_group, backend_config)


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


def _train_worker(settings: dict[str, Any]) -> dict[str, str] | None:
    """What each worker does; Ray has already joined them in a process group.

    What the user must put right is returned: raised, it would be tried again in vain.
    """
    config = parse_config(yaml.safe_load(settings["config"]), where="run file")
    with ExitStack() as stack:
        try:
            directory = stack.enter_context(_resume_point(settings["resume_from"]))
            training = stack.enter_context(
                prepare_training(config, report=_report, resume_from=directory)
            )
        except ClimLSTMError as error:
            return {"error": type(error).__name__, "message": str(error)}
        training.run()
    return None


@contextmanager
def _resume_point(given: str | None) -> Iterator[Path | None]:
    """Ray's last checkpoint after a restart, or the one given at the start, whichever is later."""
    latest = ray.train.get_checkpoint()
    start = Path(given) if given else None
    if latest is None:
        yield start
        return
    with latest.as_directory() as folder:
        directory = Path(folder)
        if start and _step(start) > _step(directory):
            directory = start
        yield directory


def _step(directory: Path) -> int:
    return checkpoint.read_standing(directory).position.step


def _report(metrics: dict[str, Any], directory: Path | None) -> None:
    ray.train.report(
        metrics,
        checkpoint=ray.train.Checkpoint.from_directory(directory) if directory else None,
        checkpoint_dir_name=checkpoint.name_of(Position(step=metrics["step"])),
    )


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


def _run_config(config: Config) -> ray.train.RunConfig:
    storage = config.cluster.storage
    return ray.train.RunConfig(
        name=config.name,
        storage_path=storage if "://" in storage else str(Path(storage).resolve()),
        failure_config=ray.train.FailureConfig(max_failures=config.cluster.max_failures),
        checkpoint_config=ray.train.CheckpointConfig(
            num_to_keep=config.training.keep,
            checkpoint_score_attribute="valid_loss",
            checkpoint_score_order="min",
        ),
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
