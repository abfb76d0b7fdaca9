"""The building block of evaluators: a statistic of each cell, its means, and how a score follows.

The statistic is averaged over area, one initialisation at a time, and over initialisations at the
end; roots and ratios are taken of these means, as in weatherbenchX. A plugin writes no more than

    @dataclass(frozen=True)
    class RMSE(GridError):
        metric, columns = "rmse", ("mse",)

        def statistic(self, forecast, truth):
            return (forecast - truth) ** 2

        def finish(self, mse):
            return np.sqrt(mse)

and has regions, ensembles, intervals, and skill beside the baselines.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.evaluation.bootstrap import Bootstrap, Real, mean_over_cases

KEYS = ["variable", "lead_time", "region"]
"""Columns that identify a score of one model."""

AreaMean = Callable[[Real], Real]


@dataclass(frozen=True)
class GridScore:
    """A score from means over area and initialisations; a subclass has `metric` and `statistic`.

    Its fields are its options in the run file, `bootstrap` among them.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("weight",)
    """Inputs besides forecast and truth; a climatology is the third argument of `statistic`."""
    metric: ClassVar[str]
    """Name of the score in the table."""
    columns: ClassVar[tuple[str, ...]] = ("mean",)
    """Names of the area means in the tables of single initialisations."""
    units: ClassVar[str | None] = None
    """Units of the score, where they are not those of the variable."""
    of_members: ClassVar[bool] = False
    """Whether `statistic` gets all members (M, L, H, W), and not their mean (L, H, W)."""

    by_field: ClassVar[bool] = True
    """Whether each field (H, W) is scored by itself, so that fields of several initialisations may
    come together. One that overrides `area_means` has to say so; see `scores_by_field`."""

    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def statistic(self, *fields: Any, **_: Any) -> Real:
        """Statistic of each cell (L, H, W), from the forecast and the truth of one channel."""
        raise NotImplementedError(f"{type(self).__name__} has no statistic(forecast, truth).")

    def finish(self, *means: Any, **_: Any) -> Real:
        """The score from the mean of each column over initialisations; by default that mean."""
        return np.asarray(*means)

    def area_means(self, mean: AreaMean, *fields: Any, **_: Any) -> Sequence[Real]:
        """Area means (L, R), one for each column; none where the channel has no score.

        fields: as `statistic` gets them. Override this where means are combined in each case.
        """
        return [mean(self.statistic(*fields))]

    def score(
        self,
        forecast: xr.Dataset,
        truth: xr.Dataset,
        *,
        weight: xr.DataArray,
        climatology: xr.Dataset | None = None,
    ) -> pd.DataFrame:
        """Area means of one initialisation, by variable, lead time and region."""
        mean = functools.partial(area_mean, weight=weight)
        found = {}
        for channel, members, observed in members_of(forecast, truth):
            fields = [members if self.of_members else mean_of_members(members), observed]
            if climatology is not None:
                fields.append(climatology.variables[channel].values)
            try:
                with np.errstate(over="raise"):
                    means = self.area_means(mean, *fields)
            except FloatingPointError:  # squares of wild values, too large for float32
                means = self.area_means(mean, *(field.astype("float64") for field in fields))
            if means:
                found[channel] = dict(zip(self.columns, means, strict=True))
        return case_table(forecast, weight, found) if found else pd.DataFrame()

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Scores over all initialisations, with intervals."""
        return self.rows(self.metric, [scores], self.finish)

    def rows(
        self,
        metric: str,
        tables: Sequence[pd.DataFrame],
        finish: Callable[..., Real],
        *,
        columns: Sequence[str] | None = None,
        units: str | None = None,
    ) -> pd.DataFrame:
        """Rows of the score table: finish(mean of each column of each table), and its interval.

        Only cases that all tables have count, so that differences are paired.
        """
        cases = [_cases(t, column) for t in tables for column in columns or self.columns]
        groups = cases[0].columns
        values = [case.reindex(index=cases[0].index, columns=groups).to_numpy() for case in cases]
        there = np.logical_and.reduce([~np.isnan(case) for case in values])
        values = [np.where(there, case, np.nan) for case in values]
        with np.errstate(invalid="ignore", over="ignore"):  # a case may be infinite
            low, high, blocks = self.bootstrap.intervals(values, finish)
            value = finish(*(mean_over_cases(case) for case in values))
        table = groups.to_frame(index=False).assign(
            metric=metric,
            value=value,
            ci_low=low,
            ci_high=high,
            n=there.sum(axis=0),
        )
        units = units or self.units
        table = table if units is None else table.assign(units=units)
        table.attrs["blocks"] = sorted(set(blocks.tolist()))
        return table[table["value"].notna()]


@dataclass(frozen=True)
class GridError(GridScore):
    """A score that is 0 for a perfect forecast, so that it makes a skill score, too."""

    def compare(self, scores: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
        """Skill score 1 - score / score of the reference, over the same cases."""
        half = len(self.columns)

        def finish(*means: Real) -> Real:
            return skill(self.finish(*means[:half]), self.finish(*means[half:]))

        return self.rows(f"{self.metric}_skill", [scores, reference], finish, units="1")


def scores_by_field(evaluator: object) -> bool:
    """Whether an evaluator may get fields of several initialisations together."""
    kind = type(evaluator)
    if not issubclass(kind, GridScore) or kind.score is not GridScore.score:
        return False
    plain = kind.area_means is GridScore.area_means
    said = [each.__dict__["by_field"] for each in kind.__mro__ if "by_field" in each.__dict__]
    return bool(said[0]) and (plain or len(said) > 1)


def members_of(forecast: xr.Dataset, truth: xr.Dataset) -> Iterator[tuple[str, Real, Real]]:
    """Channel by channel: its name, the members (M, L, H, W), the truth (L, H, W)."""
    for name, variable in forecast.data_vars.variables.items():
        ensemble = variable.dims[0] == "realization"
        members = variable.values if ensemble else variable.values[None]
        yield str(name), members, truth.variables[name].values


def mean_of_members(members: Real) -> Real:
    """Mean (L, H, W) of members (M, L, H, W), in float64; a single one as it is."""
    return members[0] if len(members) == 1 else members.mean(axis=0, dtype="float64")


def area_mean(values: Real, weight: xr.DataArray) -> Real:
    """Means (L, R) over each region of fields (L, H, W); cells with NaN in the first are left out.

    Summed in float64. weight: (region, latitude, longitude). NaN for a region without any cell
    that is observed.
    """
    flat = values.reshape(len(values), -1).astype("float64", copy=False)
    shares = weight.values.reshape(len(weight), -1).T
    seen = ~np.isnan(flat[0])
    if not seen.all():
        flat, shares = flat[:, seen], shares[seen]
    sums = flat @ shares
    if not np.isfinite(sums).all():  # 0 times infinity is NaN in regions without the cell, too
        sums = np.stack([flat[:, share > 0] @ share[share > 0] for share in shares.T], axis=1)
    return ratio(sums, shares.sum(axis=0))


def ratio(numerator: Real, denominator: Real) -> Real:
    """NaN where the denominator is not positive."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    there = np.broadcast_to(denominator > 0, shape)
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=there)


