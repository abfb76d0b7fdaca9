"""The evaluator `climate`: whether a long rollout has the climate of the truth, and stays there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field

from climlstm.grid import grid_of
from climlstm_climate.sums import ClimateSums, summed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL_SCALES = 0.5
"""Wavenumbers above this share of the largest count as small scales."""


@dataclass(frozen=True)
class Climate:
    """Time means, variance, trend, spectrum and drift of a rollout beside those of the truth.

    Reference is the truth at all of its times, so forecasts may be longer than the data. `noise` is
    by how much two halves of the truth differ: what is smaller than that says nothing. Both are
    read in blocks; memory does not grow with their length. Where the rollout blew up, its climate
    is that of the steps before.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    streams: ClassVar[bool] = True
    api_version: ClassVar[int] = 1

    limit: Annotated[float, Field(gt=1)] = 5.0
    """A state has blown up where its standard deviation along rows is this many times the largest
    of the truth (or values are not finite)."""

    def score(self, forecast: xr.Dataset, truth: xr.Dataset) -> pd.DataFrame:
        """All numbers of one rollout: summary, maps, zonal means, spectra and series of years.

        forecast: (lead_time, latitude, longitude) of one initialisation, lazy; truth: (time, …),
        lazy. Columns: variable, kind, name, x, latitude, longitude, forecast, reference, noise.
        """
        if "realization" in forecast.dims:
            forecast = forecast.isel(realization=0, drop=True)
        tables = []
        for name in map(str, forecast.data_vars):
            halves = np.array_split(np.arange(truth.sizes["time"]), 2)
            parts = [summed(truth[name].isel(time=half), "time")[0] for half in halves]
            known, _ = summed(truth[name], "time")
            bound = self.limit**2 * max(known.eddies)
            own, blown = summed(forecast[name], "lead_time", eddy_limit=bound)
            if not own.area.any():
                continue
            found = [
                _table(
                    "summary", name=["blow_up_step"], forecast=np.nan if blown is None else blown
                )
            ]
            if own.steps:
                found = [_summary(own, known, parts), *found]
                found += _fields(own, known, parts, forecast[name])
            tables += [table.assign(variable=name) for table in found]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The summary: a row for each variable and quantity, means over the initialisations.

        blow_up_step is that of the first one to blow up; NaN where none did.
        """
        chosen = scores[scores["kind"] == "summary"]
        groups = chosen.groupby(["variable", "name"], sort=False)
        table = groups[["forecast", "reference", "noise"]].mean().reset_index()
        first = groups["forecast"].min().reset_index()
        blown = table["name"] == "blow_up_step"
        table.loc[blown, "forecast"] = first.loc[blown, "forecast"]
        return table.rename(columns={"name": "quantity"})

    def figures(self, scores: pd.DataFrame) -> "dict[str, Figure]":
        """Maps of the bias, zonal means, spectra and global means of each year, by title."""
        from climlstm_climate import climate_figures  # matplotlib is an extra

        return climate_figures.figures(scores)

    def write(self, scores: pd.DataFrame, folder: Path) -> list[Path]:
        """Write maps, zonal means, spectra and series as climate_fields.csv."""
        path = folder / "climate_fields.csv"
        scores[scores["kind"] != "summary"].to_csv(path, index=False)
        return [path]


def _table(kind: str, **columns: Any) -> pd.DataFrame:
    """Rows of one kind; columns that they do not have are NaN."""
    rows = pd.DataFrame({"kind": kind, **columns})
    return rows.reindex(columns=["kind", "name", "x", "latitude", "longitude", *VALUES])


VALUES = ["forecast", "reference", "noise"]


def _summary(own: ClimateSums, known: ClimateSums, halves: list[ClimateSums]) -> pd.DataFrame:
    """A row for each quantity of a rollout, of the truth, and of one half against the other."""
    one, two = halves
    pairs = (own, known), (one, two)
    bias, bias_noise = (a.over_area(a.mean - b.mean) for a, b in pairs)
    noise = abs(bias_noise)
    rows = [
        ("years", own.years[-1] - own.years[0], known.years[-1] - known.years[0], np.nan),
        ("mean", own.over_area(own.mean), known.over_area(known.mean), noise),
        ("bias", bias, 0.0, noise),
        ("trend_per_decade", *(10 * s.over_area(s.trend) for s in (own, known)), np.nan),
        ("drift", own.drift(), known.drift(), np.nan),
    ]
    for name, measure, perfect in (
        ("map_rmse", _map_rmse, 0.0),
        ("zonal_rmse", _zonal_rmse, 0.0),
        ("variance_ratio", _ratio_of(lambda s: s.over_area(s.variance)), 1.0),
        ("wave_variance_ratio", _ratio_of(lambda s: float(np.mean(s.eddies))), 1.0),
        ("small_scale_ratio", _ratio_of(_small), 1.0),
    ):
        found, apart = (measure(a, b) for a, b in pairs)
        rows.append((name, found, perfect, apart))
    columns = zip(*rows, strict=True)
    return _table("summary", **dict(zip(["name", *VALUES], map(list, columns), strict=True)))


def _fields(
    own: ClimateSums, known: ClimateSums, halves: list[ClimateSums], field: xr.DataArray
) -> list[pd.DataFrame]:
    """Map of the time mean, zonal mean, spectrum, and global means of each year."""
    grid = grid_of(field)
    latitude, longitude = np.asarray(grid.latitude), np.asarray(grid.longitude)
    noise = halves[0].mean - halves[1].mean
    there = own.area > 0
    rows = there.any(axis=1)
    cells = (latitude, longitude, own.mean, known.mean, noise)
    zonal = (_zonal(each, own.area) for each in (own.mean, known.mean, noise))
    waves = np.arange(1, len(own.spectrum))
    series = [_annual_means(sums) for sums in (own, known)]
    years = sorted(set(series[0]) | set(series[1]))
    forecast, reference = ([means.get(year, np.nan) for year in years] for means in series)
    return [
        _table(
            "map",
            name="mean",
            **dict(zip(["latitude", "longitude", *VALUES], (c[there] for c in cells), strict=True)),
        ),
        _table(
            "zonal",
            name="mean",
            latitude=latitude.mean(axis=1)[rows],
            **dict(zip(VALUES, (z[rows] for z in zonal), strict=True)),
        ),
        _table(
            "spectrum",
            name="power",
            x=waves,
            forecast=own.spectrum[1:],
            reference=known.spectrum[1:],
        ),
        _table("series", name="annual mean", x=years, forecast=forecast, reference=reference),
    ]


def _annual_means(sums: ClimateSums) -> dict[float, float]:
    """Global mean of each year since the first step."""
    years = pd.Series(np.floor(sums.years))
    return pd.Series(sums.means).groupby(years).mean().to_dict()


def _map_rmse(own: ClimateSums, known: ClimateSums) -> float:
    return float(np.sqrt(own.over_area((own.mean - known.mean) ** 2)))


def _zonal(field: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Mean of each row; NaN where no cell has a value."""
    there = area > 0
    sums = np.where(there, field, 0.0).sum(axis=1)
    return np.divide(sums, there.sum(axis=1), out=np.full(len(sums), np.nan), where=there.any(1))


def _zonal_rmse(own: ClimateSums, known: ClimateSums) -> float:
    difference = _zonal(own.mean, own.area) - _zonal(known.mean, known.area)
    rows = np.where(np.isfinite(difference), own.area.sum(axis=1), 0.0)
    return float(np.sqrt(np.average(np.nan_to_num(difference) ** 2, weights=rows)))


def _small(sums: ClimateSums) -> float:
    """Power of the small scales."""
    spectrum = sums.spectrum
    return float(spectrum[int(SMALL_SCALES * (len(spectrum) - 1)) + 1 :].sum())


def _ratio_of(quantity: Callable[[ClimateSums], float]) -> Callable[..., float]:
    """The function that compares a quantity of two series; NaN where the second has none."""

    def ratio(own: ClimateSums, known: ClimateSums) -> float:
        return float(quantity(own) / quantity(known)) if quantity(known) > 0 else np.nan

    return ratio
