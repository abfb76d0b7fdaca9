"""Trials of a sweep under Ray Tune, the hopeless ones stopped early.

ASHA (Li et al. 2020, arXiv:1810.05934): rungs lie at `grace` validations, `grace * reduction`, and
so on. At each, a trial goes on only if it is among the best 1 / `reduction` that have reached it.

A trial is one process with one CPU or GPU, and not a Ray Train run of its own, which would need a
second placement group: Ray frees that late or, without a dashboard, never, and the sweep hangs.
Results do not depend on the number of workers. Trials keep their own checkpoints; Tune only starts
and stops them.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from climlstm.config import Config, SearchRange, TuneConfig, dump_config, parse_config
from climlstm.errors import ClimLSTMError, ConfigError, missing_extra
from climlstm.files import write_text
from climlstm.on_ray.cluster import check_room, connected
from climlstm.training.loop import run_training
from climlstm.training.progress import Record, following
from climlstm.training.storage import opened_run
from climlstm.training.tuning import (
    FAILED,
    Sweep,
    Values,
    is_grid,
    read_sweep,
    space_of,
    sweep_folder,
    trial_run,
    validations,
)

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # trials keep their own records
# Seconds between the snapshots from which a killed sweep goes on; else they are ten or more.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")

try:
    from ray import tune
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search import BasicVariantGenerator
except ImportError as error:
    raise missing_extra("Tuning", "ray", error) from error

MAX_VALIDATIONS = 10**6
"""ASHA's last rung, out of reach: the run file says how long a trial is."""

SECONDS_BETWEEN_LOOKS = 2.0

logger = logging.getLogger(__name__)


class RememberingASHA(AsyncHyperBandScheduler):
    """ASHA that knows the results of ended trials in a resumed sweep.

    Tune restores trials, but not the state of schedulers (2.60).
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(**settings)
        self._folder = folder

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take in a new trial, or a restored one with its results."""
        super().on_trial_add(tune_controller, trial)
        if trial.status == Trial.TERMINATED:
            for result in _results(self._folder / _name(_index(trial.trial_id))):
                self.on_trial_result(tune_controller, trial, result)


def tune_on_ray(
    config: Config,
    *,
    resume: bool = False,
    address: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Sweep:
    """Try the values that the section `tune` of a run file names.

    resume: go on with a sweep that was broken off; trials that had begun go on from their last
        checkpoints.
    address: of a running cluster ('auto', or 'host:port'); None: this machine.
    say: called with a line for each validation.
    Raises ConfigError where the section is missing or wrong, the sweep exists and is not to be
    resumed, or a trial finds no room on this machine; TrainingError where every trial failed.
    """
    space = space_of(config)
    folder = sweep_folder(config)
    state = folder / "ray"
    if state.exists() and not resume:
        raise ConfigError(
            f"There is a sweep in {folder} already. Go on with --resume, or give the run another "
            "name."
        )
    folder.mkdir(parents=True, exist_ok=True)
    each = _resources(config)
    asked = "cluster.gpu is true" if "GPU" in each else f"training.threads is {each['CPU']:g}"

    def read() -> list[Record]:
        return [
            {"trial": place.name, "number": number, "loss": record["valid_loss"]}
            for place in sorted(folder.glob("trial-*"))
            for number, record in enumerate(validations(place), start=1)
        ]

    def observe(record: Record) -> None:
        say("{trial}  validation {number}: loss {loss:.4f}".format(**record))

    with (
        connected(address, gpus=int(each.get("GPU", 0))) as hosts,
        following(read, observe, interval_s=SECONDS_BETWEEN_LOOKS),
    ):
        check_room(hosts, each, 1, asked=asked, may_grow=address is not None)
        if tune.Tuner.can_restore(str(state)):
            tuner = tune.Tuner.restore(
                str(state), trainable=_trial, resume_unfinished=True, resume_errored=True
            )
        else:
            tuner = _new(config, space, folder)
        found = tuner.fit()
    results = [found[number] for number in range(len(found))]
    trials = {_number(result.path): (result.config or {})["values"] for result in results}
    for error in found.errors:
        logger.error("a trial was lost: %s", error)
    return read_sweep(config, trials)


def _new(config: Config, space: TuneConfig, folder: Path) -> tune.Tuner:
    grid = is_grid(space)
    values = {key: _domain(domain, grid=grid) for key, domain in space.keys.items()}
    return tune.Tuner(
        tune.with_resources(_trial, {k.lower(): n for k, n in _resources(config).items()}),
        param_space={"run": dump_config(config), "values": values},
        tune_config=tune.TuneConfig(
            num_samples=1 if grid else space.trials,
            metric="valid_loss",
            mode="min",
            scheduler=RememberingASHA(
                folder,
                time_attr="validations",
                max_t=MAX_VALIDATIONS,
                grace_period=space.grace,
                reduction_factor=space.reduction,
            ),
            search_alg=BasicVariantGenerator(
                random_state=config.training.seed, max_concurrent=space.concurrent or 0
            ),
            trial_dirname_creator=lambda trial: _name(_index(trial.trial_id)),
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=config.cluster.max_failures),
        ),
    )


def _resources(config: Config) -> dict[str, float]:
    """Resources of one trial."""
    return {"GPU": 1.0} if config.cluster.gpu else {"CPU": float(config.training.threads or 1)}


def _domain(space: SearchRange | tuple[Any, ...], *, grid: bool) -> Any:
    """Tune's distribution or grid for the values of a key."""
    if not isinstance(space, SearchRange):
        return tune.grid_search(list(space)) if grid else tune.choice(list(space))
    if isinstance(space.low, int) and isinstance(space.high, int):
        draw = tune.lograndint if space.scale == "log" else tune.randint
        return draw(space.low, space.high + 1)
    draw = tune.loguniform if space.scale == "log" else tune.uniform
    return draw(space.low, space.high)


def _trial(settings: dict[str, Any]) -> None:
    """Train with the values of one trial, from its last checkpoint on, if there is one.

    An error that the user must put right is written to a file, and the trial ends.
    """
    sweep = parse_config(yaml.safe_load(settings["run"]), where="run file")
    number = _index(tune.get_context().get_trial_id())
    values: Values = settings["values"]
    config = trial_run(sweep, values, number)
    folder = sweep_folder(sweep) / config.name
    told = 0

    def report(metrics: dict[str, Any]) -> None:
        """After each checkpoint; Tune may end the process here."""
        nonlocal told
        for result in _results(folder)[told:]:
            told += 1
            tune.report(result)

    try:
        report({})  # again in a resumed sweep: Tune saves only now and then
        with opened_run(config) as storage:
            latest = storage.latest()
        run_training(config, resume_from=latest, report=report)
    except ClimLSTMError as error:
        write_text(folder / FAILED, str(error))


def _results(folder: Path) -> list[dict[str, Any]]:
    """Validations of a trial, as Tune takes them."""
    return [
        {"valid_loss": record["valid_loss"], "validations": number}
        for number, record in enumerate(validations(folder), start=1)
    ]


def _name(number: int) -> str:
    """Name of a trial's folder."""
    return f"trial-{number:03d}"


def _index(trial_id: str) -> int:
    """Number of a trial, in which Tune's ids end."""
    return int(trial_id.rsplit("_", 1)[1])


def _number(path: str) -> int:
    return int(Path(path).name.rsplit("-", 1)[1])
