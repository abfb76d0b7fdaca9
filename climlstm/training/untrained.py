"""A forecaster that has learned nothing yet: its description, its size, and how it is built."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from climlstm import plugins
from climlstm.config import Config
from climlstm.data.cube.forcing import forcing_channels
from climlstm.data.statistics.statistics import Statistics
from climlstm.grid import grid_of
from climlstm.model.forecaster import Forecaster, Spec
from climlstm.plugins.channels import channel


def describe(config: Config, cube: xr.Dataset) -> Spec:
    """The forecaster of this run on this cube, in plain data."""
    data = config.data
    channels = [channel(name) for name in data.state]
    return Spec(
        channels=data.state,
        units=tuple(c.variable.units for c in channels),
        levels=tuple(c.level for c in channels),
        sign=tuple(-1 if c.variable.component else 1 for c in channels),
        forcing=forcing_channels(data.forcing),
        static=data.static,
        step=data.step,
        grid=grid_of(cube),
        history=config.model.history,
        network=config.model.name,
        options=plugins.complete_options("models", config.model.name, config.model.options),
        noise=config.model.noise,
    )


def build_forecaster(
    config: Config, cube: xr.Dataset, statistics: Statistics, *, precision: torch.dtype
) -> Forecaster:
    """An untrained forecaster for a cube with these statistics."""
    return Forecaster(
        describe(config, cube),
        mean=torch.from_numpy(statistics.mean),
        std=torch.from_numpy(statistics.std),
        tendency_std=torch.from_numpy(statistics.tendency_std),
        static=_static_fields(cube, config.data.static),
        missing=torch.from_numpy(~statistics.observed),
        precision=precision,
    )


def sketch_forecaster(
    config: Config, cube: xr.Dataset, *, precision: torch.dtype = torch.float32
) -> Forecaster:
    """A forecaster of the run's size for which nothing has been read or fitted.

    The random generator is left alone.
    """
    spec = describe(config, cube)
    one = torch.ones(len(spec.channels))
    static = torch.zeros(len(spec.static), *spec.grid.shape)
    with torch.random.fork_rng(devices=[]):
        return Forecaster(
            spec, mean=0 * one, std=one, tendency_std=one, static=static, precision=precision
        )


def count_parameters(forecaster: Forecaster) -> int:
    """Trained numbers of a forecaster."""
    return sum(parameter.numel() for parameter in forecaster.parameters())


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Number format of the convolutions; 'auto': bfloat16 where the device multiplies it faster."""
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type == "cuda":
        gains = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        gains = getattr(torch.cpu, "_is_amx_tile_supported", bool)() or (
            getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
        )
    return torch.bfloat16 if gains else torch.float32


def _static_fields(cube: xr.Dataset, names: tuple[str, ...]) -> Tensor | None:
    """(S, H, W), each with mean 0 and standard deviation 1 over the grid, or None."""
    if not names:
        return None
    fields = np.stack([cube[name].values for name in names]).astype("float64")
    mean = fields.mean(axis=(1, 2), keepdims=True)
    spread = fields.std(axis=(1, 2), keepdims=True)
    return torch.from_numpy((fields - mean) / np.where(spread > 0, spread, 1)).float()
