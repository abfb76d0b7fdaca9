"""A sweep over keys of a run file: its trials and their results.

Each trial is a run of its own in the folder of the sweep: `RUN-tune/trial-007`, with checkpoints
and records like any other. on_ray/tuning.py starts and stops them.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from climlstm.config import Config, SearchRange, TuneConfig, dump_config, parse_config
from climlstm.errors import ConfigError, TrainingError
from climlstm.files import write_text
from climlstm.training.progress import JOURNAL, read_journal

Values = dict[str, Any]
"""Values by key of the run file, such as `training.learning_rate`."""

INCOMPARABLE = (
    "name",
    "data",
    "forecast",
    "evaluation",
    "cluster",
    "tune",
    "training.loss",
    "training.balance",
    "training.horizon",
    "training.validation_windows",
)
"""Keys with which a validation loss would mean another thing, or nothing would change."""

FAILED = "failed"
"""File in a trial's folder that says why it cannot go on."""


@dataclass(frozen=True)
class Sweep:
    """The results of a sweep."""

    trials: pd.DataFrame
    """Best first: `trial`, a column for each key, `valid_loss` (the lowest), `validations`,
    `step`, `state` ('finished', 'stopped' early, or why it failed)."""
    curves: pd.DataFrame
    """`trial`, `validation` (counted from 1), `valid_loss`."""
    best: Path
    """A run file with the best values."""
    keys: list[str]

    def rows(self) -> list[list[Any]]:
        """Rows of the table of trials, as plain values."""
        return [list(row) for row in self.trials.itertuples(index=False, name=None)]


def sweep_folder(config: Config) -> Path:
    """The folder of a sweep. Raises ConfigError where runs are kept in an object store."""
    if "://" in config.cluster.storage:
        raise ConfigError(
            f"cluster.storage is {config.cluster.storage}, but a sweep is kept in a folder. Name "
            "one that all hosts share."
        )
    return Path(config.cluster.storage).resolve() / f"{config.name}-tune"


def space_of(config: Config) -> TuneConfig:
    """The section `tune`, after a look at every key and value.

    Raises ConfigError where it is missing, or a trial would not be a valid run.
    """
    if config.tune is None:
        raise ConfigError(
            f"The run '{config.name}' has no section 'tune', so there is nothing to try. "
            "For example: tune: {keys: {training.learning_rate: {low: 1.0e-4, high: 1.0e-2, "
            "scale: log}}}"
        )
    for key, space in config.tune.keys.items():
        if any(key == other or key.startswith(f"{other}.") for other in INCOMPARABLE):
            raise ConfigError(
                f"tune.keys: '{key}' cannot be tuned, because validation losses of its values "
                "cannot be compared, or do not depend on it. Tune keys of 'model' and 'training'."
            )
        for value in (space.low, space.high) if isinstance(space, SearchRange) else space:
            with_values(config, {key: value})
    return config.tune


def is_grid(space: TuneConfig) -> bool:
    """Whether all combinations of lists are tried, because they are no more than the trials."""
    lists = [s for s in space.keys.values() if not isinstance(s, SearchRange)]
    return len(lists) == len(space.keys) and math.prod(map(len, lists)) <= space.trials


def with_values(config: Config, values: Values) -> Config:
    """The run of a trial. Raises ConfigError where the values do not make one."""
    content = config.model_dump(mode="json", exclude={"tune"})
    for key, value in values.items():
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else {}
        place[last] = value
    said = ", ".join(f"{key}={value}" for key, value in values.items())
    return parse_config(content, where=f"trial with {said}")


def trial_run(config: Config, values: Values, number: int) -> Config:
    """The run of a trial, in its place within the sweep, by one process."""
    run = with_values(config, values)
    cluster = run.cluster.model_copy(update={"storage": str(sweep_folder(config)), "workers": 1})
    return run.model_copy(update={"name": f"trial-{number:03d}", "cluster": cluster})


def validations(folder: Path) -> list[dict[str, Any]]:
    """Records of the validations of a trial, in order of time."""
    return [r for r in read_journal(folder / JOURNAL) if r["event"] == "valid"]


def read_sweep(config: Config, trials: dict[int, Values]) -> Sweep:
    """The trials of a sweep, by their numbers, as their folders tell.

    Raises TrainingError where all of them failed.
    """
    folder = sweep_folder(config)
    rows, curves = [], []
    for number, values in sorted(trials.items()):
        place = folder / f"trial-{number:03d}"
        journal = read_journal(place / JOURNAL)
        losses = [r["valid_loss"] for r in journal if r["event"] == "valid"]
        ended = bool(journal) and journal[-1]["event"] == "end"
        failed = place / FAILED
        rows.append(
            {
                "trial": number,
                **{key: _plain(value) for key, value in values.items()},
                "valid_loss": min(losses, default=math.nan),
                "validations": len(losses),
                "step": journal[-1]["step"] if journal else 0,
                "state": failed.read_text(encoding="utf-8")
                if failed.exists()
                else ("finished" if ended else "stopped"),
            }
        )
        curves += [
            {"trial": number, "validation": n, "valid_loss": loss}
            for n, loss in enumerate(losses, start=1)
        ]
    table = pd.DataFrame(rows).sort_values("valid_loss", ignore_index=True)
    if table["valid_loss"].isna().all():
        raise TrainingError(
            f"None of the {len(table)} trials in {folder} came to a validation. The first: "
            f"{table['state'].iloc[0]}"
        )
    best = folder / "best.yaml"
    chosen = with_values(config, trials[int(table["trial"].iloc[0])])
    write_text(best, dump_config(chosen))
    return Sweep(
        trials=table,
        curves=pd.DataFrame(curves),
        best=best,
        keys=[*config.tune.keys] if config.tune else [],
    )


def write_sweep(sweep: Sweep) -> list[Path]:
    """The table of trials and their curves as CSV, beside the best run file."""
    folder = sweep.best.parent
    paths = [folder / "trials.csv", folder / "curves.csv"]
    for path, table in zip(paths, (sweep.trials, sweep.curves), strict=True):
        write_text(path, table.to_csv(index=False))
    return paths


def _plain(value: Any) -> Any:
    """A value as it stands in a table."""
    return value if isinstance(value, int | float | str) else str(value)
