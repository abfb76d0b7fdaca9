"""Simulated weather: the embedded default data, and the limit of its predictability.

`quasigeostrophic` makes the flow, `diagnostics` the pressure, wind and temperature that belong to
it; here they become records. No noise is added to anything.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from climlstm.errors import DataError
from climlstm.files import write_whole, writing
from climlstm.simulation.diagnostics import CHANNELS, diagnose, labelled, static_fields
from climlstm.simulation.quasigeostrophic import (
    TRUNCATION,
    Parameters,
    QuasiGeostrophic,
    Times,
    northern_winter,
)
from climlstm.simulation.spherical import Complex
from climlstm.version import __version__

OUTPUT_STEP = np.timedelta64(6, "h")
STEPS_PER_DAY = 4
BLOCK = 120
"""Output steps that are made at a time, and that lie in one chunk of a store."""
STATE_GROUP = "model_state"
"""Group of a store with the states of the model, once a day."""
TIME_ENCODING = {"units": "hours since 1970-01-01", "dtype": "int64"}


def simulate(
    store: str | Path,
    *,
    years: float = 2,
    start: str = "2001-01-01",
    seed: int = 0,
    spin_up_days: int = 150,
    progress: Callable[[float], None] | None = None,
) -> xr.Dataset:
    """Write six-hourly weather as a plain CF Zarr store (format 3), and open it.

    The same seed gives the same weather, bit for bit on one machine; another one, other weather.
    The store appears under its name once it is complete. Its group `model_state` keeps the state
    of the model itself once a day, for `predictability`.

    years: of 365.25 days; start: UTC; spin_up_days: run before `start`, thrown away;
    progress: called with the share that is done, 0 to 1.
    Raises DataError where the store exists already or cannot be written.

    >>> import climlstm
    >>> climlstm.simulate("weather.zarr", years=0.02, spin_up_days=0)["msl"].dims
    ('time', 'latitude', 'longitude')
    """
    place = Path(store)
    if place.exists():
        raise DataError(f"{store} exists already. Delete it, or name another store.")
    times = _times(years, start, spin_up_days)
    model = QuasiGeostrophic(Parameters())
    blocks = _run(model, times, seed=seed, spin_up_days=spin_up_days, progress=progress)
    with writing(place), write_whole(place) as folder:
        _write(folder, model, blocks, times=times, seed=seed)
        _consolidate(folder)
    return xr.open_zarr(store)


def predictability(
    store: Path,
    *,
    init_times: Sequence[np.datetime64],
    steps: int,
    amplitude: float = 0.01,
    members: int = 1,
    seed: int = 0,
) -> xr.Dataset:
    """Forecasts by the model that made the weather, from slightly wrong states: the best possible.

    The error of an initial state is the difference of two states of the record over the square
    root of 2, times `amplitude`: a random draw from the climate, with that fraction of its
    standard deviation (Magnusson, Nycander and Källén 2009, Tellus A 61, 194). The two lie within
    45 days of `init_time`, which keeps the season, and at least ten days apart.

    Returns the channels as (init_time, lead_time, latitude, longitude), with `realization` after
    `init_time` for several members; lead times from 6 h to `steps` times that.
    Raises DataError for a store without model states, or for times that it does not have.
    """
    if len(init_times) == 0 or steps < 1 or members < 1:
        raise DataError(
            f"{len(init_times)} init_times, {steps} steps and {members} members: "
            "expected one or more of each."
        )
    record, model = _open_states(store)
    generator = np.random.default_rng(seed)
    inits = np.asarray(init_times, dtype=record.time.dtype)
    state = np.concatenate(
        [
            _analysis(model, record, init_time, amplitude=amplitude, generator=generator)
            for init_time in inits
            for _ in range(members)
        ],
        axis=-1,
    )
    leads = np.arange(1, steps + 1) * OUTPUT_STEP.astype("timedelta64[ns]")
    forecasts = []
    for lead in leads:
        valid = np.repeat(inits, members) + lead
        state = model.advance(state, valid - OUTPUT_STEP, OUTPUT_STEP)
        forecasts.append(diagnose(model, state))
    shape = (inits.size, members, leads.size, *next(iter(forecasts[0].values())).shape[1:])
    fields = {
        name: np.stack([forecast[name] for forecast in forecasts], axis=1).reshape(shape)
        for name in CHANNELS
    }
    coordinates = {
        "init_time": xr.Variable("init_time", inits, {"standard_name": "forecast_reference_time"}),
        "realization": xr.Variable(
            "realization", np.arange(members), {"standard_name": "realization"}
        ),
        "lead_time": xr.Variable("lead_time", leads, {"standard_name": "forecast_period"}),
    }
    forecast = labelled(fields, coordinates).assign_attrs(
        _attributes(seed) | {"title": "Perfect-model forecasts", "initial_error": amplitude}
    )
    return forecast.isel(realization=0, drop=True) if members == 1 else forecast


def _times(years: float, start: str, spin_up_days: int) -> Times:
    """Six-hourly times. Raises DataError for arguments that make none."""
    if not years * 365.25 * STEPS_PER_DAY >= 1:
        raise DataError(f"years is {years}: expected at least one step of 6 h.")
    if spin_up_days < 0:
        raise DataError(f"spin_up_days is {spin_up_days}: expected 0 or more.")
    try:
        first = np.datetime64(start, "ns")
    except ValueError as error:
        raise DataError(f"start is '{start}': expected a date such as 2001-01-01.") from error
    return first + np.arange(round(years * 365.25 * STEPS_PER_DAY)) * OUTPUT_STEP


def _run(
    model: QuasiGeostrophic,
    times: Times,
    *,
    seed: int,
    spin_up_days: int,
    progress: Callable[[float], None] | None,
) -> Iterator[tuple[int, Complex]]:
    """Yield the potential vorticity (m, n, level, time) of blocks, with where they start."""
    spin_up = spin_up_days * STEPS_PER_DAY
    clock = times[0] + np.arange(-spin_up, times.size)[:, None] * OUTPUT_STEP
    state = model.initial(seed, northern_winter(clock[0]))
    block: list[Complex] = []
    for step, time in enumerate(clock, start=-spin_up):
        if step >= 0:
            block.append(state)
        if len(block) == BLOCK or step == times.size - 1:
            yield step + 1 - len(block), np.concatenate(block, axis=-1)
            block = []
        if progress and step % BLOCK == 0:
            progress((step + spin_up) / clock.size)
        state = model.advance(state, time, OUTPUT_STEP)
    if progress:
        progress(1.0)


def _time(times: Times) -> xr.Variable:
    return xr.Variable("time", times, {"standard_name": "time", "axis": "T"})


def _attributes(seed: int) -> dict[str, str | int | float]:
    return {
        "Conventions": "CF-1.11",
        "title": "Simulated weather",
        "source": f"climlstm {__version__}, three-level quasi-geostrophic model, T{TRUNCATION}",
        "references": "Marshall and Molteni 1993, J. Atmos. Sci. 50, 1792-1818",
        "comment": "Idealised: no observation entered, and its dates tell no more than the season.",
        "seed": seed,
        "parameters": json.dumps(asdict(Parameters())),
    }


def _write(
    folder: Path,
    model: QuasiGeostrophic,
    blocks: Iterator[tuple[int, Complex]],
    *,
    times: Times,
    seed: int,
) -> None:
    """Write the blocks, each when it is made."""
    for first, vorticity in blocks:
        here = times[first : first + vorticity.shape[-1]]
        cube = labelled(diagnose(model, vorticity), {"time": _time(here)})
        cube = cube.assign(static_fields()).assign_attrs(_attributes(seed))
        daily = _states(vorticity[..., ::STEPS_PER_DAY], here[::STEPS_PER_DAY], seed=seed)
        for block, group, length in (
            (cube, None, times.size),
            (daily, STATE_GROUP, times[::STEPS_PER_DAY].size),
        ):
            changing = [name for name, each in block.variables.items() if "time" in each.dims]
            if first > 0:
                block[changing].to_zarr(folder, group=group, append_dim="time", consolidated=False)
                continue
            encoding: dict[str, dict[str, Any]] = {
                str(name): {"chunks": block[name].shape} for name in changing
            }
            encoding["time"] = TIME_ENCODING | {"chunks": (length,)}
            block.to_zarr(folder, group=group, mode="a", encoding=encoding, consolidated=False)


def _consolidate(folder: Path) -> None:
    """Gather the metadata in one file, which xarray reads, though Zarr 3 has not adopted it yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(folder)


