"""How long training takes for a batch on this machine, tried on random numbers."""

import math
import time

import torch
import xarray as xr

from climlstm import plugins
from climlstm.config import Config
from climlstm.model.forecaster import Forecaster
from climlstm.training.untrained import choose_precision, sketch_forecaster

LONGEST = 10.0
"""Seconds that a whole batch may take, about; of longer ones a single window is timed."""

LARGEST = 1 << 30
"""Bytes of a batch beyond which a single window is timed."""


def seconds_per_batch(config: Config, cube: xr.Dataset) -> float:
    """Forecast over the whole horizon and gradient, by one worker on the device of the run file.

    Where a batch takes long, one window is timed, and the time multiplied. The random generator
    is left alone.
    """
    device = torch.device("cuda" if config.cluster.gpu else "cpu")
    with torch.random.fork_rng(devices=[]):
        precision = choose_precision(config.training.precision, device)
        forecaster = sketch_forecaster(config, cube, precision=precision).to(device)
        _try(forecaster, config, 1, device)  # compiles what has to be compiled
        one, batch = _try(forecaster, config, 1, device), config.training.batch_size
        spec = forecaster.spec
        steps = config.model.history + config.training.horizon
        channels = len(spec.channels) + len(spec.forcing) + len(spec.given_fields)
        size = 4 * batch * steps * channels * math.prod(spec.grid.shape)
        if batch == 1 or one * batch > LONGEST or size > LARGEST:
            return one * batch
        return _try(forecaster, config, batch, device)


def _try(forecaster: Forecaster, config: Config, batch: int, device: torch.device) -> float:
    """Seconds for a batch of random windows."""
    spec, horizon = forecaster.spec, config.training.horizon
    plane = spec.grid.shape
    state = torch.randn(batch, spec.history + horizon, len(spec.channels), *plane, device=device)
    fields = len(spec.forcing) + len(spec.given_fields)
    known = (batch, spec.history - 1 + horizon, fields, *plane)
    forcing = torch.randn(*known, device=device)
    loss = plugins.create("losses", config.training.loss.name, config.training.loss.options)
    weight = torch.ones(len(spec.channels), *plane, device=device)
    begun = time.perf_counter()
    prediction = forecaster(state[:, : spec.history], forcing)
    target = state[:, spec.history :]
    value = loss(prediction, target, weight=weight, channels=forecaster.channels)
    value.backward()
    value.item()  # waits for a GPU
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    forecaster.zero_grad()
    return time.perf_counter() - begun
