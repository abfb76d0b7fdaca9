"""Scores of forecasts on the grid: what WeatherBench 2 defines, and for ensembles as well.

Each evaluator averages over area, for one initialisation at a time, and over initialisations at the
end. Definitions are those of WeatherBench 2 (Rasp et al. 2024, arXiv:2308.15560), so that numbers
can be compared. The arithmetic is plain numpy: all regions come from one matrix product, which the
`scores` library does not have, and its latitude weights are cosines instead of areas.

Differences of float32 fields are taken in float32, which errs by 6e-8 of them at most; sums are in
float64. Cells where nothing is ever observed are NaN here and left out; any other NaN was refused
before.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.evaluation.averages import (
    KEYS,
    Real,
    area_mean,
    case_table,
    ratio,
    skill_score,
    summary,
)
from climlstm.evaluation.bootstrap import Bootstrap


@dataclass(frozen=True)
class RMSE:
    """Root of the mean squared error; the root is taken after the mean over initialisations.

    Of an ensemble, here and wherever one value is wanted, its mean is scored.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("weight",)

    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, weight: xr.DataArray
    ) -> pd.DataFrame:
        mse = {c: area_mean((f - t) ** 2, weight) for c, f, t in _channels(forecast, truth)}
        return case_table(forecast, weight, mse=mse)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        return summary("rmse", scores, "mse", bootstrap=self.bootstrap, finish=np.sqrt)

    def compare(self, scores: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
        """Skill score 1 - RMSE / RMSE of the reference, over the same cases."""
        return skill_score(
            "rmse", scores, reference, "mse", bootstrap=self.bootstrap, finish=np.sqrt
        )


@dataclass(frozen=True)
class MAE:
    """Mean absolute error."""

    requires: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("weight",)

    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, weight: xr.DataArray
    ) -> pd.DataFrame:
        mae = {c: area_mean(np.abs(f - t), weight) for c, f, t in _channels(forecast, truth)}
        return case_table(forecast, weight, mae=mae)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        return summary("mae", scores, "mae", bootstrap=self.bootstrap)

    def compare(self, scores: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
        """Skill score 1 - MAE / MAE of the reference, over the same cases."""
        return skill_score("mae", scores, reference, "mae", bootstrap=self.bootstrap)


@dataclass(frozen=True)
class Bias:
    """Mean error, forecast minus truth."""

    requires: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("weight",)

    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, weight: xr.DataArray
    ) -> pd.DataFrame:
        bias = {c: area_mean(f - t, weight) for c, f, t in _channels(forecast, truth)}
        return case_table(forecast, weight, bias=bias)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        return summary("bias", scores, "bias", bootstrap=self.bootstrap)


@dataclass(frozen=True)
class ACC:
    """Anomaly correlation coefficient: uncentred, for each initialisation, then averaged.

    Where a field has no anomaly, as climatology itself has none, it is undefined and has no row.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("weight", "climatology")

    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def score(
        self,
        forecast: xr.Dataset,
        truth: xr.Dataset,
        *,
        weight: xr.DataArray,
        climatology: xr.Dataset,
    ) -> pd.DataFrame:
        acc = {}
        for channel, predicted, observed in _channels(forecast, truth):
            normal = climatology.variables[channel].values
            f, t = predicted - normal, observed - normal
            norm = np.sqrt(area_mean(f**2, weight) * area_mean(t**2, weight))
            acc[channel] = ratio(area_mean(f * t, weight), norm)
        return case_table(forecast, weight, acc=acc)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        return summary("acc", scores, "acc", bootstrap=self.bootstrap).assign(units="1")


@dataclass(frozen=True)
class CRPS:
    """Continuous ranked probability score, fair: as if of an ensemble without end (Ferro 2014).

    Of a single forecast it is the absolute error.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("weight",)

    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, weight: xr.DataArray
    ) -> pd.DataFrame:
        crps = {c: area_mean(fair_crps(f, t), weight) for c, f, t in _members(forecast, truth)}
        return case_table(forecast, weight, crps=crps)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        return summary("crps", scores, "crps", bootstrap=self.bootstrap)

    def compare(self, scores: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
        """Skill score 1 - CRPS / CRPS of the reference, over the same cases."""
        return skill_score("crps", scores, reference, "crps", bootstrap=self.bootstrap)


@dataclass(frozen=True)
class SpreadSkill:
    """Ensemble spread, and its ratio to the RMSE of the ensemble mean: 1 where the two agree.

    Spread is the root of the mean variance (unbiased), times (M + 1) / M for M members
    (Fortin et al. 2014, J. Hydrometeor. 15, 1708-1713). A single forecast has no rows.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("weight",)

    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def score(
        self, forecast: xr.Dataset, truth: xr.Dataset, *, weight: xr.DataArray
    ) -> pd.DataFrame:
        number = forecast.sizes.get("realization", 1)
        variance, mse = {}, {}
        for channel, members, observed in _members(forecast, truth):
            if number > 1:
                spread = members.var(axis=0, ddof=1, dtype="float64") * (number + 1) / number
                error = members.mean(axis=0, dtype="float64") - observed
                variance[channel] = area_mean(spread, weight)
                mse[channel] = area_mean(error**2, weight)
        return case_table(forecast, weight, variance=variance, mse=mse)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        spread = summary("spread", scores, "variance", bootstrap=self.bootstrap, finish=np.sqrt)
        consistency = summary(
            "spread_skill",
            scores,
            "variance",
            "mse",
            bootstrap=self.bootstrap,
            finish=lambda variance, mse: np.sqrt(ratio(variance, mse)),
        )
        return pd.concat([spread, consistency.assign(units="1")], ignore_index=True)


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
        hour = int(forecast.init_time.values.astype("datetime64[h]").astype("int64"))
        generator = np.random.default_rng([self.seed, hour % 2**32])
        shares: list[dict[str, Real]] = [{} for _ in range(number + 1)]
        for channel, members, observed in _members(forecast, truth):
            ties = (members == observed).sum(axis=0)
            rank = (members < observed).sum(axis=0) + generator.integers(ties + 1)
            for value, by_channel in enumerate(shares):
                there = np.where(np.isnan(observed), np.nan, rank == value)
                by_channel[channel] = area_mean(there, weight)
        tables = [
            case_table(forecast, weight, share=s).assign(rank=r) for r, s in enumerate(shares)
        ]
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


def _channels(forecast: xr.Dataset, truth: xr.Dataset) -> Iterator[tuple[str, Real, Real]]:
    """Channel by channel: its name, the forecast (the mean of an ensemble), the truth."""
    for channel, members, observed in _members(forecast, truth):
        single = len(members) == 1
        yield channel, members[0] if single else members.mean(axis=0, dtype="float64"), observed


def _members(forecast: xr.Dataset, truth: xr.Dataset) -> Iterator[tuple[str, Real, Real]]:
    """Channel by channel: its name, the members (M, L, H, W), the truth (L, H, W)."""
    for name, variable in forecast.data_vars.variables.items():
        ensemble = variable.dims[0] == "realization"
        members = variable.values if ensemble else variable.values[None]
        yield str(name), members, truth.variables[name].values
