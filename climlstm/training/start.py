"""Fits the linear model that a network's tendency starts from, to the training period."""

from datetime import timedelta
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from climlstm import plugins
from climlstm.data.cube.forcing import forcing_channels, forcing_fields
from climlstm.data.roles import settings_of
from climlstm.data.run_data import RunData
from climlstm.data.statistics.climatology import climatology_at
from climlstm.data.statistics.linear import Damping, LinearModel
from climlstm.data.statistics.statistics import Statistics
from climlstm.errors import ConfigError
from climlstm.grid import grid_of
from climlstm.model.forecaster import Forecaster
from climlstm.model.start import LinearStart, cycles
from climlstm.plugins import TrainingPeriod
from climlstm.training.untrained import build_forecaster

SAMPLES = 300
"""Steps, evenly spaced over a year, at which the cycles are fitted to the climatology."""

YEAR = timedelta(days=365.2425)


def first_forecaster(
    data: RunData, statistics: Statistics, *, precision: torch.dtype
) -> Forecaster:
    """The untrained forecaster of a run, with the start that its run file chooses."""
    start = fit_start(data, statistics)
    return build_forecaster(data.config, data.cube, statistics, precision=precision, start=start)


def fit_start(data: RunData, statistics: Statistics) -> LinearStart | None:
    """The start of the run's network, in its normalisation; None for persistence.

    Raises ConfigError where `model.start` names a baseline that is not linear.
    """
    choice = data.config.model.start
    if choice.name == "persistence":
        return None
    bent = [name for name, each in settings_of(data.config.data).items() if "transform" in each]
    if bent:
        raise ConfigError(
            f"model.start is '{choice.name}', which is linear in the state, but {', '.join(bent)} "
            "has a transform. Choose persistence."
        )
    training = data.training_period(leads=1, earth=False)
    known = statistics.of(tuple(map(str, training.cube.data_vars)))
    baseline = plugins.create("baselines", choice.name, choice.options)
    fitted = baseline.fit(training) if hasattr(baseline, "fit") else baseline
    model = getattr(fitted, "model", None)
    if isinstance(model, LinearModel):
        size = (model.std / known.std)[:, None, None]
        parts = model.eofs * model.area / size, model.eofs * size, model.propagator, model.damping
    elif isinstance(model, Damping):
        none = np.zeros((0, *model.slopes.shape[1:]))
        parts = none, none, np.zeros((0, 0)), model.slopes[0]
    else:
        raise ConfigError(
            f"model.start is '{choice.name}', which is no linear model that a network can start "
            "from. Choose persistence, damped or linear."
        )
    tensors = tuple(torch.from_numpy(part) for part in parts)
    return _with_cycles(tensors, data, training, known)


def _with_cycles(
    parts: tuple[Tensor, ...], data: RunData, training: TrainingPeriod, statistics: Statistics
) -> LinearStart:
    """The start whose offset carries the climatology of one step to that of the next.

    By least squares: offset(t + 1) = normal(t + 1) - linear(normal(t)).
    """
    forcing, step = data.config.data.forcing, training.step
    year = 12 / step.months if step.duration is None else YEAR / step.duration
    places = np.unique(np.linspace(0, max(year, 1), SAMPLES, endpoint=False).astype("int64"))
    chosen = step.time(places, training.cube["time"].values[0])
    later = step.time(1, chosen)
    where = grid_of(training.cube).places
    given = forcing_fields(forcing, later, *where, months=step.months)
    terms = cycles(torch.from_numpy(given), forcing_channels(forcing)).double()
    read, write, propagator, damping = parts
    offset = torch.zeros(terms.shape[1], *damping.shape)
    start = LinearStart(read, write, propagator, damping, offset)
    sums = torch.zeros(terms.shape[1], damping.numel(), dtype=torch.float64)
    for number in range(chosen.size):
        first, second = (
            _normal(training.climatology, moments[[number]], statistics)
            for moments in (chosen, later)
        )
        change = second - start.linear(first)
        sums += terms[number][:, None] * change.double().flatten()
    fitted = torch.linalg.pinv(terms.T @ terms, hermitian=True) @ sums
    start.offset = fitted.view(-1, *damping.shape).float()
    return start


def _normal(climatology: xr.Dataset, times: NDArray[Any], statistics: Statistics) -> Tensor:
    """The climatology (1, C, H, W) of a time, normalised; 0 where there is never a value."""
    fields = climatology_at(climatology, times)
    values = np.stack([fields[name].values for name in statistics.channels], axis=1)
    mean, std = (a[:, None, None] for a in (statistics.mean, statistics.std))
    return torch.from_numpy(np.nan_to_num((values - mean) / std)).float()
