"""The same training loop under Ray Train. The only room with Ray.

Ray starts the workers, joins them in a process group and restarts them from the last checkpoint
when one is lost. Nothing of it is called inside a training step.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from climlstm import errors
from climlstm.config import Config, dump_config, parse_config
from climlstm.errors import ClimLSTMError, ConfigError, TrainingError, missing_extra
from climlstm.training import checkpoint
from climlstm.training.checkpoint import Position
from climlstm.training.loop import prepare_training, run_folder
from climlstm.training.progress import JOURNAL, Observe, following

# Read by Ray when it is imported: by default a report waits up to 2 s for the controller to look.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default

try:
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer
except ImportError as error:
    raise missing_extra("Training under Ray", "ray", error) from error

REACH_SECONDS = 10.0
"""After which a head that does not answer counts as absent."""

logger = logging.getLogger(__name__)


def train_on_ray(
    config: Config,
    *,
    resume_from: Path | None = None,
    address: str | None = None,
    observe: Observe | None = None,
) -> None:
    """Train with the workers that the run file asks for.

    resume_from: a checkpoint of the same run.
    address: of a running cluster ('auto', or 'host:port'); None: a local Ray, for this run only.
    observe: is shown the first worker's records as they are made, where the run's folder can be
       read from here.
    Raises what `train` raises, and TrainingError where workers are lost more often than
    `cluster.max_failures`.
    """
    with _connected(address) as cpus:
        trainer = TorchTrainer(
            _train_worker,  # type: ignore[arg-type]
            train_loop_config={
                "config": dump_config(config),
                "resume_from": str(resume_from) if resume_from else None,
            },
            scaling_config=_scaling(config, cpus),
            run_config=_run_config(config),
        )
        with following(run_folder(config) / JOURNAL, observe or (lambda record: None)):
            try:
                refusal = trainer.fit().return_value  # type: ignore[attr-defined]
            except ray.train.WorkerGroupError as failure:
                raise _explained(failure) from failure
        if refusal is not None:
            raise getattr(errors, refusal["error"])(refusal["message"])


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


@contextmanager
def _connected(address: str | None) -> Iterator[int]:
    """Ray for the duration of a run; yields how many CPUs it has. One that runs already is used."""
    if ray.is_initialized():
        yield int(ray.cluster_resources().get("CPU", 1))
        return
    local: dict[str, Any] = {
        "address": "local",
        "num_cpus": len(os.sched_getaffinity(0)),
        "include_dashboard": False,
        "object_store_memory": 100_000_000,  # bytes; the loop puts nothing there
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
            "or leave --address out to train on this machine."
        ) from error
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()


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
            "or leave --address out to train on this machine."
        ) from error


def _scaling(config: Config, cpus: int) -> ray.train.ScalingConfig:
    """Workers, each with its GPU or its share of the CPUs."""
    workers = config.cluster.workers
    if config.cluster.gpu:
        return ray.train.ScalingConfig(num_workers=workers, use_gpu=True)
    if workers > cpus:
        raise ConfigError(
            f"cluster.workers is {workers}, but Ray has {cpus} CPUs and each worker needs one. "
            "Use fewer workers, or a larger cluster."
        )
    return ray.train.ScalingConfig(
        num_workers=workers, resources_per_worker={"CPU": cpus // workers}
    )


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
