"""The main job from beginning to end on simulated weather: simulate, train, forecast, score, draw.

Everything goes through the same functions, catalog and run file as a user's own data. A demo that
was interrupted goes on where it was.
"""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Table

from climlstm.config import Config, PluginChoice, load_config
from climlstm.evaluation.evaluate import Evaluation
from climlstm.evaluation.tables import score_table, useful_lead, write_scores
from climlstm.forecasting import open_forecasts
from climlstm.grid import wrap_longitude
from climlstm.plots import plot_forecast, plot_scores, plot_tracks, save
from climlstm.plugins import create, load
from climlstm.runs import evaluate, find_trained, forecast, open_cube, train
from climlstm.simulation.simulate import predictability, simulate
from climlstm.training.progress import Display

START = 2001
OURS = "ConvLSTM"
PERFECT = "perfect model"
TRACKED = pd.Timedelta("72h")
"""Time for which the map shows tracks: longer ones cover each other."""
AROUND = 60.0
"""Degrees of longitude that it shows on either side of the deepest low."""
INITIAL_ERROR = 0.01
"""Initial error of the perfect model's reruns, in climatological standard deviations."""

CATALOG = """\
# An Intake catalog with one source: the weather that `climlstm demo` simulated.
sources:
  atmosphere:
    description: Three-level quasi-geostrophic atmosphere, 6-hourly, 64x32
    driver: zarr
    args:
      urlpath: "{{ CATALOG_DIR }}/atmosphere.zarr"
    metadata:
      licence: Apache-2.0
      grid: 64x32
"""

RUN = Template("""\
# yaml-language-server: $$schema=run.schema.json
name: demo
data:
  catalog: catalog.yaml
  source: atmosphere
  step: 6h
  state: [t850, msl, u10, v10, z500, z200]
  forcing: [season]
  static: [orography, land_mask]
  periods: {train: [$train], valid: [$valid], test: [$test]}
# One known step is enough here: the channels determine the state of the simulated atmosphere.
model: {name: convlstm, history: 1, options: {hidden: [112], blocks: 2, patch: 2}}
training: {horizon: 4, epochs: 1, batch_size: 16, learning_rate: 4.0e-3}
forecast: {steps: 20, every: 72h}
cluster: {workers: $workers}
""")


def run_demo(
    directory: Path,
    *,
    years: int,
    workers: int,
    console: Console,
    evaluators: Sequence[PluginChoice] = (),
) -> None:
    """All steps, each with a line about what it made and how long it took.

    years: of training; three months of validation and nine of test follow them.
    evaluators: besides those of the run file, such as plugins'.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = _write_run(directory, years=years, workers=workers)
    store = directory / "atmosphere.zarr"
    if not store.exists():
        with _step(console, f"simulating {years + 1} years of weather"):
            simulate(store, years=years + 1, start=f"{START}-01-01")
    with _step(console, "training"), Display(console) as display:
        trained = find_trained(train(config, resume=True, observe=display))
    forecasts = directory / "forecasts.zarr"
    with _step(console, "forecasting the test period"):
        _replace_older(forecasts, trained.checkpoint)
        if not forecasts.exists():
            forecast(trained, forecasts)
    with _step(console, "scoring"):
        evaluation = _evaluate(open_forecasts(forecasts), store, config, evaluators)
        write_scores(evaluation, directory / "scores")
    _print(evaluation.scores, evaluators, console)
    with _step(console, "drawing"):
        _draw(open_forecasts(forecasts), evaluation.scores, config, directory)
        for choice in evaluators:
            _draw_tracks(open_forecasts(forecasts), choice, evaluation, config, directory)
    console.print(
        f"Look at {directory}/forecast.png and {directory}/rmse.png; the run file is "
        f"{directory}/run.yaml, the forecasts are {forecasts} (WeatherBench layout)."
    )


def _write_run(directory: Path, *, years: int, workers: int) -> Config:
    """Catalog and run file, for the demo itself and for the user to change afterwards."""
    (directory / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    (directory / "run.yaml").write_text(run_text(years=years, workers=workers), encoding="utf-8")
    return load_config(directory / "run.yaml")


def run_text(*, years: int, workers: int) -> str:
    """The run file of the demo."""
    end = START + years
    return RUN.substitute(
        train=f"{START}-01-01, {end - 1}-12-31",
        valid=f"{end}-01-01, {end}-03-31",
        test=f"{end}-04-01, {end}-12-31",
        workers=workers,
    )


def _replace_older(forecasts: Path, checkpoint: Path) -> None:
    """Delete forecasts that another checkpoint made, so that scores and checkpoint agree."""
    if forecasts.exists():
        made_by = json.loads(open_forecasts(forecasts).attrs["climlstm_provenance"])
        if made_by["checkpoint"] != str(checkpoint):
            shutil.rmtree(forecasts)


def _evaluate(
    forecasts: xr.Dataset, store: Path, config: Config, evaluators: Sequence[PluginChoice]
) -> Evaluation:
    """Scores of the forecasts, of the baselines, and of the model that made the weather itself."""
    chosen = [*config.evaluation.evaluators, *evaluators]
    evaluation = evaluate(forecasts, evaluators=chosen, model=OURS)
    inits = forecasts["init_time"].values[::3]
    perfect = predictability(
        store,
        init_times=list(inits),
        steps=forecasts.sizes["lead_time"],
        amplitude=INITIAL_ERROR,
    )
    limit = evaluate(perfect.assign_attrs(forecasts.attrs), model=PERFECT, baselines=())
    return replace(evaluation, scores=pd.concat([evaluation.scores, limit.scores]))


def _print(scores: pd.DataFrame, evaluators: Sequence[PluginChoice], console: Console) -> None:
    """RMSE, and in one table what each further evaluator calls its headline."""
    tables = [(*score_table(scores, "rmse"), "rmse")]
    for choice in evaluators:
        headline = getattr(load("evaluators", choice.name), "headline", ())
        tables.append((*_side_by_side(scores, headline), f"{choice.label}, {OURS}"))
    for heading, rows, title in tables:
        table = Table(*heading, title=f"{title}, test period", title_justify="left", box=None)
        for row in rows:
            table.add_row(*row)
        if rows:
            console.print(table)
    for row in useful_lead(scores, "acc", 0.6).itertuples():
        if row.variable == "z" and row.level == 500 and row.model in (OURS, PERFECT):
            days = row.useful_lead / pd.Timedelta("1D")
            beyond = "" if row.ended else "more than "
            console.print(f"z500: ACC of {row.model} stays above 0.6 for {beyond}{days:.1f} days")


def _side_by_side(
    scores: pd.DataFrame, metrics: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Metrics of our forecasts as columns, a row for each lead time."""
    ours = scores[scores["model"] == OURS]
    columns = {metric: score_table(ours, metric) for metric in metrics}
    columns = {metric: table for metric, table in columns.items() if table[1]}
    heading = [name.replace("_", " ") for name in ("lead", *columns)]
    leads = dict.fromkeys(row[1] for _, rows in columns.values() for row in rows)
    cells = [{row[1]: row[2] for row in rows} for _, rows in columns.values()]
    return heading, [[lead, *(column.get(lead, "–") for column in cells)] for lead in leads]


