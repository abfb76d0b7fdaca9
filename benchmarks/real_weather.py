"""Daily weather of eleven years: networks beside a statistician's simple models, over seeds.

    CLIMLSTM_REAL_DATA=FOLDER python benchmarks/real_weather.py [--seeds 3] [--quick]
        [--sets europe natlantic] [--networks convlstm cnn lstm] [--set KEY=VALUE ...]
        [--score valid] [--json FILE]

FOLDER holds `eraint_europe_daily_2000_2010` (ERA-Interim: msl, z500, t850 on 21 x 24, 12 UTC) and
`ncep_slp_natlantic_daily_2001_2010` (NCEP: slp). Europe is trained on 2000-2007, validated on 2008
and tested on 2009-2010; the Atlantic on 2001-2007, 2008 and 2009-2010.

Every network is trained with every seed. Printed are RMSE, ACC and bias by lead of each network
(mean over seeds, and the worst seed), of the mean of its seeds as one ensemble, and of persistence,
damped persistence, climatology, the linear inverse model and analogues; CRPS and spread over error
of the ensemble, as it is and calibrated on the validation year; skill beside the linear model with
its interval by blocks of time; the error by distance from the rim, over which air enters that no
model has seen; and the CPU seconds of training.

Settings are chosen with `--score valid`, which scores the validation year and nothing else. The
test years are scored once, by the final settings.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

import climlstm
from climlstm import runs
from climlstm.config import load_config

SETS = {
    "europe": ("eraint_europe_daily_2000_2010", "2000-01-01", ["msl", "z500", "t850"]),
    "natlantic": ("ncep_slp_natlantic_daily_2001_2010", "2001-01-01", ["msl"]),
}

CATALOG = """\
sources:
  msl_: {driver: netcdf, args: {urlpath: "FOLDER/eraint_europe_daily_2000_2010/mslp_ei.nc"}}
  z500_:
    driver: netcdf
    args: {urlpath: "FOLDER/eraint_europe_daily_2000_2010/z500_ei.nc"}
    metadata: {variables: {z: {level: 500}}}
  t850_:
    driver: netcdf
    args: {urlpath: "FOLDER/eraint_europe_daily_2000_2010/t850_ei.nc"}
    metadata: {variables: {t: {level: 850}}}
  europe: {driver: merge, args: {sources: [msl_, z500_, t850_]}}
  natlantic: {driver: netcdf, args: {urlpath: "FOLDER/ncep_slp_natlantic_daily_2001_2010/slp.nc"}}
"""

RUN = """\
name: NAME
data:
  catalog: CATALOG
  source: SOURCE
  step: 1d
  state: [STATE]
  forcing: [season]
  periods:
    train: [START, 2007-12-31]
    valid: [2008-01-01, 2008-12-31]
    test: [2009-01-01, 2010-12-31]
model: {history: 3}
training: {horizon: 3, epochs: 12, batch_size: 16, precision: float32, threads: 1}
forecast: {steps: 3, every: 1d}
evaluation:
  evaluators: [rmse, acc, bias]
  baselines: [persistence, damped, climatology, {name: linear, options: {eofs: 60}}, ANALOGUE]
cluster: {storage: STORAGE}
"""

NETWORKS = {
    "convlstm": ["model.options={hidden: [32], blocks: 2}"],
    "cnn": ["model.name=cnn", "model.options={hidden: 40}"],
    "lstm": ["model.name=lstm"],
}
BASELINES = ("persistence", "damped", "climatology", "linear", "analogue")
"""Networks of about as many weights, and the models that are fitted without one."""


def main() -> None:
    """Train, forecast and score; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--set", nargs="+", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch")
    parser.add_argument("--score", choices=("test", "valid"), default="test")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.settings = 2, [*asked.settings, "training.epochs=1"]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in asked.sets:
            rows += measure_set(Path(scratch), name, asked)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1, default=float), encoding="utf-8")


def measure_set(folder: Path, name: str, asked: argparse.Namespace) -> list[dict[str, object]]:
    """Scores of all networks and baselines on one set, printed and as rows."""
    rows: list[dict[str, object]] = []
    for network in asked.networks:
        stores, seconds = [], []
        for seed in range(asked.seeds):
            config = write_run(folder, name, network, seed, asked.settings)
            used = time.process_time()
            place = runs.train(config, under_ray=False)
            seconds.append(time.process_time() - used)
            stores.append(place)
            print(f"{name} {network} seed {seed}: {seconds[-1]:.0f} CPU s", flush=True)
        rows += score_network(folder, name, network, stores, asked.score)
        rows.append({"set": name, "model": network, "metric": "cpu_s", "value": np.mean(seconds)})
    print_tables(name, pd.DataFrame(rows))
    return rows


def write_run(folder: Path, name: str, network: str, seed: int, settings: list[str]) -> object:
    """The run file of a network and a seed, with the catalog beside it."""
    data = Path(os.environ["CLIMLSTM_REAL_DATA"]).resolve()
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG.replace("FOLDER", str(data)))
    _, start, state = SETS[name]
    text = RUN.replace("NAME", f"{name}-{network}-{seed}").replace("CATALOG", str(catalog))
    text = text.replace("SOURCE", name).replace("STATE", ", ".join(state)).replace("START", start)
    text = text.replace("STORAGE", str(folder / "runs"))
    text = text.replace("ANALOGUE", "{name: analogue, options: {eofs: 20}}")
    path = folder / f"{name}-{network}-{seed}.yaml"
    path.write_text(text)
    chosen = [f"training.seed={seed}", *NETWORKS[network]]
    return load_config(path, [*chosen, *settings])


