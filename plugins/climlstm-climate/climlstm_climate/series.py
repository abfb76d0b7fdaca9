"""Series of an index in forecasts and in the truth, and what is computed from them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from climlstm.calendars import clock
from climlstm.steps import MONTH, as_times, valid_times

Real = NDArray[np.floating]

FEWEST = 3
"""Forecasts without which there is no correlation."""

DAYS_OF_A_YEAR = 365.2425


@dataclass(frozen=True, eq=False)
class Series:
    """Forecast and truth of one index, (N, L): starts in order of time × lead times."""

    starts: NDArray[Any]
    leads: NDArray[Any]
    forecast: Real
    truth: Real
    """NaN where either is not known, in both alike."""

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Series":
        """The series in a table with init_time, lead_time, forecast and truth."""
        forecast, truth = (
            rows.pivot(index="init_time", columns="lead_time", values=name).sort_index()
            for name in ("forecast", "truth")
        )
        there = forecast.notna() & truth.notna()
        values = (table.where(there).to_numpy(dtype="float64") for table in (forecast, truth))
        return cls(forecast.index.to_numpy(), forecast.columns.to_numpy(), *values)

    @property
    def there(self) -> NDArray[np.bool_]:
        """(N, L): whether forecast and truth are known."""
        return np.isfinite(self.forecast)

    def chosen(self, rows: NDArray[np.bool_]) -> "Series":
        """The series of some of the starts."""
        return Series(self.starts[rows], self.leads, self.forecast[rows], self.truth[rows])

    def alike(self, other: "Series") -> tuple["Series", "Series"]:
        """This series and another one, both only where both are known."""
        table, rival = (
            pd.DataFrame(np.dstack([s.forecast, s.truth]).reshape(len(s.starts), -1), s.starts)
            for s in (self, other)
        )
        found = rival.reindex(table.index).to_numpy().reshape(*self.forecast.shape, 2)
        there = self.there & np.isfinite(found[:, :, 0])
        mine = replace(self, forecast=_where(there, self.forecast), truth=_where(there, self.truth))
        return mine, replace(mine, forecast=_where(there, found[:, :, 0]))

    def detrended(self) -> "Series":
        """The series without its straight lines over valid time, those of each lead apart."""
        days = days_of(valid_times(self.starts, self.leads))
        forecast, truth = (_without_line(days, each) for each in (self.forecast, self.truth))
        return replace(self, forecast=forecast, truth=truth)

    def three_months(self) -> "Series | None":
        """Means over three months, the valid one in the middle; None unless leads count months.

        The month of the start, lead 0, is the observed one where another start or lead has it.
        """
        if self.leads.dtype.kind not in "iu":
            return None
        columns = {int(lead): place for place, lead in enumerate([0, *self.leads])}
        kept = [int(lead) for lead in self.leads if {lead - 1, lead + 1} <= set(columns)]
        if not kept:
            return None
        around = [[columns[lead + by] for lead in kept] for by in (-1, 0, 1)]
        whole = (np.column_stack([self._observed(), each]) for each in (self.forecast, self.truth))
        forecast, truth = (np.mean([each[:, at] for at in around], axis=0) for each in whole)
        there = np.isfinite(forecast) & np.isfinite(truth)
        return Series(self.starts, np.array(kept), _where(there, forecast), _where(there, truth))

    def _observed(self) -> Real:
        """True values (N) at the starts themselves; NaN where no forecast is valid then."""
        valid = MONTH.number(valid_times(self.starts, self.leads), self.starts[:1])
        known = dict(zip(valid.ravel().tolist(), self.truth.ravel().tolist(), strict=True))
        months = MONTH.number(self.starts, self.starts[:1]).tolist()
        return np.array([known.get(month, np.nan) for month in months])

    def starts_of(self, years: int) -> int:
        """Number of starts in a block of so many years."""
        if len(self.starts) < 2:
            return 1
        apart = np.median(np.diff(days_of(self.starts)))
        return max(1, round(years * DAYS_OF_A_YEAR / apart))


def days_of(times: Any) -> Real:
    """Days since the first of the times, in their own calendar."""
    line = clock(as_times(times))
    return np.asarray((line - line.ravel()[0]) / np.timedelta64(1, "D"))


def moments(forecast: Real, truth: Real) -> list[Real]:
    """Columns (N, L) whose means make a correlation: f, t, f², t², f t."""
    return [forecast, truth, forecast**2, truth**2, forecast * truth]


def pearson(f: Real, t: Real, ff: Real, tt: Real, ft: Real) -> Real:
    """Correlation from the means of `moments`; NaN where one of the series is constant."""
    variance = (ff - f**2) * (tt - t**2)
    return np.divide(
        ft - f * t,
        np.sqrt(np.maximum(variance, 0)),
        out=np.full(np.shape(variance), np.nan),
        where=variance > 1e-20,
    )


def rmse(mse: Real) -> Real:
    """Root of a mean squared error."""
    return np.sqrt(mse)


def _where(there: NDArray[np.bool_], values: Real) -> Real:
    return np.where(there, values, np.nan)


def _without_line(days: Real, values: Real) -> Real:
    """Residuals (N, L) of straight lines over days (N, L), by least squares, column by column."""
    there = np.isfinite(values)
    number = np.maximum(there.sum(axis=0), 1)
    x = np.where(there, days, 0.0)
    x = np.where(there, days - x.sum(axis=0) / number, 0.0)
    y = np.where(there, values, 0.0)
    y = np.where(there, values - y.sum(axis=0) / number, 0.0)
    spread = (x**2).sum(axis=0)
    slope = np.divide((x * y).sum(axis=0), spread, out=np.zeros(len(number)), where=spread > 0)
    return _where(there, y - slope * x)
