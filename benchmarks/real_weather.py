"""Daily weather of eleven years: networks beside a statistician's simple models, over seeds.

    CLIMLSTM_REAL_DATA=FOLDER python benchmarks/real_weather.py [--seeds 3] [--quick]
        [--sets europe natlantic] [--networks convlstm cnn lstm] [--set KEY=VALUE ...]
        [--score valid] [--keep FOLDER] [--json FILE]

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
test years are scored once, by the final settings. With --keep, runs, forecasts and scores stay in
a folder, and the same command goes on where it was interrupted.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from skill import working_folder

import climlstm
from climlstm import runs
from climlstm.config import Config, PluginChoice, load_config
from climlstm.forecasting.joining import join_members

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
model: {history: 2, start: {name: linear, options: {eofs: 60}}}
training:
  {horizon: 3, epochs: 6, learning_rate: 0.002, weight_decay: 0.5, precision: float32, threads: 1}
forecast: {steps: 3, every: 1d}
cluster: {storage: STORAGE}
"""

NETWORKS = {
    "convlstm": ["model.options={hidden: [48], blocks: 2, patch: 3}"],
    "cnn": ["model.name=cnn", "model.options={hidden: 64}"],
    "lstm": ["model.name=lstm"],
}
"""Networks of about as many weights."""

BASELINES = (
    PluginChoice(name="linear", options={"eofs": 60}),
    *(PluginChoice(name=name) for name in ("damped", "persistence", "climatology")),
    PluginChoice(name="analogue", options={"eofs": 20}),
)
"""Models that are fitted without a network; the first is what networks are compared with."""


