"""Channels that a forecast is given from outside: observed, persisted, climatology, or forecast.

Only `observed` values are of the future; a forecast with them is a simulation, and is marked so.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from climlstm.data.sources.units import conversion
from climlstm.data.statistics.climatology import climatology_at
from climlstm.data.weatherbench import from_weatherbench, with_our_dimensions
from climlstm.errors import DataError
from climlstm.forecasting.ensemble import Times
from climlstm.grid import axes, grid_of
from climlstm.model.forecaster import Forecaster
from climlstm.model.given import resolve
from climlstm.model.spec import Given, Spec
from climlstm.plugins.channels import installed_channel

KNOWN = ("observed", "persisted", "climatology")
"""Origins other than forecasts of another source."""


@dataclass(frozen=True)
class Outside:
    """Where channels come from that are known from outside, besides the cube."""

    climatology: xr.Dataset | None = None
    """In plain units; needed for `persisted` and `climatology`."""
    forecasts: Mapping[str, xr.Dataset] = field(default_factory=dict)
    """Forecasts (init_time, lead_time, latitude, longitude) of other models, by source."""

    def check(self, spec: Spec, cube: xr.Dataset, init_times: Times, steps: int) -> None:
        """Raises DataError where given channels end before a forecast does."""
        wanted = _times(spec, init_times, range(1, steps + 1))
        times = cube["time"].values
        for given in spec.given:
            if given.source == "observed":
                whole = np.isin(wanted, times).all(axis=1)
                ends = f"the data have times from {times[0]} to {times[-1]}"
            elif given.source in KNOWN:
                continue
            else:
                source = self._source(given)
                valid = wanted[:, spec.history :]
                pairs = zip(init_times, valid, strict=True)
                whole = np.array([_holds(source, init, ahead) for init, ahead in pairs])
                ends = (
                    f"it has {source.sizes['init_time']} starts from {source.init_time.values[0]}, "
                    f"up to {pd.Timedelta(source.lead_time.values[-1])} ahead"
                )
            short, cube_has_it = ~whole, given.source == "observed"
            if short.any():
                raise DataError(
                    f"'{given.name}' is given from outside ({given.source}) and ends before the "
                    f"forecast from {init_times[short][0]}, which needs it until "
                    f"{wanted[short][0, -1]}: {ends}. {short.sum()} of {short.size} "
                    "initialisations lack it. Choose earlier ones or fewer --steps"
                    + (", or leave them out with --verifiable." if cube_has_it else ".")
                )

    def fields(
        self, forecaster: Forecaster, cube: xr.Dataset, inits: Times, leads: range
    ) -> Tensor:
        """Given channels (B, T + L, G, H, W), normalised, as far as they may be known.

        cube: in plain units. leads: numbers of the steps ahead, which come behind the known ones.
        Raises DataError where a value is missing that is usually there.
        """
        assert forecaster.given_normaliser is not None
        spec, normaliser = forecaster.spec, copy.deepcopy(forecaster.given_normaliser).cpu()
        times = _times(spec, inits, leads)
        values = torch.from_numpy(
            np.stack([self._values(spec, each, cube, inits, times) for each in spec.given], axis=2)
        )
        sources = [each.source for each in spec.given]
        normal = None
        if {"persisted", "climatology"} & set(sources):
            if self.climatology is None:
                raise DataError(
                    "Channels that are persisted, or of the climatology, need a climatology of the "
                    "training period. Forecast with climlstm.forecast, which takes the run's."
                )
            usual = climatology_at(self.climatology, times.ravel())[[g.name for g in spec.given]]
            plain = usual.to_dataarray("channel").transpose("time", "channel", ...).values
            normal = normaliser.normalise(torch.from_numpy(plain.astype("float32")))
            normal = normal.unflatten(0, times.shape)
        known = normaliser.normalise(values)
        found = resolve(known, sources, known=spec.history, normal=normal)
        _check_whole(found, spec, times)
        return found

    def _values(
        self, spec: Spec, given: Given, cube: xr.Dataset, inits: Times, times: Times
    ) -> NDArray[np.float32]:
        """One channel (B, T + L, H, W) in plain units; NaN at times at which it is not known."""
        shape = (*times.shape, *spec.grid.shape)
        values = np.full(shape, np.nan, dtype="float32")
        if given.source == "climatology":
            return values
        known = times if given.source == "observed" else times[:, : spec.history]
        needed, place = np.unique(known, return_inverse=True)
        read = cube[given.name].sel(time=needed).transpose("time", ...).values
        values[:, : known.shape[1]] = read[place.reshape(known.shape)]
        if given.source not in KNOWN:
            source = self._source(given)
            for row, init in enumerate(inits):
                start = _last_start(source, init)
                leads = times[row, spec.history :] - start
                chosen = source[_plain(given)].sel(init_time=start, lead_time=leads)
                values[row, spec.history :] = chosen.transpose("lead_time", *spec.grid.dims).values
        return values

    def _source(self, given: Given) -> xr.Dataset:
        """Forecasts of another model that hold a channel on the grid of ours."""
        source = self.forecasts.get(given.source)
        if source is None or _plain(given) not in source:
            held = "no such forecasts were given" if source is None else "they lack it"
            raise DataError(
                f"'{given.name}' comes from the forecasts '{given.source}', but {held}."
            )
        return source


def _plain(given: Given) -> str:
    """Name of a channel in forecasts of the host itself."""
    return given.replaces or given.name


def _times(spec: Spec, inits: Times, leads: range) -> Times:
    """Times (B, T + L) of the known steps and the leads."""
    return spec.step.time([*range(1 - spec.history, 1), *leads], inits[:, None])


def _last_start(forecasts: xr.Dataset, init: np.datetime64) -> np.datetime64:
    """The last start that is not after a time; NaT where there is none."""
    starts = forecasts["init_time"].values
    known = starts[starts <= init]
    return known[-1] if known.size else np.datetime64("NaT")


def _holds(forecasts: xr.Dataset, init: np.datetime64, valid: Times) -> bool:
    """Whether the last start not after a time has all these valid times."""
    start = _last_start(forecasts, init)
    if np.isnat(start):
        return False
    return bool(np.isin(valid - start, forecasts["lead_time"].values).all())


def as_host(opened: xr.Dataset, name: str, spec: Spec) -> xr.Dataset:
    """Forecasts of another model as given channels are taken from them.

    opened: in the layout of WeatherBench, as a source of the catalog has them; of an ensemble the
        mean is taken.
    Raises DataError where they are no forecasts, or lie on another grid.
    """
    found = axes.orient(from_weatherbench(with_our_dimensions(opened, f"The source '{name}'")))
    if not grid_of(found).is_close(spec.grid):
        raise DataError(
            f"The forecasts '{name}' lie on another grid ({grid_of(found)}) than the forecaster "
            f"({spec.grid}). Bring them to its grid first: 'regrid' in the catalog."
        )
    found = found.mean("realization", keep_attrs=True) if "realization" in found.dims else found
    return found.assign(
        {str(channel): _in_our_units(field) for channel, field in found.items()}
    ).sortby(["init_time", "lead_time"])


def _in_our_units(field: xr.DataArray) -> xr.DataArray:
    ours = installed_channel(str(field.name)).variable.units
    theirs = field.attrs.get("units", ours)
    convert = conversion(theirs, ours)
    return field if convert.is_identity else field * convert.scale + convert.offset


def _check_whole(found: Tensor, spec: Spec, times: Times) -> None:
    bad = (~found.isfinite()).nonzero()
    if len(bad):
        sample, step, channel = (int(i) for i in bad[0][:3])
        raise DataError(
            f"'{spec.given[channel].name}', which is given from outside, lacks a value at "
            f"{times[sample, step]} in a cell where it usually has one. Choose initialisations "
            "without that time, or repair the source."
        )
