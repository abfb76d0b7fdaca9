"""Fits the linear model that a network's tendency starts from, to the training period."""

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from climlstm import plugins
from climlstm.data.cube.forcing import forcing_channels, forcing_fields
from climlstm.data.run_data import RunData
from climlstm.data.statistics.climatology import climatology_at
from climlstm.data.statistics.linear import Damping, LinearModel
from climlstm.data.statistics.statistics import Statistics
from climlstm.errors import ConfigError
from climlstm.model.start import LinearStart, cycles

SAMPLES = 300
"""Steps of the training period, evenly spaced, from which the cycles are fitted."""


def fit_start(data: RunData, statistics: Statistics) -> LinearStart | None:
    """The start of the run's network, in its normalisation; None for persistence.

    Raises ConfigError where `model.start` names a baseline that is not linear.
    """
    choice = data.config.model.start
    if choice.name == "persistence":
        return None
    training = data.training_period(leads=1)
    baseline = plugins.create("baselines", choice.name, choice.options)
    fitted = baseline.fit(training) if hasattr(baseline, "fit") else baseline
    model = getattr(fitted, "model", None)
    if isinstance(model, LinearModel):
        size = (model.std / statistics.std)[:, None, None]
        parts = model.eofs * model.area / size, model.eofs * size, model.propagator, model.damping
    elif isinstance(model, Damping):
        none = np.zeros((0, *model.slopes.shape[1:]))
        parts = none, none, np.zeros((0, 0)), model.slopes[0]
    else:
        raise ConfigError(
            f"model.start is '{choice.name}', which is no linear model that a network can start "
            "from. Choose persistence, damped or linear."
        )
    return _with_cycles(tuple(torch.from_numpy(part) for part in parts), data, statistics)


def _with_cycles(parts: tuple[Tensor, ...], data: RunData, statistics: Statistics) -> LinearStart:
    """The start whose offset carries the climatology of one step to that of the next.

    By least squares: offset(t + 1) = normal(t + 1) - linear(normal(t)).
    """
    cube, step = data.cube, data.training_period(leads=1).step
    times = data.training_period(leads=1).cube["time"].values
    chosen = times[np.unique(np.linspace(0, times.size - 1, SAMPLES).round().astype("int64"))]
    later = step.time(1, chosen)
    names = forcing_channels(data.config.data.forcing)
    given = forcing_fields(data.config.data.forcing, later, cube["latitude"], cube["longitude"])
    terms = cycles(torch.from_numpy(given), names).double()
    start = LinearStart(*parts, torch.zeros(terms.shape[1], *parts[0].shape[1:]))
    sums = torch.zeros(terms.shape[1], parts[3].numel(), dtype=torch.float64)
    for number, (before, after) in enumerate(zip(chosen, later, strict=True)):
        first, second = (
            _normal(data.climatology, np.array([time]), statistics) for time in (before, after)
        )
        offset = second - start.linear(first)
        sums += terms[number][:, None] * offset.double().flatten()
    fitted = torch.linalg.pinv(terms.T @ terms, hermitian=True) @ sums
    start.offset = fitted.view(-1, *parts[3].shape).float()
    return start


def _normal(climatology: xr.Dataset, times: NDArray, statistics: Statistics) -> Tensor:
    """The climatology (1, C, H, W) of a time, normalised; 0 where there is never a value."""
    fields = climatology_at(climatology, times)[list(statistics.channels)]
    values = np.stack([fields[name].values for name in statistics.channels], axis=1)
    mean, std = (a[:, None, None] for a in (statistics.mean, statistics.std))
    return torch.from_numpy(np.nan_to_num((values - mean) / std)).float()