def main() -> None:
    """Train, forecast and score; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--set", nargs="+", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--quick", action="store_true", help="two seeds, one epoch")
    parser.add_argument("--score", choices=("test", "valid"), default="test")
    parser.add_argument(
        "--keep", type=Path, help="keep runs and forecasts here, and go on from them"
    )
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.settings = 2, [*asked.settings, "training.epochs=1"]
    rows = []
    with working_folder(asked.keep) as folder:
        for name in asked.sets:
            rows += measure_set(folder.resolve(), name, asked)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1, default=float), encoding="utf-8")


def measure_set(folder: Path, name: str, asked: argparse.Namespace) -> list[dict[str, object]]:
    """Scores of all networks and baselines on one set, printed and as rows."""
    rows: list[dict[str, object]] = []
    for network in asked.networks:
        runs_ = [
            trained_run(folder, name, network, seed, asked.settings) for seed in range(asked.seeds)
        ]
        places, seconds = zip(*runs_, strict=True)
        rows += score_network(folder, name, network, list(places), asked.score)
        cost = {"set": name, "network": network, "model": network, "metric": "cpu_s", "seed": -1}
        rows.append(cost | {"value": float(np.mean(seconds))})
    print_tables(name, pd.DataFrame(rows))
    return rows


def trained_run(
    folder: Path, name: str, network: str, seed: int, settings: list[str]
) -> tuple[Path, float]:
    """The checkpoint of a network and a seed, and the CPU seconds that its training took.

    One that was interrupted is trained anew, so that its seconds are of one piece.
    """
    config, chosen = write_run(folder, name, network, seed, settings)
    note = folder / f"{name}-{network}-{seed}.json"
    if note.exists():
        kept = json.loads(note.read_text())
        if kept["settings"] != chosen:
            raise SystemExit(
                f"{note} has other settings: {kept['settings']}. Keep these elsewhere."
            )
        return Path(kept["checkpoint"]), kept["cpu_s"]
    used = time.process_time()
    place = runs.train(config, under_ray=False, overwrite=True)
    told = {"settings": chosen, "checkpoint": str(place), "cpu_s": time.process_time() - used}
    note.write_text(json.dumps(told, indent=1), encoding="utf-8")
    print(f"{name} {network} seed {seed}: {told['cpu_s']:.0f} CPU s", flush=True)
    return Path(place), told["cpu_s"]


def write_run(
    folder: Path, name: str, network: str, seed: int, settings: list[str]
) -> tuple[Config, list[str]]:
    """The run of a network and a seed, with the catalog beside it; and what is set in it."""
    data = Path(os.environ["CLIMLSTM_REAL_DATA"]).resolve()
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG.replace("FOLDER", str(data)))
    _, start, state = SETS[name]
    text = RUN.replace("NAME", f"{name}-{network}-{seed}").replace("CATALOG", str(catalog))
    text = text.replace("SOURCE", name).replace("STATE", ", ".join(state)).replace("START", start)
    path = folder / f"{name}-{network}-{seed}.yaml"
    path.write_text(text.replace("STORAGE", str(folder / "runs")))
    chosen = [f"training.seed={seed}", *NETWORKS[network], *settings]
    return load_config(path, chosen), chosen


def score_network(
    folder: Path, name: str, network: str, places: list[Path], period: str
) -> list[dict[str, object]]:
    """Scores of each seed, of their ensemble, and of the ensemble calibrated."""
    found = []
    for seed, place in enumerate(places):
        store = forecast_of(place, folder / f"{name}-{network}-{seed}-{period}.zarr", period)
        scores = scores_of(store, network, BASELINES if seed == 0 else ())
        found.append(scores.assign(seed=seed))
    if len(places) > 1:
        found += ensemble_scores(folder / f"{name}-{network}", network, places, period)
    table = pd.concat(found, ignore_index=True)
    rim = error_by_rim(folder / f"{name}-{network}-0-{period}.zarr")
    kept = ["model", "seed", "metric", "variable", "level", "lead_time", "value", "ci_low"]
    rows = table.reindex(columns=[*kept, "ci_high"]).assign(set=name, network=network)
    rows["channel"] = rows["variable"].astype(str) + rows["level"].map(_level)
    rows["days"] = rows["lead_time"] / pd.Timedelta("1D")
    rows = rows.drop(columns=["variable", "level", "lead_time"])
    return [*rows.to_dict("records"), *(r | {"set": name, "network": network} for r in rim)]


def forecast_of(place: Path, store: Path, period: str) -> Path:
    """The store of forecasts of a period, which is made where there is none yet."""
    if not store.exists():
        climlstm.forecast(place, store, init_times=None if period == "test" else "valid")
    return store


def ensemble_of(start: Path, places: list[Path], period: str) -> Path:
    """The forecasts of all seeds as members of one ensemble."""
    named = {
        f"seed {seed}": forecast_of(place, Path(f"{start}-{seed}-{period}.zarr"), period)
        for seed, place in enumerate(places)
    }
    joined = Path(f"{start}-{len(places)}-members-{period}.zarr")
    if not joined.exists():
        join_members(named, joined)
    return joined


def ensemble_scores(
    start: Path, network: str, places: list[Path], period: str
) -> list[pd.DataFrame]:
    """Scores of the seeds as members of one ensemble, as they are and calibrated."""
    stores = {f"{network} mean": ensemble_of(start, places, period)}
    if period == "test":
        made = Path(f"{start}-{len(places)}-calibrated.zarr")
        if not made.exists():
            valid = ensemble_of(start, places, "valid")
            climlstm.calibrate(stores[f"{network} mean"], valid, made)
        stores[f"{network} calibrated"] = made
    found = []
    for label, store in stores.items():
        scores = scores_of(store, label, BASELINES[:1])
        found.append(scores[scores["model"] == label].assign(seed=-1))
    return found


def scores_of(store: Path, label: str, baselines: Sequence[PluginChoice]) -> pd.DataFrame:
    """Scores of a store and of baselines, kept beside it."""
    kept = store.with_suffix(".pkl")
    if kept.exists():
        return pd.read_pickle(kept)
    scores = climlstm.evaluate(
        store,
        evaluators=["rmse", "acc", "bias", "crps", "spread_skill"],
        baselines=baselines,
        model=label,
        allow_seen=store.stem.endswith("-valid"),
    ).scores
    scores.to_pickle(kept)
    return scores


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