def _states(vorticity: Complex, times: Times, *, seed: int) -> xr.Dataset:
    """States of the model as real numbers in double precision: a run continues bit for bit."""
    parts = np.ascontiguousarray(np.moveaxis(vorticity, -1, 0)).view(np.float64)
    return xr.Dataset(
        {
            "potential_vorticity": xr.Variable(
                ("time", "zonal_wavenumber", "total_wavenumber", "level_and_part"),
                parts,
                {
                    "long_name": "potential vorticity at 200, 500 and 800 hPa less that at rest, "
                    "spectral coefficients, real and imaginary part of each",
                    "units": "s-1",
                },
            )
        },
        {"time": _time(times)},
        _attributes(seed),
    )


def _open_states(store: Path) -> tuple[xr.DataArray, QuasiGeostrophic]:
    """The daily states (time, m, n, level) of a store, and the model that made them."""
    try:
        states = xr.open_zarr(store, group=STATE_GROUP, consolidated=False)
    except (FileNotFoundError, KeyError) as error:
        raise DataError(
            f"{store} has no group '{STATE_GROUP}', which only simulated weather has. "
            "Name a store that 'simulate' wrote."
        ) from error
    model = QuasiGeostrophic(Parameters(**json.loads(states.attrs["parameters"])))
    return states["potential_vorticity"], model


def _analysis(
    model: QuasiGeostrophic,
    record: xr.DataArray,
    init_time: np.datetime64,
    *,
    amplitude: float,
    generator: np.random.Generator,
) -> Complex:
    """The state (m, n, level, 1) of the record at a time, with an error: see `predictability`."""
    last = record.time.values[-1] + np.timedelta64(1, "D")
    if (
        not record.time.values[0] <= init_time < last
        or (init_time - record.time.values[0]) % OUTPUT_STEP
    ):
        raise DataError(
            f"There is no state of the model at {init_time}: expected a time at every 6 h "
            f"from {record.time.values[0]} to before {last}."
        )
    days = (record.time.values - init_time) / np.timedelta64(1, "D")
    near = np.flatnonzero(np.abs(days) <= 45)
    first = generator.choice(near)
    others = near[np.abs(near - first) >= 10]
    if others.size == 0:
        raise DataError(
            f"The record has {near.size} days about {init_time}, too few for a draw from the "
            "climate. Simulate at least 20 days."
        )
    error = _state(record, first) - _state(record, generator.choice(others))
    day = int(np.flatnonzero(days <= 0)[-1])
    state = _state(record, day)
    elapsed = init_time - record.time.values[day]
    state = model.advance(state, record.time.values[day : day + 1], elapsed)
    return state + amplitude / np.sqrt(2) * error


def _state(record: xr.DataArray, day: int) -> Complex:
    """One state (m, n, level, 1) of the record."""
    return record.isel(time=day).values.view(np.complex128)[..., None]
