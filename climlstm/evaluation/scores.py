"""Scores of forecasts on the grid: what WeatherBench 2 defines, and for ensembles as well.

Definitions are those of WeatherBench 2 (Rasp et al. 2024, arXiv:2308.15560), so that numbers can be
compared. The arithmetic is plain numpy: all regions come from one matrix product, which the
`scores` library does not have, and its latitude weights are cosines instead of areas.

Differences of float32 fields are taken in float32, which errs by 6e-8 of them at most; sums are in
float64. Cells where nothing is ever observed are NaN here and left out; any other NaN was refused
before.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.calendars import clock
from climlstm.evaluation.bootstrap import Real
from climlstm.evaluation.statistic import (
    KEYS,
    AreaMean,
    GridError,
    GridScore,
    area_mean,
    case_table,
    mean_of_members,
    members_of,
    ratio,
)


@dataclass(frozen=True)
class RMSE(GridError):
    """Root of the mean squared error; the root is taken after the mean over initialisations.

    Of an ensemble, here and wherever one value is wanted, its mean is scored.
    """

    metric, columns = "rmse", ("mse",)

    def statistic(self, forecast: Real, truth: Real) -> Real:
        return (forecast - truth) ** 2

    def finish(self, mse: Real) -> Real:
        return np.sqrt(mse)


@dataclass(frozen=True)
class MAE(GridError):
    """Mean absolute error."""

    metric, columns = "mae", ("mae",)

    def statistic(self, forecast: Real, truth: Real) -> Real:
        return np.abs(forecast - truth)


@dataclass(frozen=True)
class Bias(GridScore):
    """Mean error, forecast minus truth."""

    metric, columns = "bias", ("bias",)

    def statistic(self, forecast: Real, truth: Real) -> Real:
        return forecast - truth


@dataclass(frozen=True)
class ACC(GridScore):
    """Anomaly correlation coefficient: uncentred, for each initialisation, then averaged.

    Where a field has no anomaly, as climatology itself has none, it is undefined and has no row.
    """

    metric, columns, units, by_field = "acc", ("acc",), "1", True
    needs = ("weight", "climatology")

    def area_means(self, mean: AreaMean, forecast: Real, truth: Real, normal: Real) -> list[Real]:
        f, t = forecast - normal, truth - normal
        return [ratio(mean(f * t), np.sqrt(mean(f**2) * mean(t**2)))]


@dataclass(frozen=True)
class CRPS(GridError):
    """Continuous ranked probability score, fair: as if of an ensemble without end (Ferro 2014).

    Of a single forecast it is the absolute error.
    """

    metric, columns, of_members = "crps", ("crps",), True

    def statistic(self, members: Real, truth: Real) -> Real:
        return fair_crps(members, truth)


@dataclass(frozen=True)
class SpreadSkill(GridScore):
    """Ensemble spread, and its ratio to the RMSE of the ensemble mean: 1 where the two agree.

    Spread is the root of the mean variance (unbiased), times (M + 1) / M for M members
    (Fortin et al. 2014, J. Hydrometeor. 15, 1708-1713). A single forecast has no rows.
    """

    columns, of_members, by_field = ("variance", "mse"), True, True

    def area_means(self, mean: AreaMean, members: Real, truth: Real) -> list[Real]:
        number = len(members)
        if number == 1:
            return []
        spread = members.var(axis=0, ddof=1, dtype="float64") * (number + 1) / number
        return [mean(spread), mean((mean_of_members(members) - truth) ** 2)]

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        spread = self.rows("spread", [scores], np.sqrt, columns=["variance"])
        consistency = self.rows("spread_skill", [scores], self.finish, units="1")
        return pd.concat([spread, consistency], ignore_index=True)

    def finish(self, variance: Real, mse: Real) -> Real:
        return np.sqrt(ratio(variance, mse))


@dataclass(frozen=True)
class RankHistogram:
    """Share of area and cases in which the truth takes each rank among the members, 0 to M.

    Flat for a reliable ensemble. Ties are broken at random. A single forecast has no rows.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("weight",)

    seed: int = 0

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, weight: xr.DataArray
    ) -> pd.DataFrame:
        number = forecast.sizes.get("realization", 1)
        if number == 1:
            return pd.DataFrame()
        hour = int(clock(forecast.init_time.values).astype("datetime64[h]").astype("int64"))
        generator = np.random.default_rng([self.seed, hour % 2**32])
        ranks = {}
        for channel, members, observed in members_of(forecast, truth):
            ties = (members == observed).sum(axis=0)
            rank = (members < observed).sum(axis=0) + generator.integers(ties + 1)
            ranks[channel] = np.where(np.isnan(observed), np.nan, rank)
        tables = []
        for value in range(number + 1):
            shares = {
                c: {"share": area_mean(np.where(np.isnan(rank), np.nan, rank == value), weight)}
                for c, rank in ranks.items()
            }
            tables.append(case_table(forecast, weight, shares).assign(rank=value))
        return pd.concat(tables, ignore_index=True)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        groups = scores.dropna().groupby([*KEYS, "rank"], observed=True, sort=False)
        return groups["share"].agg(share="mean", n="count").reset_index()


def fair_crps(members: Real, truth: Real) -> Real:
    """Fair CRPS of members (M, …) against truth (…): E|X - y| - E|X - X'| / 2, unbiased in M."""
    number = len(members)
    error = np.abs(members - truth).mean(axis=0, dtype="float64")
    if number == 1:
        return error
    rank = np.arange(number).reshape(-1, *[1] * truth.ndim)
    pairs = ((2 * rank - number + 1) * np.sort(members, axis=0)).sum(axis=0)
    return error - pairs / (number * (number - 1))
