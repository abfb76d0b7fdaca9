"""Records of a run for other tools: TensorBoard, MLflow.

`metrics.jsonl` is always written and is the truth; these are views of it.
"""

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from climlstm.config import Config
from climlstm.errors import ConfigError, missing_extra
from climlstm.files import write_text
from climlstm.training.progress import Observe, Record

MLFLOW_RUN = "mlflow-run"
"""File in a run's folder with the id that MLflow gave it, so that a resumed run goes on there."""

logger = logging.getLogger(__name__)


def trackers(config: Config, folder: Path, location: str, *, step: int) -> list[Observe]:
    """Observers of a run that write to the tools that its run file names.

    folder: of the run, on this host; location: of the run, a path or a URL.
    step: from which the run goes on; records of later steps are dropped.
    Raises MissingExtraError where such a tool is not installed.
    """
    require_tools(config)
    makers: dict[str, Callable[[], Observe]] = {
        "tensorboard": lambda: _tensorboard(f"{location}/tensorboard", step),
        "mlflow": lambda: _mlflow(config, folder),
    }
    return [makers[name]() for name in config.training.track]


def require_tools(config: Config) -> None:
    """Raises MissingExtraError unless the tools that `training.track` names are installed."""
    modules = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow"}
    for tool in config.training.track:
        try:
            importlib.import_module(modules[tool])
        except ImportError as error:
            raise missing_extra(f"Writing records for {tool}", tool, error) from error


def scalars(record: Record) -> Iterator[tuple[str, float]]:
    """The numbers of a record that make curves, by names such as `valid/skill_persistence/6h`."""
    event = record["event"]
    if event not in ("train", "valid"):
        return
    left_out = {"event", "time", "step", "epoch", "epochs", "steps", "best"}
    for name, value in record.items():
        if name in left_out:
            continue
        name = name.removeprefix("valid_")
        if isinstance(value, dict):
            yield from ((f"{event}/{name}/{key}", float(v)) for key, v in value.items())
        elif isinstance(value, int | float):
            yield f"{event}/{name}", float(value)


def _tensorboard(place: str, step: int) -> Observe:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(place, purge_step=step + 1 if step else None)

    def observe(record: Record) -> None:
        for name, value in scalars(record):
            writer.add_scalar(name, value, record["step"], walltime=record["time"])
        if record["event"] == "end":
            writer.close()
        elif record["event"] == "valid":
            writer.flush()

    return observe


def _mlflow(config: Config, folder: Path) -> Observe:
    """One run of MLflow, under the experiment `climlstm`, unless MLFLOW_EXPERIMENT_NAME says else.

    MLFLOW_TRACKING_URI says where. A server that does not answer costs the curves, not the run.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    try:
        client = MlflowClient()
        run = _mlflow_run(client, config, folder / MLFLOW_RUN)
    except Exception as error:  # each store and server has its own
        raise ConfigError(
            f"training.track: MLflow cannot be used: {error}. Set MLFLOW_TRACKING_URI to your "
            "server, or take 'mlflow' out of the list."
        ) from error

    def observe(record: Record) -> None:
        moment = int(1000 * record["time"])
        metrics = [Metric(n, v, moment, record["step"]) for n, v in scalars(record)]
        try:
            if metrics:
                client.log_batch(run, metrics=metrics)
            if record["event"] == "end":
                client.set_terminated(run, "FINISHED")
        except Exception as error:  # each store and server has its own
            logger.warning("MLflow does not take the records of step %d: %s", record["step"], error)

    return observe


def _mlflow_run(client: Any, config: Config, known: Path) -> str:
    """The id of the run in MLflow; a new one, unless it goes on."""
    from mlflow.entities import Param

    if known.exists():
        run = known.read_text(encoding="utf-8").strip()
        client.set_terminated(run, "RUNNING")
        return run
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "climlstm")
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    run = str(client.create_run(experiment, run_name=config.name).info.run_id)
    params = [Param(key, str(value)[:6000]) for key, value in _flat(config.model_dump())]
    for first in range(0, len(params), 100):  # MLflow takes so many at once
        client.log_batch(run, params=params[first : first + 100])
    write_text(known, run)
    return run


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`training.learning_rate` and its value, for everything in a run file."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
