"""Niño3.4 up to a year ahead: ConvLSTM beside persistence and a linear inverse model.

Anomalies of the tropical Pacific, 1970-2003 (NOAA; ../shared/data/real). Networks are trained until
1985 and chosen on 1986-1990; 1991-2003 is scored once.

    CLIMLSTM_REAL_DATA=FOLDER python benchmarks/enso.py baselines
    CLIMLSTM_REAL_DATA=FOLDER python benchmarks/enso.py choose [--only NAME ...]
    CLIMLSTM_REAL_DATA=FOLDER python benchmarks/enso.py score [--only NAME] [--seeds 3]
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from climlstm_climate.enso import ENSO
from rich.console import Console
from rich.table import Table

from climlstm import runs
from climlstm.config import Config, load_config
from climlstm.data.forecasts import open_forecasts
from climlstm.data.run_data import RunData
from climlstm.evaluation.baselines import Damped, Linear, Persistence
from climlstm.evaluation.evaluate import evaluate

FILE = "pacific_sst_monthly_1970_2003/pacific_sst_anomaly.nc"
LEADS = [1, 3, 6, 9, 12]
PERIODS = {
    "train": ["1970-01-01", "1985-12-31"],
    "valid": ["1986-01-01", "1990-12-31"],
    "test": ["1991-01-01", "2003-03-31"],
}
KNOWN = {
    "persistence": [0.96, 0.78, 0.42, 0.10, -0.03],
    "linear": [0.97, 0.84, 0.63, 0.46, 0.30],
}
"""Correlations for 1991-2003 by a program of its own, the linear model fitted until 1990."""

LINEAR: dict[str, Any] = {"name": "linear", "options": {"eofs": 20}}
TROPICS = "box:-10..10,125..285"
SMALL = {"hidden": [16], "blocks": 0, "patch": 2}
VARIANTS: dict[str, list[str]] = {
    "from persistence": ["model.start=persistence", "training.learning_rate=0.003"],
    "from linear": [],
    "from linear, tropics": [f"training.region='{TROPICS}'"],
    "from linear, history 6": ["model.history=6"],
    "from linear, horizon 12": ["training.horizon=12"],
    "from linear, smaller": ["model.options.hidden=[6]"],
}
"""Settings beside those of `settings`."""


def main() -> None:
    """Score baselines, or train variants and score them on the validation or the test years."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["baselines", "choose", "score"])
    parser.add_argument("--only", action="append", choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="keeps the runs: what is trained is used again")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        scratch = asked.folder or temporary
        Path(scratch).mkdir(parents=True, exist_ok=True)
        if asked.task == "baselines":
            show("Niño3.4, fitted until 1990", baselines(Path(scratch)))
        for name in asked.only or (list(VARIANTS) if asked.task == "choose" else ["from linear"]):
            if asked.task == "baselines":
                break
            seeds, test = (1, False) if asked.task == "choose" else (asked.seeds, True)
            scores = scored(Path(scratch), name, seeds, test=test)
            show(f"{name}, {'1991-2003' if test else '1986-1990'}", scores)
            rows += as_json(name, scores)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def settings(folder: Path) -> Path:
    """The run file that all variants begin with."""
    place = Path(os.environ["CLIMLSTM_REAL_DATA"], FILE)
    source = {"driver": "netcdf", "args": {"urlpath": str(place)}}
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"sources": {"sst": source}}))
    run = {
        "name": "enso",
        "data": {
            "catalog": str(folder / "catalog.yaml"),
            "source": "sst",
            "state": ["sst_anomaly"],
            "forcing": ["season"],
            "static": ["land_mask"],
            "step": "1 month",
            "periods": PERIODS,
        },
        "model": {"history": 3, "options": SMALL, "start": LINEAR},
        "training": {"horizon": 6, "epochs": 6, "batch_size": 16, "threads": 1,
                     "learning_rate": 0.001, "precision": "float32"},
        "forecast": {"steps": 12, "every": "1 month", "batch_size": 64},
        "cluster": {"storage": str(folder / "runs"), "max_failures": 0},
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return folder / "run.yaml"


def baselines(folder: Path) -> pd.DataFrame:
    """Correlation of baselines fitted until 1990, for starts from 1991 on."""
    years = "data.periods={train: [1970-01-01, 1990-12-31], valid: [1991-01-01, 1991-12-31], "
    years += "test: [1992-01-01, 2003-03-31]}"
    data = RunData(load_config(settings(folder), [years]))
    cube, training = data.cube[["sst_anomaly"]].load(), data.training_period(12)
    starts = cube["time"].values[(cube["time"] >= np.datetime64("1990-12-31")).values]
    fields = cube.sel(time=starts).rename(time="init_time")
    leads = ("lead_time", np.arange(1, 13), {"units": "months"})
    still = fields.expand_dims(lead_time=12).assign_coords(lead_time=leads)
    found = evaluate(
        still,
        cube,
        evaluators={"enso": ENSO()},
        climatology=data.climatology,
        baselines={
            "persistence": Persistence(anomaly=True),
            "damped": Damped().fit(training),
            "linear": Linear(eofs=20).fit(training),
        },
        observed=data.observed,
        model="last state",
    )
    return found.scores


def scored(folder: Path, name: str, seeds: int, *, test: bool) -> pd.DataFrame:
    """Scores of a variant on the test or the validation years: of all seeds, and of their mean."""
    found, trained = [], []
    for seed in range(seeds):
        run = f"{name}-{seed}".replace(" ", "-").replace(",", "")
        changes = [*VARIANTS[name], f"name={run}", f"training.seed={seed}"]
        config = load_config(settings(folder), changes)
        used = time.process_time()
        done = folder / f"{run}.done"
        if not done.exists():
            done.write_text(str(runs.train(config, under_ray=False)), encoding="utf-8")
        trained.append(runs.find_trained(done.read_text(encoding="utf-8")))
        print(f"{run}: {time.process_time() - used:.0f} CPU s of training", flush=True)
        found.append(of_runs(folder, config, trained[-1:], f"seed {seed}", test=test))
    if seeds > 1:
        found.append(of_runs(folder, config, trained, f"mean of {seeds}", test=test))
    return pd.concat(found).drop_duplicates(["model", "variable", "metric", "lead_time"])


def of_runs(
    folder: Path, config: Config, trained: list[Any], label: str, *, test: bool
) -> pd.DataFrame:
    """Scores of the forecasts by one run, or by the mean of several."""
    store = folder / f"{config.name}-{label.replace(' ', '-')}.zarr"
    runs.forecast(trained, store, init_times=None if test else "valid")
    evaluation = runs.evaluate(
        open_forecasts(store),
        evaluators=["{name: enso}"],
        baselines=["{name: persistence, options: {anomaly: true}}", "damped",
                   "{name: linear, options: {eofs: 20}}"],
        model=label,
        allow_seen=not test,
    )  # fmt: skip
    return evaluation.scores


def show(title: str, scores: pd.DataFrame) -> None:
    """Correlation of Niño3.4 by lead time, with intervals, and the gain over the linear model."""
    table = Table("", *(f"{lead}" for lead in LEADS), title=f"{title}; months ahead", box=None)
    own = scores[(scores["variable"] == "nino34") & scores["lead_time"].isin(LEADS)]
    for metric in ("correlation", "correlation_gain_vs_linear", "rmse"):
        for model, rows in own[own["metric"] == metric].groupby("model", sort=False):
            rows = rows.sort_values("lead_time")
            cells = [
                f"{row.value:.2f}" + f" [{row.ci_low:.2f}, {row.ci_high:.2f}]"
                for row in rows.itertuples()
            ]
            table.add_row(f"{model}, {metric.replace('_', ' ')}", *cells)
            if metric == "correlation" and model in KNOWN:
                table.add_row("  known", *(f"{value:.2f}" for value in KNOWN[model]))
    Console(width=150).print(table)


def as_json(name: str, scores: pd.DataFrame) -> list[dict[str, object]]:
    """A row for each model and lead time, beside the linear model."""
    rows = scores[(scores["variable"] == "nino34") & (scores["metric"] == "correlation")]
    rows = rows[rows["lead_time"].isin(LEADS)]
    linear = rows[rows["model"].str.startswith("linear")].set_index("lead_time")["value"]
    return [
        {
            "case": f"Niño3.4 {row.lead_time} months, {name}",
            "subject": row.model,
            "value": row.value,
            "unit": "correlation",
            "against": "linear",
            "ratio": row.value / linear[row.lead_time],
        }
        for row in rows.itertuples()
    ]


if __name__ == "__main__":
    main()