def score_network(
    folder: Path, name: str, network: str, places: list[Path], period: str
) -> list[dict[str, object]]:
    """Scores of each seed, of their ensemble, and of the ensemble calibrated."""
    starts = None if period == "test" else "valid"
    found = []
    for seed, place in enumerate(places):
        store = folder / f"{name}-{network}-{seed}.zarr"
        climlstm.forecast(place, store, init_times=starts)
        scores = climlstm.evaluate(store, allow_seen=starts is not None).scores
        own = scores["model"] == scores["model"].iloc[0]
        found.append(scores.assign(model=np.where(own, network, scores["model"]), seed=seed))
    if len(places) > 1:
        found += ensemble_scores(folder, name, network, places, starts)
    table = pd.concat(found, ignore_index=True)
    rim = error_by_rim(folder / f"{name}-{network}-0.zarr")
    kept = [
        "model",
        "seed",
        "metric",
        "variable",
        "level",
        "lead_time",
        "value",
        "ci_low",
        "ci_high",
    ]
    rows = table.reindex(columns=kept).assign(set=name, network=network)
    rows["channel"] = rows["variable"].astype(str) + rows["level"].map(_level)
    rows["days"] = rows["lead_time"] / pd.Timedelta("1D")
    rows = rows.drop(columns=["variable", "level", "lead_time"])
    return [*rows.to_dict("records"), *(r | {"set": name, "network": network} for r in rim)]


def ensemble_scores(
    folder: Path, name: str, network: str, places: list[Path], starts: str | None
) -> list[pd.DataFrame]:
    """Scores of the seeds as members of one ensemble, as they are and calibrated."""
    evaluators = ["rmse", "acc", "crps", "spread_skill"]
    joined, found = folder / f"{name}-{network}.zarr", []
    climlstm.forecast(places, joined, init_times=starts)
    stores = {f"{network} mean": joined}
    if starts is None:
        valid, made = (folder / f"{name}-{network}-{end}.zarr" for end in ("valid", "emos"))
        climlstm.forecast(places, valid, init_times="valid")
        climlstm.calibrate(joined, valid, made)
        stores[f"{network} calibrated"] = made
    for label, store in stores.items():
        scores = climlstm.evaluate(
            store, evaluators=evaluators, model=label, allow_seen=starts is not None
        ).scores
        found.append(scores[scores["model"] == label].assign(seed=-1))
    return found


def error_by_rim(store: Path) -> list[dict[str, object]]:
    """RMSE by lead of the cells at each distance from the rim, over that of persistence there."""
    forecasts = climlstm.open_forecasts(store)
    truth = climlstm.open_cube(runs.config_of(forecasts).data)
    rows, columns = forecasts.sizes["latitude"], forecasts.sizes["longitude"]
    down, along = (np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in (rows, columns))
    ring = np.minimum(down[:, None], along[None, :])
    found = []
    for channel in forecasts:
        field, cube = forecasts[channel], truth[channel]
        for lead in forecasts.lead_time.values:
            known = np.isin(forecasts.init_time + lead, cube.time)
            made = field.sel(lead_time=lead).values[known]
            starts = forecasts.init_time.values[known]
            came, was = cube.sel(time=starts + lead).values, cube.sel(time=starts).values
            own, still = ((f - came) ** 2 for f in (made, was))
            for distance in range(0, ring.max() + 1, 3):
                cells = (ring >= distance) & (ring < distance + 3)
                ratio = np.sqrt(own[:, cells].mean() / still[:, cells].mean())
                row = {"channel": channel, "days": lead / np.timedelta64(1, "D"), "value": ratio}
                found.append(row | {"metric": f"rim_{distance}", "model": "rim", "seed": 0})
    return found


def print_tables(name: str, rows: pd.DataFrame) -> None:
    """RMSE, ensembles, and the distance from the rim."""
    console = Console(width=160)
    for metric in ("rmse", "acc", "bias", "crps", "spread_skill", "rmse_skill_vs_linear"):
        own = rows[rows["metric"] == metric]
        table = Table("model", "channel", "1 d", "2 d", "3 d", title=f"{name}: {metric}", box=None)
        for (model, channel), part in own.groupby(["model", "channel"], sort=False):
            cells = []
            for day in (1.0, 2.0, 3.0):
                values = part.loc[part["days"] == day, "value"]
                worst = f" ({values.max():.4g})" if values.nunique() > 1 else ""
                cells.append(f"{values.mean():.4g}{worst}" if len(values) else "")
            table.add_row(str(model), str(channel), *cells)
        if len(own):
            console.print(table)
    rim = rows[rows["metric"].astype(str).str.startswith("rim_")]
    table = rim.pivot_table(index=["network", "channel", "days"], columns="metric", values="value")
    console.print(table.round(3).to_string())


def _level(value: object) -> str:
    return "" if pd.isna(value) else f"{float(value):g}"


if __name__ == "__main__":
    main()
