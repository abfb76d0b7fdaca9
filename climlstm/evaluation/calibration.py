"""Ensembles made honest: their mean and spread corrected by what a past period taught.

Ensemble model output statistics (Gneiting et al. 2005, Mon. Weather Rev. 133, 1098-1118): the truth
is normal with mean a + b x̄ and variance c + d s², of the ensemble's mean x̄ and variance s². The
four numbers, for each channel and lead time, make the CRPS of that law least over the cells and
starts of a period that is not scored later. Members are then moved and stretched, so that each
keeps its rank and its pattern (ensemble copula coupling; Schefzik et al. 2013, Statist. Sci. 28,
616-640).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field
from scipy.optimize import minimize
from scipy.special import ndtr

from climlstm.errors import DataError
from climlstm.evaluation.bootstrap import Real
from climlstm.evaluation.statistic import members_of, ratio
from climlstm.grid import Grid, grid_of

COEFFICIENTS = ["intercept", "slope", "variance", "spread"]


@dataclass(frozen=True)
class EMOS:
    """The coefficients of ensemble model output statistics; a table of its own.

    Columns: variable, lead_time, intercept a (unit of the variable), slope b, variance c (its
    square), spread d, and `crps` before and after, of a normal law, over the cells that were
    fitted to. A single forecast has no rows.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("weight",)

    cells: Annotated[int, Field(ge=1)] = 200
    """Cells of each start that are fitted to, evenly spread over the area."""

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, weight: xr.DataArray
    ) -> pd.DataFrame:
        """Mean and variance of the members, and the truth, at some cells of one start."""
        if forecast.sizes.get("realization", 1) < 2:
            return pd.DataFrame()
        places = _spread_by_area(grid_of(truth), weight.isel(region=0).values, self.cells)
        leads = forecast.lead_time.values
        tables = []
        for channel, members, observed in members_of(forecast, truth):
            flat = members.reshape(*members.shape[:2], -1)[..., places].astype("float64")
            came = observed.reshape(observed.shape[0], -1)[:, places]
            known = np.isfinite(came) & np.isfinite(flat).all(axis=0)
            lead, cell = np.nonzero(known)
            columns = {
                "variable": channel,
                "init_time": forecast.init_time.values,
                "lead_time": leads[lead],
                "mean": flat.mean(axis=0)[lead, cell],
                "spread": flat.var(axis=0, ddof=1)[lead, cell],
                "truth": came[lead, cell].astype("float64"),
            }
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The coefficients that make the CRPS least."""
        tables = []
        for (variable, lead), rows in scores.groupby(["variable", "lead_time"], sort=False):
            mean, spread, truth = (rows[c].to_numpy() for c in ("mean", "spread", "truth"))
            found = fit(mean, spread, truth)
            before, after = (
                gaussian_crps(mean_, np.sqrt(variance), truth).mean()
                for mean_, variance in ((mean, spread), _law(found, mean, spread))
            )
            row = {
                "variable": variable,
                "lead_time": lead,
                **dict(zip(COEFFICIENTS, found, strict=True)),
            }
            row |= {"crps_before": before, "crps_after": after, "n": len(rows)}
            tables.append(row)
        return pd.DataFrame(tables)


def fit(mean: Real, spread: Real, truth: Real) -> Real:
    """Coefficients (a, b, c, d) from ensemble means, variances and truths (N,), in their unit.

    Raises DataError for fewer than 10 values, which say nothing of four numbers.
    """
    if len(truth) < 10:
        raise DataError(
            f"Four coefficients cannot be fitted to {len(truth)} values. Forecast more starts."
        )
    slope, intercept = np.polynomial.Polynomial.fit(mean, truth, 1).convert().coef[::-1]
    rest = np.var(truth - intercept - slope * mean)
    scale = np.sqrt(rest) or 1.0
    centre = mean.mean()

    def unpacked(numbers: Real) -> Real:
        a, b, c, d = numbers
        return np.array([a * scale + centre - b * centre, b, (c * scale) ** 2, d**2])

    def loss(numbers: Real) -> float:
        law = _law(unpacked(numbers), mean, spread)
        return float(gaussian_crps(law[0], np.sqrt(law[1]), truth).mean()) / scale

    start = [(intercept + slope * centre - centre) / scale, slope, 0.5, 0.7]
    found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 400, "fatol": 1e-7})
    return unpacked(found.x)


def calibrated(forecasts: xr.Dataset, table: pd.DataFrame) -> xr.Dataset:
    """The forecasts, lazily, with the mean and spread that the coefficients of a table give.

    table: as `EMOS` makes it. Raises DataError for a channel or lead time that it lacks.
    """
    changed = {}
    for name, field in forecasts.items():
        if "lead_time" not in field.dims:
            continue
        rows = table[table["variable"] == name].set_index("lead_time")
        missing = [t for t in forecasts.lead_time.values if t not in rows.index]
        if missing:
            raise DataError(
                f"There are no coefficients of '{name}' at {len(missing)} lead times, the first "
                f"{missing[0]}. Fit them to forecasts of the same channels and lead times."
            )
        a, b, c, d = (
            xr.DataArray(
                rows[column].loc[forecasts.lead_time.values].to_numpy(),
                dims="lead_time",
            )
            for column in COEFFICIENTS
        )
        mean, spread = field.mean("realization"), field.var("realization", ddof=1)
        # The middle of the members is that of the law, without the error of the middle of a sample
        # with M / (M + 1) of the variance, scores that allow for that error find it honest.
        share = field.sizes["realization"] / (field.sizes["realization"] + 1)
        stretch: xr.DataArray = (share * (c + d * spread) / spread.where(spread > 0)) ** 0.5
        moved = a + b * mean + stretch.fillna(0.0) * (field - mean)
        changed[name] = moved.transpose(*field.dims).astype(field.dtype).assign_attrs(field.attrs)
    return forecasts.assign(changed)


def gaussian_crps(mean: Real, deviation: Real, truth: Real) -> Real:
    """CRPS of a normal law (Gneiting et al. 2005, eq. 5); the absolute error without deviation."""
    z = ratio(truth - mean, deviation)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    found = deviation * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return np.where(deviation > 0, found, np.abs(truth - mean))


def _law(numbers: Real, mean: Real, spread: Real) -> tuple[Real, Real]:
    """Mean and variance of the normal law."""
    a, b, c, d = numbers
    return a + b * mean, c + d * spread


def _spread_by_area(grid: Grid, weight: Real, number: int) -> np.ndarray:
    """Indices of cells at equal steps of area, row by row from the north, whatever their order."""
    east = np.round(grid.longitude.ravel(), 6) % 360
    order = np.lexsort((east, -grid.latitude.ravel()))
    total = np.cumsum(weight.ravel()[order])
    wanted = (np.arange(number) + 0.5) / number * total[-1]
    return order[np.unique(np.searchsorted(total, wanted))]
