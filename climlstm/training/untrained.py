"""A forecaster that has learned nothing yet: its description, its size, and how it is built."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from climlstm import plugins
from climlstm.config import Config, DataConfig
from climlstm.data.cube.forcing import forcing_channels
from climlstm.data.roles import RIM, given_channels, imposed_shares, settings_of
from climlstm.data.statistics.statistics import Statistics
from climlstm.grid import grid_of
from climlstm.model.forecaster import Forecaster
from climlstm.model.given import GivenNormaliser
from climlstm.model.spec import Spec
from climlstm.model.start import LinearStart
from climlstm.plugins.channels import installed_channel, may_be_own


def describe(config: Config, cube: xr.Dataset) -> Spec:
    """The forecaster of this run on this cube, in plain data."""
    data = config.data
    channels = [installed_channel(name) for name in data.predicted]
    return Spec(
        channels=data.predicted,
        units=tuple(str(cube[name].attrs["units"]) for name in data.predicted),
        levels=tuple(c.level for c in channels),
        sign=tuple(-1 if c.variable.component else 1 for c in channels),
        forcing=forcing_channels(data.forcing),
        static=(*data.static, *(name for name, _ in _places_imposed(config.data, cube))),
        step=data.step,
        grid=grid_of(cube),
        history=config.model.history,
        network=config.model.name,
        options=plugins.complete_options("models", config.model.name, config.model.options),
        noise=config.model.noise,
        outputs=data.output,
        start=config.model.start.label,
        given=given_channels(data),
        settings=_settings(config.data, cube),
    )


def _settings(data: DataConfig, cube: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Settings of channels; with them, the long names of variables of the source's own."""
    settings = settings_of(data)
    for name in filter(may_be_own, data.predicted):
        settings[name] = settings.get(name, {}) | {"long_name": cube[name].attrs["long_name"]}
    return settings


def build_forecaster(
    config: Config,
    cube: xr.Dataset,
    statistics: Statistics,
    *,
    precision: torch.dtype,
    start: LinearStart | None = None,
) -> Forecaster:
    """An untrained forecaster for a cube with these statistics, as `fit_start` lets it start."""
    spec = describe(config, cube)
    known = statistics.of(spec.channels)
    given = statistics.of(tuple(each.name for each in spec.given))
    imposed = imposed_shares(config.data, cube)
    return Forecaster(
        spec,
        mean=torch.from_numpy(known.mean),
        std=torch.from_numpy(known.std),
        tendency_std=torch.from_numpy(known.tendency_std),
        static=_static_fields(cube, config.data),
        missing=torch.from_numpy(~known.observed),
        given=GivenNormaliser(
            spec,
            torch.from_numpy(given.mean),
            torch.from_numpy(given.std),
            torch.from_numpy(~given.observed),
        )
        if spec.given
        else None,
        imposed=None if imposed is None else torch.from_numpy(imposed),
        start=start,
        precision=precision,
    )


def sketch_forecaster(
    config: Config, cube: xr.Dataset, *, precision: torch.dtype = torch.float32
) -> Forecaster:
    """A forecaster of the run's size for which nothing has been read or fitted.

    The random generator is left alone.
    """
    spec = describe(config, cube)
    one, given = torch.ones(len(spec.channels)), torch.ones(len(spec.given))
    missing = torch.zeros(len(spec.given), 1, 1, dtype=torch.bool)
    imposed = imposed_shares(config.data, cube)
    static = torch.zeros(len(spec.static), *spec.grid.shape)
    with torch.random.fork_rng(devices=[]):
        return Forecaster(
            spec,
            mean=0 * one,
            std=one,
            tendency_std=one,
            static=static,
            given=GivenNormaliser(spec, 0 * given, given, missing) if spec.given else None,
            imposed=None if imposed is None else torch.from_numpy(imposed),
            precision=precision,
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


def _static_fields(cube: xr.Dataset, data: DataConfig) -> Tensor | None:
    """(S, H, W), each with mean 0 and standard deviation 1 over the grid, and as they are those
    that say where a state is replaced from outside; or None."""
    places = [share for _, share in _places_imposed(data, cube)]
    if not data.static:
        return torch.from_numpy(np.stack(places)).float() if places else None
    fields = np.stack([cube[name].values for name in data.static]).astype("float64")
    mean = fields.mean(axis=(1, 2), keepdims=True)
    spread = fields.std(axis=(1, 2), keepdims=True)
    scaled = (fields - mean) / np.where(spread > 0, spread, 1)
    return torch.from_numpy(np.concatenate([scaled, *(place[None] for place in places)])).float()


def _places_imposed(data: DataConfig, cube: xr.Dataset) -> list[tuple[str, NDArray[np.float32]]]:
    """Name and field (H, W) of each place in which the state is replaced from outside."""
    shares = imposed_shares(data, cube)
    if shares is None:
        return []
    named = [(f"{name} prescribed", name) for name, each in data.prescribed.items() if each.mask]
    if data.boundary is not None:
        free = next(name for name in data.state if name not in data.prescribed)
        named.append((RIM, free))
    return [(label, shares[data.predicted.index(name)]) for label, name in named]