def skill(score: Real, reference: Real) -> Real:
    """Skill of a score that is 0 for a perfect forecast: 1 - score / score of the reference."""
    return 1 - ratio(score, reference)


def case_table(
    forecast: xr.Dataset, weight: xr.DataArray, means: Mapping[str, Mapping[str, Real]]
) -> pd.DataFrame:
    """Rows by channel, lead time and region; means: channel, then column, to values (L, R)."""
    channels = list(means)
    leads, regions = forecast.lead_time.values, weight.region.values
    codes = np.indices((len(channels), len(leads), len(regions))).reshape(3, -1)
    return pd.DataFrame(
        {
            "variable": pd.Categorical.from_codes(codes[0], dtype=_names(*channels)),
            "init_time": np.broadcast_to(forecast.init_time.values, leads.shape)[codes[1]],
            "lead_time": leads[codes[1]],
            "region": pd.Categorical.from_codes(codes[2], dtype=_names(*regions)),
            **{
                column: np.concatenate([means[channel][column].ravel() for channel in channels])
                for column in next(iter(means.values()))
            },
        }
    )


@functools.lru_cache
def _names(*names: str) -> pd.CategoricalDtype:
    """Names in this order; made once, since pandas is slow at it and each case needs them."""
    return pd.CategoricalDtype(names)


def _cases(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """Initialisations in order of time × (variable, lead time, region); NaN where there is none."""
    return scores.pivot_table(
        index="init_time", columns=KEYS, values=column, observed=True, sort=True, dropna=True
    )