def _draw(forecasts: xr.Dataset, scores: pd.DataFrame, config: Config, directory: Path) -> None:
    truth = open_cube(config.data)
    for metric in ("rmse", "acc"):
        save(plot_scores(scores, metric=metric), directory / f"{metric}.png")
    figure = plot_forecast(
        forecasts,
        "msl",
        truth=truth,
        init_time=_stormiest(truth, forecasts),
        lead_time=pd.Timedelta("48h"),
    )
    save(figure, directory / "forecast.png")


def _draw_tracks(
    forecasts: xr.Dataset,
    choice: PluginChoice,
    evaluation: Evaluation,
    config: Config,
    directory: Path,
) -> None:
    """Three days of forecast and true tracks around the deepest low, if an evaluator has tracks."""
    evaluator = create("evaluators", choice.name, choice.options)
    if not hasattr(evaluator, "tracks"):
        return
    cases = evaluation.cases[choice.label]
    tracks = evaluator.tracks(cases[cases["model"] == OURS].drop(columns="model"))
    truth = open_cube(config.data)
    init = _stormiest(truth, forecasts)
    during = tracks["time"].between(init, pd.Timestamp(init) + TRACKED)
    started = tracks["init_time"].isna() | (tracks["init_time"] == init)
    shown = tracks[during & started]
    true = shown[shown["source"] == "truth"]
    if true.empty:
        return
    deepest = true.loc[true["slp"].idxmin()]
    south, north = (15, 85) if deepest["lat"] > 0 else (-85, -15)
    region = (deepest["lon"] - AROUND, deepest["lon"] + AROUND, south, north)
    near = shown[_passes(shown, deepest["lon"], south, north)]
    figure = plot_tracks(
        near[near["source"] != "truth"],
        truth=near[near["source"] == "truth"],
        field=truth["msl"].sel(time=init),
        init_time=init,
        region=region,
    )
    save(figure, directory / f"{choice.label}.png")


def _passes(tracks: pd.DataFrame, longitude: float, south: float, north: float) -> pd.Series:
    """True for the rows of tracks that have a point within the map around a longitude."""
    away = np.abs(wrap_longitude(tracks["lon"].to_numpy() - longitude))
    inside = (away < AROUND) & tracks["lat"].between(south, north)
    keys = [tracks["track_id"], tracks["init_time"].fillna(pd.Timestamp(0)), tracks["member"]]
    return inside.groupby(keys).transform("any")


def _stormiest(truth: xr.Dataset, forecasts: xr.Dataset) -> np.datetime64:
    """The initialisation two days before the deepest low of the northern hemisphere."""
    inits = forecasts["init_time"].values
    valid = inits + np.timedelta64(48, "h")
    inits = inits[np.isin(valid, truth["time"].values)]
    pressure = truth["msl"].sel(time=inits + np.timedelta64(48, "h"))
    lowest = pressure.where(pressure["latitude"] > 25).min(["latitude", "longitude"])
    return inits[int(lowest.argmin("time").compute())]


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    console.print(what, style="bold")
    began = time.monotonic()
    yield
    console.print(f"  {what}: {time.monotonic() - began:.0f} s")
