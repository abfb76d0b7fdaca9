"""Forecast with what a run has trained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from climlstm.calendars import calendar_of, within
from climlstm.config import KNOWN_FROM, Config, DataConfig, ForecastConfig
from climlstm.data.others import open_cube
from climlstm.data.run_data import RunData
from climlstm.data.sources.catalog import open_source
from climlstm.environment import check_gpus
from climlstm.files import lock
from climlstm.forecasting import (
    Ensemble,
    Outside,
    Perturbations,
    Times,
    as_host,
    forecast_batches,
    histories,
    open_forecasts,
    possible_inits,
    with_truth,
    write_forecasts,
)
from climlstm.model.saving import read_forecaster, read_spec
from climlstm.model.spec import Spec
from climlstm.runs.clusters import spread_over
from climlstm.runs.several import over_several
from climlstm.runs.trained import Trained, as_it_was_made, as_trained, origin_of
from climlstm.steps import MONTH, Step, as_step, as_times, number_of_steps, parse_time
from climlstm.training.untrained import choose_precision

LATEST = "latest"
"""Word for the newest time from which a forecast can start."""

VALID = "valid"
"""Word for all starts of the validation period."""

PERTURBATION = 0.1
"""Amplitude for networks without noise, where the run file names none."""


CIVIL_TIMES: Times = np.empty(0, dtype="datetime64[ns]")
"""No times, of the usual calendar."""


@over_several
@as_it_was_made
def forecast(
    trained: Trained | str | Path | Sequence[Trained | str | Path],
    out: str | Path | None = None,
    *,
    catalog: str | None = None,
    source: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    init_times: Iterable[Any] | str | None = None,
    steps: int | Step | timedelta | str | None = None,
    every: Step | timedelta | str | None = None,
    members: int | None = None,
    seed: int | None = None,
    perturbation: float | None = None,
    gpu: bool | None = None,
    address: str | None = None,
    verifiable: bool = False,
    progress: Callable[[float], None] | None = None,
) -> xr.Dataset:
    """Forecast into a new store and open it, or into memory.

    trained: folder or URL of a run or a checkpoint, or what `find_trained` found there; several
        of them, whose forecasts then are the members of one ensemble.
    out: the Zarr store to write, in WeatherBench's layout; None: this process computes all.
    catalog, source, parameters: of the initial states, if not those of the training.
    init_times: texts such as '2020-01-31T06' (UTC), 'latest', 'valid' (the validation period); by
        default the test period, or the latest.
    steps (a number, or how far ahead: '10d', '5 years'), every ('1 month'), members, seed,
        perturbation: by default as the run file has them.
    gpu: None: if the run was trained on GPUs, and this machine has one. address: of a Ray cluster
        over which the initialisations are spread; None: this process.
    verifiable: leave out starts whose leads are not all in the data.
    progress: gets the number of initialisations that are done, and parts of others.
    Raises a ClimLSTMError where the checkpoint is damaged or the data do not fit it.

    >>> import climlstm
    >>> forecasts = climlstm.forecast("runs/small", "small.zarr", init_times=["2001-03-20"])
    >>> forecasts["msl"].shape
    (1, 4, 32, 64)
    """
    config = (found := as_trained(trained)).config  # of several, one: see over_several
    if gpu and address is None:
        check_gpus(1, "--gpu was given", "Leave it out")
    if gpu is None:  # on a cluster, GPUs are asked for
        gpu = config.cluster.gpu and address is None and torch.cuda.is_available()
    spec, _ = read_spec(found.checkpoint)
    cube = open_cube(other_data(config.data, catalog, source, parameters), outputs=False)
    asked: dict[str, Any] = {"members": members, "seed": seed, "perturbation": perturbation}
    asked["steps"] = None if steps is None else number_of_steps(steps, spec.step)
    chosen = _updated(config.forecast, asked | {"every": every and as_step(every)})
    job = _job(config, chosen, spec, cube, init_times, verifiable=verifiable)
    device = "cuda" if gpu else "cpu"
    locked = lock(Path(out), f"The forecast {out} is being written") if out else nullcontext()
    with locked, spread_over(address, gpu=gpu) as executor:
        precision = _precision(config, device, executor)
        forecaster, _ = read_forecaster(found.checkpoint, precision=precision)
        if out is None:
            return xr.concat(forecast_batches(forecaster.to(device), cube, **job), "init_time")
        job |= {"provenance": found.provenance | origin_of(found), "progress": progress}
        write_forecasts(Path(out), forecaster, cube, executor=executor, device=device, **job)
    return open_forecasts(out)


def _updated(section: ForecastConfig, asked: Mapping[str, Any]) -> ForecastConfig:
    """The section with what was asked for instead of its own."""
    return section.model_copy(update={k: v for k, v in asked.items() if v is not None})


def _job(
    config: Config,
    chosen: ForecastConfig,
    spec: Spec,
    cube: xr.Dataset,
    init_times: Iterable[Any] | str | None,
    *,
    verifiable: bool,
) -> dict[str, Any]:
    """Initial times, steps, batches and members, as `forecast_batches` takes them."""
    inits, is_newest = _inits(config, chosen, spec, cube, init_times)
    if verifiable or not is_newest:  # of which nobody expects that the truth is known
        inits = with_truth(cube, spec, inits, chosen.steps, only=verifiable)
    return {
        "init_times": inits,
        "steps": chosen.steps,
        "batch_size": chosen.batch_size,
        "ensemble": _ensemble(config, spec, chosen),
        "outside": _outside(config, spec),
    }


def _inits(
    config: Config,
    chosen: ForecastConfig,
    spec: Spec,
    cube: xr.Dataset,
    init_times: Iterable[Any] | str | None,
) -> tuple[Times, bool]:
    """The initial times asked for, and whether it is the newest one of the source.

    By default those of the test period, or the newest one of a source without any time of it.
    """
    spans = config.data.periods.spans
    asked = [init_times] if isinstance(init_times, str) else init_times
    wanted = list(asked) if asked is not None else []
    if wanted == [VALID] or (asked is None and within(cube["time"].values, spans["test"]).any()):
        period = spans["valid" if wanted else "test"]
        return possible_inits(cube, spec, period=period, every=chosen.every), False
    if wanted in ([], [LATEST]):
        whole = (pd.Timestamp("0001-01-01"), pd.Timestamp("9999-12-31"))
        return possible_inits(cube, spec, period=whole, every=config.data.step)[-1:], True
    return parse_times(wanted, cube["time"].values, spec.step), False


def _outside(config: Config, spec: Spec) -> Outside:
    """Climatology, and forecasts of other models, that the given channels of a forecaster need."""
    sources = {each.source for each in spec.given}
    usual = {"persisted", "climatology"} & sources
    data = config.data
    return Outside(
        RunData(config).climatology if usual else None,
        {
            name: as_host(open_source(data.catalog, name), name, spec)
            for name in sources - {*KNOWN_FROM}
        },
    )


def _precision(config: Config, device: str, executor: Executor | None) -> torch.dtype:
    """Precision on the device that computes, which this host may not have."""
    wanted, there = config.training.precision, torch.device(device)
    if executor is None:
        return choose_precision(wanted, there)
    return executor.submit(choose_precision, wanted, there).result()


def _ensemble(config: Config, spec: Spec, wanted: ForecastConfig) -> Ensemble:
    """The ensemble of a forecast section; perturbations are drawn from the training period."""
    amplitude = wanted.perturbation
    if amplitude is None:
        amplitude = 0.0 if spec.noise else PERTURBATION
    if wanted.members == 1 or amplitude == 0:
        return Ensemble(wanted.members, wanted.seed)
    data = RunData(config)
    times = possible_inits(
        data.cube,
        spec,
        period=data.periods["train"],
        every=config.data.step,
        unusable=data.statistics.unusable,
    )
    drawn = Perturbations(amplitude, times, partial(histories, spec, data.cube))
    return Ensemble(wanted.members, wanted.seed, drawn)


def other_data(
    data: DataConfig,
    catalog: str | None,
    source: str | None,
    parameters: Mapping[str, Any] | None = None,
) -> DataConfig:
    """The same channels, region and step, from another source where one is named.

    Parameters of the run's own source are not passed to another one.
    """
    if catalog is None and source is None and parameters is None:
        return data
    place = {"catalog": catalog or data.catalog, "source": source or data.source}
    return data.model_copy(update=place | {"parameters": dict(parameters or {})})


def parse_times(times: Iterable[Any], like: Times = CIVIL_TIMES, step: Step | None = None) -> Times:
    """Times such as 2020-01-31T06 in the calendar of other ones, in order, each once.

    step: that of the forecasts; one of months starts from the month that a time lies in.
    Raises ConfigError for what is no time.
    """
    parsed = as_times([parse_time(time, calendar_of(like)) for time in times])
    if step is not None and step.duration is None:
        parsed = MONTH.time(MONTH.number(parsed, like[0]), like[0])
    parsed = np.unique(parsed)
    return parsed.astype(like.dtype)
