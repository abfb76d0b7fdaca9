"""Checks of baselines: forecasts without a network."""

from typing import Any, ClassVar

import numpy as np
import xarray as xr

from climlstm.evaluation.baselines import forecast_of, ready
from climlstm.plugins import BASELINE_NEEDS, Baseline, TrainingPeriod
from climlstm.steps import Step
from climlstm.testing.checks import Conformance, expect, expect_options, pickled

STEP = np.timedelta64(6, "h")
START = np.datetime64("2020-01-05T00", "us")
LEADS = np.arange(1, 4) * STEP


class BaselineTests(Conformance):
    """Promises of a baseline; set `baseline` to one, made with its options."""

    baseline: ClassVar[Baseline]

    def test_options_can_be_validated(self) -> None:
        """Its options are the fields of a dataclass; history and needs can be had."""
        expect_options(type(self.baseline))
        history = self.baseline.history
        expect(isinstance(history, int) and history >= 0, f"'history' is {history!r}")
        unknown = set(getattr(self.baseline, "needs", ())) - set(BASELINE_NEEDS)
        expect(not unknown, f"'needs' names {sorted(unknown)}; there are {BASELINE_NEEDS}")

    def test_fields_like_the_forecasts(self) -> None:
        """It gives each channel at each lead time, all finite."""
        made = self._forecast(_weather())
        for name, array in made.items():
            expect(np.isfinite(array.values).all(), f"'{name}' has values that are not finite")

    def test_missing_cells(self) -> None:
        """Cells that are never observed (NaN) leave the others finite."""
        weather = _weather()
        seen = xr.ones_like(weather["t2m"].isel(time=0, drop=True), dtype=bool)
        seen[:2, :3] = False
        made = self._forecast(weather.where(seen))
        lost = sum(int((made[name].isnull() & seen).any("lead_time").sum()) for name in made)
        expect(lost < int(seen.sum()), f"six missing cells take {lost} others with them")

    def test_deterministic(self) -> None:
        """The same start gets the same forecast."""
        first, second = self._forecast(_weather()), self._forecast(_weather())
        expect(first.equals(second), "it gives another forecast the second time")

    def test_inputs_are_left_alone(self) -> None:
        """The past is not changed."""
        weather = _weather()
        kept = weather.copy(deep=True)
        self._forecast(weather)
        expect(weather.identical(kept), "forecast() changes the past in place")

    def test_picklable(self) -> None:
        """It can be sent to other workers, fitted too."""
        pickled(ready(self.baseline, lambda: _training(_weather())))

    def _forecast(self, weather: xr.Dataset) -> xr.Dataset:
        fitted = ready(self.baseline, lambda: _training(weather))
        number = fitted.history
        past = _cut(weather, np.arange(1 - number, 1) * STEP)
        offered: dict[str, Any] = {
            "climatology": _normal(_cut(weather, LEADS)),
            "past_climatology": _normal(past),
        }
        return forecast_of("it", fitted, past, _cut(weather, LEADS), offered)


def _cut(weather: xr.Dataset, leads: Any) -> xr.Dataset:
    chosen = weather.sel(time=xr.DataArray(START + leads, dims="lead_time"))
    return chosen.drop_vars("time").assign_coords(lead_time=leads, init_time=START)


def _normal(fields: xr.Dataset) -> xr.Dataset:
    return xr.zeros_like(fields).where(fields.notnull())


def _weather() -> xr.Dataset:
    """Waves that travel east past random noise, 40 steps of two channels."""
    generator = np.random.default_rng(3)
    latitude, longitude = np.linspace(75, -75, 11), np.arange(0, 360, 30.0)
    steps = np.arange(40)[:, None, None]
    fields = {}
    for number, (name, units) in enumerate({"t2m": "K", "msl": "Pa"}.items()):
        waves = np.cos(np.deg2rad(2 * longitude) - 0.3 * steps + number) * np.ones((1, 11, 1))
        noise = generator.normal(0, 0.2, (40, 11, 12))
        dims = ("time", "latitude", "longitude")
        fields[name] = (dims, (waves + noise).astype("float32"), {"units": units})
    times = START + (np.arange(40) - 36) * STEP
    coords = {"time": times, "latitude": latitude, "longitude": longitude}
    return xr.Dataset(fields, coords=coords)


def _training(weather: xr.Dataset) -> TrainingPeriod:
    part = weather.isel(time=slice(0, 33))
    zero = xr.zeros_like(part.isel(time=0, drop=True))
    normal = zero.expand_dims(hour=[0, 6, 12, 18], dayofyear=np.arange(1, 367))
    return TrainingPeriod(part, normal, Step.parse("6h"), LEADS.size)
