"""The evaluator `enso`: how well forecasts of sea surface temperature know El Niño and the IOD."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.calendars import month_of_year
from climlstm.errors import DataError
from climlstm.evaluation.bootstrap import Bootstrap, mean_over_cases
from climlstm.steps import as_times, valid_times
from climlstm_climate.indices import INDICES, Real, area_index
from climlstm_climate.series import FEWEST, Series, moments, pearson, rmse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANNELS = ("sst", "sst_anomaly", "ssta", "sstanom", "tos", "skt")
"""Channels that hold the temperature of the sea surface, in the order of preference."""


@dataclass(frozen=True)
class ENSO:
    """Correlation and RMSE of Niño3.4, ONI and IOD by lead, with intervals from blocks of years.

    Indices are means of anomalies against the climatology of the training period; those whose boxes
    the grid does not cover are left out. ONI is the mean of Niño3.4 over three months, that before
    and that after the valid one (a month before the start is the observed one), for steps of a
    month. `_detrended` scores have the straight line over the scored years taken out of forecasts
    and truth, so that a warming trend alone is no skill.
    """

    needs: ClassVar[tuple[str, ...]] = ("climatology",)
    api_version: ClassVar[int] = 1
    headline: ClassVar[tuple[str, ...]] = ("correlation", "correlation_detrended")

    channel: str | None = None
    """Sea surface temperature, its anomaly, or what stands for it; None: the first of `CHANNELS`
    that the forecast has."""
    years: int = 1
    """Years in a block of the bootstrap: forecasts of neighbouring months are nearly one."""
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    @property
    def requires(self) -> tuple[str, ...]:
        return () if self.channel is None else (self.channel,)

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, climatology: xr.Dataset
    ) -> pd.DataFrame:
        """Anomalies of each index in forecast and truth, a row for each lead time.

        Of an ensemble, the mean. Raises DataError where there is no temperature of the sea, or the
        grid covers none of the indices.
        """
        channel = self.channel or _temperature(forecast)
        fields = forecast[channel].astype("float64")
        if "realization" in fields.dims:
            fields = fields.mean("realization")
        normal = climatology[channel]
        start = forecast["init_time"].values
        leads = forecast["lead_time"].values
        tables = []
        for name in INDICES:
            predicted, true = (area_index(f - normal, name) for f in (fields, truth[channel]))
            if predicted is None or true is None:
                continue
            table = {"index": name, "lead_time": leads, "forecast": predicted, "truth": true}
            times = valid_times(np.asarray([start]), leads)[0]
            tables.append(pd.DataFrame(table | {"valid_time": times}))
        if not tables:
            raise DataError(
                f"The grid of '{channel}' covers neither Niño3.4 (5°S to 5°N, 170°W to 120°W) "
                "nor the boxes of the IOD. Leave the evaluator 'enso' out, or widen the region."
            )
        return pd.concat(tables, ignore_index=True)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Correlation and RMSE by index and lead time over all starts, with intervals."""
        tables = []
        for name, series in self._series(scores):
            for suffix, each in (("", series), ("_detrended", series.detrended())):
                pair = each.forecast, each.truth
                error = [(each.forecast - each.truth) ** 2]
                tables += [
                    self._rows(name, each, f"correlation{suffix}", moments(*pair), pearson),
                    self._rows(name, each, f"rmse{suffix}", error, rmse),
                ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def compare(self, scores: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
        """Gain in correlation over another forecast, for the same starts: above 0 is better."""
        others = dict(self._series(reference))
        tables = []
        for name, series in self._series(scores):
            if name not in others:
                continue
            own, other = series.alike(others[name])

            def gain(*means: Real) -> Real:
                return pearson(*means[:5]) - pearson(*means[5:])

            values = [*moments(own.forecast, own.truth), *moments(other.forecast, other.truth)]
            tables.append(self._rows(name, own, "correlation_gain", values, gain))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["metric"])

    def by_start(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Correlation and RMSE by index, month of the start (1 to 12) and lead time.

        scores: as `summarise` gets them. Where fewer than three starts are known, no row.
        """
        names = ["index", "start_month", "lead_time", "correlation", "rmse", "n"]
        tables = [pd.DataFrame(columns=names)]
        for name, series in self._series(scores):
            months = month_of_year(as_times(series.starts))
            for month in np.unique(months):
                own = series.chosen(months == month)
                found = pearson(*map(mean_over_cases, moments(own.forecast, own.truth)))
                error = rmse(mean_over_cases((own.forecast - own.truth) ** 2))
                number = own.there.sum(axis=0)
                columns = (name, int(month), own.leads, found, error, number)
                table = pd.DataFrame(dict(zip(names, columns, strict=True)))
                tables.append(table[number >= FEWEST])
        return pd.concat([t for t in tables if len(t)] or tables, ignore_index=True)

    def write(self, scores: pd.DataFrame, folder: Path) -> list[Path]:
        """Write `by_start` as enso_by_start.csv, and the indices as enso_indices.csv."""
        tables = {"enso_by_start.csv": self.by_start(scores), "enso_indices.csv": scores}
        for name, table in tables.items():
            table.to_csv(folder / name, index=False)
        return [folder / name for name in tables]

    def figures(self, scores: pd.DataFrame) -> "dict[str, Figure]":
        """Curves of skill by lead, the spring barrier, and the indices against time, by title.

        scores: of all models, with a column `model`, the first of which is the forecast.
        """
        from climlstm_climate import enso_figures  # matplotlib is an extra

        return enso_figures.figures(self, scores)

    def _series(self, scores: pd.DataFrame) -> Iterator[tuple[str, Series]]:
        """Forecast and truth of each index; ONI behind Niño3.4, where leads count months."""
        for name in [n for n in INDICES if n in set(scores.get("index", ()))]:
            series = Series.of(scores[scores["index"] == name])
            yield name, series
            if name == "nino34" and (oni := series.three_months()) is not None:
                yield "oni", oni

    def _rows(
        self, name: str, series: Series, metric: str, values: list[Real], finish: Any
    ) -> pd.DataFrame:
        value = finish(*(mean_over_cases(each) for each in values))
        number = series.there.sum(axis=0)
        block = series.starts_of(self.years)
        low, high = self.bootstrap.interval(values, finish, block=block)
        table = pd.DataFrame(
            {
                "variable": name,
                "lead_time": series.leads,
                "metric": metric,
                "value": np.where(number >= FEWEST, value, np.nan),
                "ci_low": low,
                "ci_high": high,
                "n": number,
                "units": "K" if metric.startswith("rmse") else "1",
            }
        )
        return table[table["value"].notna()]


def _temperature(forecast: xr.Dataset) -> str:
    found = next((name for name in CHANNELS if name in forecast), None)
    if found is None:
        raise DataError(
            f"The evaluator 'enso' needs one of {', '.join(CHANNELS)}, or its option 'channel', "
            f"but the forecast has {', '.join(map(str, forecast.data_vars))}."
        )
    return found
