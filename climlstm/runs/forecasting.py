"""Forecast with what a run has trained."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import pandas as pd

from climlstm.config import Config, DataConfig, ForecastConfig
from climlstm.data.run_data import RunData, open_cube
from climlstm.environment import check_gpus
from climlstm.errors import ConfigError
from climlstm.files import lock
from climlstm.forecasting import (
    Ensemble,
    Perturbations,
    Times,
    histories,
    possible_inits,
    with_truth,
    write_forecasts,
)
from climlstm.model.forecaster import Spec
from climlstm.model.saving import load_forecaster, read_json
from climlstm.runs.clusters import spread_over
from climlstm.runs.trained import Trained
from climlstm.training.untrained import choose_precision

PERTURBATION = 0.1
"""Amplitude for networks without noise, where the run file names none."""


def forecast_run(
    trained: Trained,
    out: Path,
    *,
    data: DataConfig | None = None,
    init_times: Times | None = None,
    steps: int | None = None,
    every: timedelta | None = None,
    members: int | None = None,
    seed: int | None = None,
    perturbation: float | None = None,
    gpu: bool = False,
    address: str | None = None,
    verifiable: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Forecast into a new store `out`, and return how many initialisations there are.

    data: where initial states come from, if not from the data that it was trained on.
    init_times: by default the test period, `every` so often.
    steps, every, members, seed, perturbation: by default as the run file has them.
    address: of a Ray cluster over which the initialisations are spread; None: this process.
    verifiable: leave out initialisations whose lead times are not all in the data.
    """
    import torch

    if gpu and address is None:
        check_gpus(1, "--gpu was given", "Leave it out")
    config = trained.config
    asked = {"members": members, "seed": seed, "perturbation": perturbation}
    chosen = config.forecast.model_copy(update={k: v for k, v in asked.items() if v is not None})
    device = torch.device("cuda" if gpu else "cpu")
    forecaster, provenance = load_forecaster(trained.checkpoint)
    cube = open_cube(data or config.data)
    if init_times is None:
        init_times = possible_inits(
            cube,
            forecaster.spec,
            period=config.data.periods.spans["test"],
            every=every or config.forecast.every,
        )
    steps = steps or config.forecast.steps
    init_times = with_truth(cube, forecaster.spec, init_times, steps, only=verifiable)
    digest = read_json(trained.checkpoint / "forecaster.json")["sha256"]
    with (
        lock(out, f"The forecast {out} is being written"),
        spread_over(address, gpu=gpu) as executor,
    ):
        wanted = config.training.precision
        if executor is None:
            precision = choose_precision(wanted, device)
        else:  # of a host that computes; this one may have no GPU
            precision = executor.submit(choose_precision, wanted, device).result()
        write_forecasts(
            out,
            load_forecaster(trained.checkpoint, precision=precision)[0],
            cube,
            init_times=init_times,
            steps=steps,
            provenance=provenance | {"checkpoint": str(trained.checkpoint), "digest": digest},
            batch_size=config.forecast.batch_size,
            ensemble=_ensemble(config, forecaster.spec, chosen),
            progress=progress,
            executor=executor,
            device=str(device),
        )
    return len(init_times)


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


def other_data(data: DataConfig, *, catalog: str | None, source: str | None) -> DataConfig | None:
    """The same channels, region and step from another source, or None if none is named."""
    if catalog is None and source is None:
        return None
    return data.model_copy(
        update={"catalog": catalog or data.catalog, "source": source or data.source}
    )


def parse_times(texts: Sequence[str]) -> Times:
    """Times such as 2020-01-31T06 as datetime64, in order. Raises ConfigError for anything else."""
    try:
        times = pd.DatetimeIndex([pd.Timestamp(text) for text in texts])
    except ValueError as error:
        raise ConfigError(f"'{texts}': expected times such as 2020-01-31T06 ({error}).") from error
    return times.unique().sort_values().to_numpy("datetime64[ns]")
